package serve

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// remarks are what a request's handlers tell the log and the metrics.
type remarks struct {
	id      string
	route   string // of the table in routes; "other" if none
	err     string
	prompt  string // filled only where prompts are logged
	samples int
	tokens  int
}

type remarksKey struct{}

// note returns the remarks of a request.
func note(r *http.Request) *remarks {
	if n, ok := r.Context().Value(remarksKey{}).(*remarks); ok {
		return n
	}
	return &remarks{}
}

// answer watches what is written.
type answer struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	n, err := a.ResponseWriter.Write(b)
	a.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// observed gives every request an id, a log line and its metrics, and turns a
// panic into a 500 with that id.
func (s *Server) observed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		n := &remarks{id: newID(), route: "other"}
		r = r.WithContext(context.WithValue(r.Context(), remarksKey{}, n))
		a := &answer{ResponseWriter: w}
		a.Header().Set("X-Request-Id", n.id)
		s.metrics.inFlight.Inc()
		defer func() {
			s.metrics.inFlight.Dec()
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				if err := s.panicked(r, p); a.status == 0 {
					fail(a, r, err)
				}
			}
			s.log(r, a, n, time.Since(began))
		}()
		next.ServeHTTP(a, r)
	})
}

// panicked logs a panic and is the answer to the request.
func (s *Server) panicked(r *http.Request, p any) error {
	s.o.Log.Error("a handler panicked", "id", note(r).id, "panic", p, "stack", string(debug.Stack()))
	return fmt.Errorf("panic: %v", p)
}

// log writes the access line. Prompts are in it only where that was asked for.
func (s *Server) log(r *http.Request, a *answer, n *remarks, took time.Duration) {
	status := a.status
	if status == 0 {
		status = http.StatusOK
	}
	s.metrics.observe(n.route, status, took)
	attrs := []slog.Attr{
		slog.String("id", n.id), slog.String("method", r.Method), slog.String("route", n.route),
		slog.Int("status", status), slog.Int64("bytes", a.bytes), slog.Duration("took", took),
		slog.String("from", address(r)),
	}
	if n.samples > 0 {
		attrs = append(attrs, slog.Int("samples", n.samples), slog.Int("tokens", n.tokens))
	}
	if n.err != "" {
		attrs = append(attrs, slog.String("error", n.err))
	}
	if s.o.LogPrompts && n.prompt != "" {
		attrs = append(attrs, slog.String("prompt", n.prompt))
	}
	s.o.Log.LogAttrs(r.Context(), slog.LevelInfo, "request", attrs...)
}

// cors lets pages of other origins ask, never with credentials, and answers
// their preflight.
func (s *Server) cors(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, origin := w.Header(), r.Header.Get("Origin")
		allowed := "*"
		if list := s.o.CORSOrigins; len(list) > 0 && !slices.Contains(list, "*") {
			h.Add("Vary", "Origin")
			allowed = ""
			if slices.Contains(list, origin) {
				allowed = origin
			}
		}
		if allowed != "" {
			h.Set("Access-Control-Allow-Origin", allowed)
			h.Set("Access-Control-Expose-Headers", "X-Request-Id, Retry-After")
		}
		if r.Method != http.MethodOptions {
			next.ServeHTTP(w, r)
			return
		}
		note(r).route = "preflight"
		if allowed != "" {
			h.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
			h.Set("Access-Control-Allow-Headers", allowHeaders(r.Header.Get("Access-Control-Request-Headers")))
			h.Set("Access-Control-Max-Age", "86400")
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

// allowHeaders allows what is asked for: libraries send headers of their own.
func allowHeaders(asked string) string {
	if asked == "" || len(asked) > 1000 {
		return "Authorization, Content-Type, Accept"
	}
	return asked
}

// keyed asks for a key where there are any.
func (s *Server) keyed(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.keys != nil && !s.keys.allowed(bearer(r)) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="promptgen"`)
			fail(w, r, &httpError{status: http.StatusUnauthorized, message: "this server asks for a key: send the header Authorization: Bearer KEY"})
			return
		}
		next(w, r)
	}
}

// limited asks for a share of the rate, which each key has, or each address.
func (s *Server) limited(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		caller := address(r)
		if s.keys != nil {
			caller = bearer(r)
		}
		if !s.rates.allow(caller) {
			fail(w, r, &httpError{status: http.StatusTooManyRequests, message: "too many requests: slow down"})
			return
		}
		next(w, r)
	}
}

// address is where a request comes from, without the port.
func address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return strings.TrimSpace(host)
}

// newID is a name for a request: 96 random bits.
func newID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
