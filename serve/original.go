package serve

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"net/http"
	"strings"
	"time"

	"promptgen/generate"
)

// originalAnswer is the original's answer: Result is a list of texts, or the
// string "[]" for a blank context.
type originalAnswer struct {
	Result any     `json:"result"`
	Time   float64 `json:"time"` // seconds
}

// original answers POST /generate {"context", "maxlength", "samples"}.
func (s *Server) original(w http.ResponseWriter, r *http.Request) {
	f, err := readFields(w, r, s.o.MaxBody)
	if err != nil {
		fail(w, r, err)
		return
	}
	req := generate.Defaults()
	req.Samples, req.Seed = 1, randomSeed()
	if _, ok := f.raw["context"]; !ok {
		f.bad("context", "is missing")
	}
	f.text("context", &req.Prompt)
	f.whole("maxlength", &req.Length, 0, s.o.MaxLength)
	f.whole("samples", &req.Samples, 0, s.o.MaxSamples)
	s.sampling(f, &req)
	f.seed("seed", &req.Seed, false)
	f.real("repetition_penalty", &req.RepetitionPenalty, 0.01, 100)
	if err := f.done(); err != nil {
		fail(w, r, err)
		return
	}
	if strings.TrimSpace(req.Prompt) == "" {
		s.nothing(w, r)
		return
	}
	m, release, err := s.models.borrow()
	if err != nil {
		fail(w, r, err)
		return
	}
	defer release()
	ctx, cancel := context.WithTimeout(r.Context(), s.o.Timeout)
	defer cancel()
	if !wantsStream(r) {
		resp, err := s.generate(ctx, r, m, req)
		if err != nil {
			fail(w, r, err)
			return
		}
		writeJSON(w, http.StatusOK, texts(resp))
		return
	}
	s.originalStream(ctx, cancel, w, r, m, req)
}

// nothing answers a blank context, in the form that was asked for.
func (s *Server) nothing(w http.ResponseWriter, r *http.Request) {
	none := originalAnswer{Result: "[]"}
	if !wantsStream(r) {
		writeJSON(w, http.StatusOK, none)
		return
	}
	newEvents(w, s.o.Slow, func() {}).send("done", none)
}

// originalStream sends each piece of text as {"sample", "text", "tokens" so
// far} as soon as it is written, then the whole answer as the event "done". The answer begins with
// the first piece, so that a full queue is still a 503.
func (s *Server) originalStream(ctx context.Context, cancel context.CancelFunc, w http.ResponseWriter, r *http.Request, m *loaded, req generate.Request) {
	var ev *events
	begin := func() {
		if ev == nil {
			ev = newEvents(w, s.o.Slow, cancel)
		}
	}
	req.OnToken = func(p generate.Piece) {
		begin()
		if p.Text != "" {
			ev.send("", map[string]any{"sample": p.Sample, "text": p.Text, "tokens": p.Tokens})
		}
	}
	resp, err := s.generate(ctx, r, m, req)
	switch {
	case err != nil && ev == nil:
		fail(w, r, err)
	case err != nil:
		h := statusOf(r, err)
		ev.send("error", errorBody(r, h))
	default:
		begin()
		ev.send("done", texts(resp))
	}
}

// sampling reads the fields that both interfaces have.
func (s *Server) sampling(f *fields, req *generate.Request) {
	f.real("temperature", &req.Temperature, 0, 100)
	if req.Temperature > 0 && req.Temperature < 1e-4 {
		req.Temperature = 0
	}
	f.whole("top_k", &req.TopK, 0, 1<<30)
	f.real("top_p", &req.TopP, 0, 1)
	f.real("min_p", &req.MinP, 0, 1)
	f.stops("stop", &req.Stop)
}

// generate asks the model's engine and keeps the books.
func (s *Server) generate(ctx context.Context, r *http.Request, m *loaded, req generate.Request) (*generate.Response, error) {
	n := note(r)
	if s.o.LogPrompts {
		n.prompt = req.Prompt
	}
	began := time.Now()
	resp, err := m.Engine.Generate(ctx, req)
	if err != nil {
		return nil, err
	}
	tokens := 0
	for _, sample := range resp.Samples {
		tokens += len(sample.Tokens)
	}
	n.samples, n.tokens = n.samples+len(resp.Samples), n.tokens+tokens
	s.metrics.generated(resp, time.Since(began))
	return resp, nil
}

func texts(resp *generate.Response) originalAnswer {
	list := make([]string, len(resp.Samples))
	for i, s := range resp.Samples {
		list[i] = s.Text
	}
	return originalAnswer{list, resp.Total.Seconds()}
}

// randomSeed is for requests that bring none.
func randomSeed() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}
