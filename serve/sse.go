package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// events writes server-sent events. It may be used by several goroutines.
type events struct {
	w    http.ResponseWriter
	ctl  *http.ResponseController
	slow time.Duration
	stop context.CancelFunc // called when the client has left

	mu sync.Mutex
}

// newEvents begins the answer.
func newEvents(w http.ResponseWriter, slow time.Duration, stop context.CancelFunc) *events {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	return &events{w: w, ctl: http.NewResponseController(w), slow: slow, stop: stop}
}

// send writes one event with v as its JSON; name may be empty. A client that
// does not take it in time is given up.
func (e *events) send(name string, v any) {
	var b bytes.Buffer
	if name != "" {
		b.WriteString("event: " + name + "\n")
	}
	b.WriteString("data: ")
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		e.stop()
		return
	}
	b.WriteByte('\n')
	e.write(b.Bytes())
}

func (e *events) write(b []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = e.ctl.SetWriteDeadline(time.Now().Add(e.slow)) // not every writer has deadlines
	_, err := e.w.Write(b)
	if err == nil {
		err = e.ctl.Flush()
	}
	if err != nil {
		e.stop()
	}
}
