package serve

import (
	_ "embed"
	"net/http"
	"strings"
)

// page is the page to try the model in a browser, without outside resources.
//
//go:embed page/index.html
var page []byte

// pagePolicy lets the page load nothing but itself.
const pagePolicy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// routes is the table of everything that is answered. With API keys only what is
// public is told without one, so that not even the table can be found out.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	public := func(method, path string, h http.HandlerFunc) {
		mux.HandleFunc(path, named(path, only(method, path, h)))
	}
	route := func(method, path string, h http.HandlerFunc) {
		mux.HandleFunc(path, named(path, s.keyed(only(method, path, h))))
	}
	const get, post = http.MethodGet, http.MethodPost
	route(post, "/generate", s.limited(s.original))
	route(post, "/v1/completions", s.limited(s.completions))
	route(get, "/v1/models", s.listModels)
	route(get, "/v1/models/{id}", s.getModel)
	route(get, "/metrics", s.metrics.handler.ServeHTTP)
	route(post, "/admin/reload", s.adminReload)
	public(get, "/health", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	public(get, "/ready", s.isReady)
	public(get, "/{$}", servePage)
	mux.HandleFunc("/", s.keyed(func(w http.ResponseWriter, r *http.Request) {
		fail(w, r, &httpError{status: http.StatusNotFound, message: "nothing is here: try POST /generate"})
	}))
	return s.observed(s.cors(mux))
}

// named notes the route that a request took, whatever its answer.
func named(path string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		note(r).route = path
		next(w, r)
	}
}

// only lets a route's own method through, and HEAD where that is GET.
func only(method, path string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method && (method != http.MethodGet || r.Method != http.MethodHead) {
			w.Header().Set("Allow", method)
			fail(w, r, &httpError{status: http.StatusMethodNotAllowed, message: path + " takes " + method})
			return
		}
		next(w, r)
	}
}

func (s *Server) isReady(w http.ResponseWriter, r *http.Request) {
	switch {
	case s.ready():
		writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
	case s.models.draining.Load():
		fail(w, r, errDraining)
	default:
		fail(w, r, errNotReady)
	}
}

func servePage(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	_, _ = w.Write(page)
}

// adminReload loads the model again. It exists only where keys guard it.
func (s *Server) adminReload(w http.ResponseWriter, r *http.Request) {
	if s.keys == nil {
		fail(w, r, &httpError{status: http.StatusForbidden, message: "reloading over HTTP needs a server with API keys"})
		return
	}
	if err := s.Reload(r.Context()); err != nil {
		if forClient(err) == nil { // whoever may reload may know why not
			err = &httpError{status: http.StatusInternalServerError, message: "the model was not loaded again: " + err.Error()}
		}
		fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "loaded"})
}

// wantsStream reports whether the client asks for server-sent events.
func wantsStream(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}
