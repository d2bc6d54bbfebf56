package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"promptgen/generate"
	"promptgen/internal/fault"
)

// httpError is an answer other than 200.
type httpError struct {
	status  int
	field   string // of the request's body, if it is at fault
	message string
}

func (e *httpError) Error() string { return e.message }

// badField says what is wrong with a field of the body (400).
func badField(field, format string, args ...any) *httpError {
	return &httpError{http.StatusBadRequest, field, field + " " + fmt.Sprintf(format, args...)}
}

// statusOf turns any error into an answer, and remembers it for the log. What is
// not the client's fault is not told to it.
func statusOf(r *http.Request, err error) *httpError {
	if errors.Is(err, context.Canceled) && errors.Is(context.Cause(r.Context()), errCutOff) {
		err = errCutOff
	}
	h := forClient(err)
	if h == nil {
		note(r).err = err.Error()
		return &httpError{status: http.StatusInternalServerError, message: "the server failed; its log knows more under the id " + note(r).id}
	}
	note(r).err = h.message
	return h
}

// forClient is an error that the client may know; nil for others.
func forClient(err error) *httpError {
	var h *httpError
	var p *generate.PromptError
	switch {
	case errors.As(err, &h):
		return h
	case errors.As(err, &p):
		return &httpError{http.StatusBadRequest, "prompt", err.Error()}
	case errors.Is(err, generate.ErrQueueFull), errors.Is(err, errNotReady), errors.Is(err, errDraining), errors.Is(err, errCutOff), errors.Is(err, generate.ErrClosed):
		return &httpError{status: http.StatusServiceUnavailable, message: err.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		return &httpError{status: http.StatusServiceUnavailable, message: "the request took longer than the server allows"}
	case errors.Is(err, context.Canceled):
		return &httpError{status: statusClientLeft, message: "the client has left"}
	case fault.Code(err) == fault.CodeUsage:
		return &httpError{status: http.StatusBadRequest, message: err.Error()}
	}
	return nil
}

// statusClientLeft is what the log says of a client that did not wait; it never
// arrives.
const statusClientLeft = 499

// fail writes an error: {"error": text}, or OpenAI's form on its routes.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	h := statusOf(r, err)
	if h.status == http.StatusServiceUnavailable || h.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, h.status, errorBody(r, h))
}

func errorBody(r *http.Request, h *httpError) any {
	if !strings.HasPrefix(r.URL.Path, "/v1/") {
		return map[string]string{"error": h.message}
	}
	kind := "invalid_request_error"
	switch {
	case h.status >= 500:
		kind = "server_error"
	case h.status == http.StatusTooManyRequests:
		kind = "rate_limit_error"
	case h.status == http.StatusUnauthorized:
		kind = "authentication_error"
	}
	var param *string
	if h.field != "" {
		param = &h.field
	}
	return map[string]any{"error": map[string]any{"message": h.message, "type": kind, "param": param, "code": nil}}
}

// writeJSON writes v as UTF-8 JSON.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // the client has left
}
