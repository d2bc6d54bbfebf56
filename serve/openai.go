package serve

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"promptgen/generate"
)

// completion is a request to /v1/completions after OpenAI.
type completion struct {
	prompts  []generate.Request // the prompts, one each, otherwise alike
	n        int                // samples of each
	model    string
	echo     bool
	stream   bool
	usage    bool // a last chunk with the usage
	logProbs bool
}

// choice is a text of the answer, or a piece of one in a stream.
type choice struct {
	Text     string         `json:"text"`
	Index    int            `json:"index"`
	LogProbs *tokenLogProbs `json:"logprobs"`
	Finish   *string        `json:"finish_reason"`
}

// tokenLogProbs is OpenAI's form of log-probabilities, token by token.
type tokenLogProbs struct {
	Tokens  []string             `json:"tokens"`
	Values  []float64            `json:"token_logprobs"`
	Top     []map[string]float64 `json:"top_logprobs"`
	Offsets []int                `json:"text_offset"` // in characters of the tokens' own texts

	end int
}

func newLogProbs() *tokenLogProbs {
	return &tokenLogProbs{Tokens: []string{}, Values: []float64{}, Top: []map[string]float64{}, Offsets: []int{}}
}

// add adds one token and the most probable ones in its place, among which, as at
// OpenAI, the token itself always is.
func (l *tokenLogProbs) add(m *loaded, t generate.TokenProb, top []generate.TokenProb) {
	name := tokenName(m, t.Token)
	l.Tokens = append(l.Tokens, name)
	l.Values = append(l.Values, t.LogProb)
	l.Offsets = append(l.Offsets, l.end)
	l.end += utf8.RuneCountInString(name)
	alternatives := make(map[string]float64, len(top)+1)
	for _, o := range top {
		alternatives[tokenName(m, o.Token)] = o.LogProb
	}
	alternatives[name] = t.LogProb
	l.Top = append(l.Top, alternatives)
}

func tokenName(m *loaded, id int32) string {
	if tok := m.Engine.Tokenizer(); tok != nil {
		return tok.Vocab().Token(id)
	}
	return strconv.Itoa(int(id))
}

type usage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Total      int `json:"total_tokens"`
}

type completionAnswer struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int64    `json:"created"`
	Model   string   `json:"model"`
	Choices []choice `json:"choices"`
	Usage   *usage   `json:"usage,omitempty"`
}

// completions answers POST /v1/completions.
func (s *Server) completions(w http.ResponseWriter, r *http.Request) {
	f, err := readFields(w, r, s.o.MaxBody)
	if err != nil {
		fail(w, r, err)
		return
	}
	c, err := s.readCompletion(f)
	if err != nil {
		fail(w, r, err)
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
	a := completionAnswer{
		ID: "cmpl-" + note(r).id, Object: "text_completion", Created: time.Now().Unix(), Model: m.Name, Choices: []choice{},
	}
	if c.stream {
		s.streamCompletion(ctx, cancel, w, r, c, a, m)
		return
	}
	answers, err := s.generateAll(ctx, cancel, r, m, c.prompts)
	if err != nil {
		fail(w, r, err)
		return
	}
	a.Usage = countTokens(answers)
	for i, resp := range answers {
		for k, sample := range resp.Samples {
			ch := choice{Text: sample.Continuation, Index: i*c.n + k, Finish: finishName(sample.Finish)}
			if c.echo {
				ch.Text = sample.Text
			}
			if c.logProbs {
				ch.LogProbs = newLogProbs()
				for t, id := range sample.Tokens {
					var top []generate.TokenProb
					if sample.Top != nil {
						top = sample.Top[t]
					}
					ch.LogProbs.add(m, generate.TokenProb{Token: id, LogProb: sample.LogProbs[t]}, top)
				}
			}
			a.Choices = append(a.Choices, ch)
		}
	}
	writeJSON(w, http.StatusOK, a)
}

// readCompletion checks the request's fields.
func (s *Server) readCompletion(f *fields) (*completion, error) {
	f.nullable = true
	c := &completion{n: 1}
	req := generate.Request{Length: 16, Temperature: 1}
	f.text("model", &c.model)
	f.whole("n", &c.n, 1, s.o.MaxSamples)
	f.whole("max_tokens", &req.Length, 0, s.o.MaxLength)
	f.whole("min_tokens", &req.MinLength, 0, s.o.MaxLength)
	s.sampling(f, &req)
	f.seed("seed", &req.Seed, true)
	f.real("repetition_penalty", &req.RepetitionPenalty, 0.01, 100)
	f.real("presence_penalty", &req.PresencePenalty, -2, 2)
	f.real("frequency_penalty", &req.FrequencyPenalty, -2, 2)
	f.flag("echo", &c.echo)
	f.flag("stream", &c.stream)
	if _, ok := f.get("logprobs"); ok {
		c.logProbs = true
		f.whole("logprobs", &req.TopLogProbs, 0, 20)
	}
	bestOf := c.n
	if f.whole("best_of", &bestOf, 1, s.o.MaxSamples); bestOf != c.n {
		f.bad("best_of", "must be n, %d: all texts that are written are the answer", c.n)
	}
	if raw, ok := f.get("logit_bias"); ok && string(raw) != "{}" {
		f.bad("logit_bias", "is not possible: leave it out")
	}
	if _, ok := f.get("suffix"); ok {
		f.bad("suffix", "is not possible with this model: it writes on, not in between")
	}
	if raw, ok := f.get("stream_options"); ok {
		o := &fields{nullable: true}
		if json.Unmarshal(raw, &o.raw) != nil {
			f.bad("stream_options", "must be an object")
		} else if o.flag("include_usage", &c.usage); len(o.faults) > 0 {
			f.bad("stream_options", "%v", o.done())
		}
	}
	req.Samples = c.n
	f.prompts(req, &c.prompts)
	if _, sent := f.get("seed"); !sent { // one for all would write the same on from equal prompts
		for i := range c.prompts {
			c.prompts[i].Seed = randomSeed()
		}
	}
	if n := len(c.prompts) * c.n; n > s.o.MaxSamples {
		f.bad("prompt", "and n ask for %d texts: at most %d at once", n, s.o.MaxSamples)
	}
	if c.echo && c.logProbs {
		f.bad("logprobs", "cannot be given for the prompt: leave out echo or logprobs")
	}
	return c, f.done()
}

// prompts reads a string, a list of strings, a list of tokens, or a list of
// such lists; each becomes a copy of like.
func (f *fields) prompts(like generate.Request, to *[]generate.Request) {
	raw, ok := f.get("prompt")
	if !ok {
		*to = []generate.Request{like} // OpenAI's: the beginning of a text
		return
	}
	one := func(raw json.RawMessage) bool {
		req := like
		var ids []*int32 // null is none
		switch {
		case bytes.HasPrefix(raw, []byte(`"`)):
			text, err := decodeString(raw)
			if err != nil {
				f.bad("prompt", "must be %v", err)
				return true
			}
			req.Prompt = text
		case json.Unmarshal(raw, &ids) == nil && len(ids) > 0 && !slices.Contains(ids, nil):
			for _, id := range ids {
				req.PromptIDs = append(req.PromptIDs, *id)
			}
		default:
			return false
		}
		*to = append(*to, req)
		return true
	}
	if one(raw) {
		return
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) == nil && len(list) > 0 && len(list) <= generate.MaxSamples {
		good := true
		for _, item := range list {
			good = good && one(item)
		}
		if good {
			return
		}
	}
	f.bad("prompt", "must be a string, a list of strings, a list of tokens or a list of such lists")
}

// generateAll asks for all prompts, for so many at once as the engine may have waiting;
// the first failure ends the others.
func (s *Server) generateAll(ctx context.Context, cancel context.CancelFunc, r *http.Request, m *loaded, reqs []generate.Request) ([]*generate.Response, error) {
	answers := make([]*generate.Response, len(reqs))
	var wg sync.WaitGroup
	var once sync.Once
	var failed error
	own := make([]*http.Request, len(reqs))
	st := m.Engine.Stats()
	places := make(chan struct{}, min(st.Slots, cmp.Or(st.MaxQueue, st.Slots)))
	for i := range reqs {
		// Each goroutine keeps its own remarks; they are added up below.
		n := *note(r)
		n.samples, n.tokens = 0, 0
		own[i] = r.WithContext(context.WithValue(r.Context(), remarksKey{}, &n))
		places <- struct{}{}
		wg.Go(func() {
			var err error
			defer func() {
				<-places
				if p := recover(); p != nil { // which would end the server
					err = s.panicked(r, p)
				}
				if err != nil {
					once.Do(func() { failed = err; cancel() })
				}
			}()
			answers[i], err = s.generate(ctx, own[i], m, reqs[i])
		})
	}
	wg.Wait()
	var prompts []string
	for _, o := range own {
		note(r).samples += note(o).samples
		note(r).tokens += note(o).tokens
		if p := note(o).prompt; p != "" {
			prompts = append(prompts, p)
		}
	}
	note(r).prompt = strings.Join(prompts, "\n")
	return answers, failed
}

// streamCompletion sends a chunk for each piece of text, then one with the
// usage if that is asked for, then [DONE].
func (s *Server) streamCompletion(ctx context.Context, cancel context.CancelFunc, w http.ResponseWriter, r *http.Request, c *completion, a completionAnswer, m *loaded) {
	var ev *events
	var once sync.Once
	begin := func() { once.Do(func() { ev = newEvents(w, s.o.Slow, cancel) }) }
	echoed := make([]bool, len(c.prompts)*c.n) // each by its prompt's goroutine
	offsets := make([]int, len(echoed))
	for i := range c.prompts {
		req := &c.prompts[i]
		req.OnToken = func(p generate.Piece) {
			begin()
			index := i*c.n + p.Sample
			ch := choice{Text: p.Text, Index: index}
			if c.echo && !echoed[index] {
				echoed[index] = true
				ch.Text = echoText(m, req) + ch.Text
			}
			if p.Finish != "" {
				ch.Finish = finishName(p.Finish)
			}
			if c.logProbs && p.Finish != generate.FinishEOS {
				ch.LogProbs = newLogProbs()
				ch.LogProbs.end = offsets[index]
				ch.LogProbs.add(m, p.Token, p.Top)
				offsets[index] = ch.LogProbs.end
			}
			if ch.Text == "" && ch.Finish == nil && ch.LogProbs == nil {
				return
			}
			chunk := a
			chunk.Choices = []choice{ch}
			ev.send("", chunk)
		}
	}
	answers, err := s.generateAll(ctx, cancel, r, m, c.prompts)
	if err != nil && ev == nil {
		fail(w, r, err)
		return
	}
	begin()
	if err != nil {
		h := statusOf(r, err)
		ev.send("", errorBody(r, h))
		return
	}
	for i, resp := range answers { // of length 0: nothing was sent yet
		for k, sample := range resp.Samples {
			if len(sample.Tokens) == 0 && sample.Finish == generate.FinishLength {
				ch := choice{Index: i*c.n + k, Finish: finishName(sample.Finish)}
				if c.echo {
					ch.Text = sample.Text
				}
				chunk := a
				chunk.Choices = []choice{ch}
				ev.send("", chunk)
			}
		}
	}
	if c.usage {
		a.Usage = countTokens(answers)
		ev.send("", a)
	}
	ev.write([]byte("data: [DONE]\n\n"))
}

// echoText is the prompt as a text.
func echoText(m *loaded, req *generate.Request) string {
	if req.PromptIDs != nil && m.Engine.Tokenizer() != nil {
		return m.Engine.Tokenizer().Decode(req.PromptIDs)
	}
	return req.Prompt
}

// finishName is OpenAI's word for why a text ended.
func finishName(f generate.Finish) *string {
	name := "stop"
	if f == generate.FinishLength {
		name = "length"
	}
	return &name
}

func countTokens(answers []*generate.Response) *usage {
	u := &usage{}
	for _, r := range answers {
		u.Prompt += r.PromptTokens
		for _, s := range r.Samples {
			u.Completion += len(s.Tokens)
		}
	}
	u.Total = u.Prompt + u.Completion
	return u
}

// listModels answers GET /v1/models.
func (s *Server) listModels(w http.ResponseWriter, r *http.Request) {
	data := []any{}
	if m, release, err := s.models.borrow(); err == nil {
		data = append(data, describe(m))
		release()
	}
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": data})
}

// getModel answers GET /v1/models/{id}.
func (s *Server) getModel(w http.ResponseWriter, r *http.Request) {
	m, release, err := s.models.borrow()
	if err != nil {
		fail(w, r, err)
		return
	}
	defer release()
	if id := r.PathValue("id"); id != m.Name {
		fail(w, r, &httpError{http.StatusNotFound, "model", "there is no model " + id + ": this server has " + m.Name})
		return
	}
	writeJSON(w, http.StatusOK, describe(m))
}

func describe(m *loaded) map[string]any {
	return map[string]any{"id": m.Name, "object": "model", "created": m.since.Unix(), "owned_by": "promptgen"}
}
