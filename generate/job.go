package generate

import (
	"context"
	"slices"
	"sync"
	"time"

	"promptgen/tokenizer"
)

// maxRedraws is how often a sample that equals an earlier one is drawn again.
const maxRedraws = 3

// job is a request on its way. The scheduler owns all of it but the letter box.
type job struct {
	ctx     context.Context
	req     *Request
	tok     *tokenizer.Tokenizer
	rules   *rules
	prompt  []int32 // the prompt's tokens
	context []int32 // with BOS before them: what every sample begins with

	window []int32   // what is read of context: as much as fits; nil until that begins
	cache  cache     // what was read of window; samples fork it
	logits []float32 // after the prompt; nil until it is read

	removed bool        // the scheduler has let go of it
	started bool        // the first round has been planned
	todo    []draft     // samples to start
	paused  []*sequence // samples that wait for a place to go on
	live    int         // samples being written
	results []*sequence // finished samples, by number

	mu     sync.Mutex // the letter box: what the scheduler tells the caller
	pieces []Piece
	first  time.Time
	over   bool
	err    error
	news   chan struct{}
}

// draft is one try at one sample.
type draft struct{ sample, attempt int }

// distinct is how many samples are written: greedy ones are all the same.
func (j *job) distinct() int {
	if j.req.greedy() && j.req.Beams == 0 {
		return 1
	}
	return j.req.Samples
}

func (j *job) newWriter() *writer { return newWriter(j.tok, j.req.Prompt, j.prompt, j.req.Stop) }

// left reports that the caller does not wait any more.
func (j *job) left() bool { return j.ctx.Err() != nil }

// pending reports that there is more to write than what is live.
func (j *job) pending() bool { return len(j.paused) > 0 || len(j.todo) > 0 }

// plan fills todo: first with all samples, then with those to be drawn again.
// It leaves it empty when the job is complete.
func (j *job) plan() {
	if !j.started {
		j.started = true
		drafts := len(j.results)
		if j.req.Beams > 0 {
			drafts = 1 // one search writes all samples
		}
		for i := range drafts {
			j.todo = append(j.todo, draft{i, 0})
		}
		return
	}
	if j.req.AllowDuplicates || j.req.OnToken != nil || j.req.Beams > 0 {
		return
	}
	// In the order of their numbers, so that the outcome does not depend on
	// which sample ended first.
	for i, s := range j.results {
		same := func(t *sequence) bool { return slices.Equal(s.written(), t.written()) }
		if s.attempt < maxRedraws && slices.ContainsFunc(j.results[:i], same) {
			j.todo = append(j.todo, draft{i, s.attempt + 1})
		}
	}
}

// tell puts a piece into the letter box, for every sample that it stands for.
func (j *job) tell(p Piece) {
	j.mu.Lock()
	if j.first.IsZero() {
		j.first = time.Now()
	}
	if j.req.OnToken != nil {
		for i := p.Sample; i < j.req.Samples; i += len(j.results) {
			p.Sample = i
			j.pieces = append(j.pieces, p)
		}
	}
	j.mu.Unlock()
	j.ring()
}

// end closes the letter box.
func (j *job) end(err error) {
	j.mu.Lock()
	j.over, j.err = true, err
	j.mu.Unlock()
	j.ring()
}

func (j *job) ring() {
	select {
	case j.news <- struct{}{}:
	default:
	}
}

// wait hands the pieces to the caller's function until the job is over.
func (j *job) wait(ctx context.Context, onToken func(Piece)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-j.news:
		}
		j.mu.Lock()
		pieces, over, err := j.pieces, j.over, j.err
		j.pieces = nil
		j.mu.Unlock()
		for _, p := range pieces {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			onToken(p)
		}
		if over {
			return err
		}
	}
}

// response is the answer of a complete job.
func (j *job) response(began time.Time) *Response {
	r := &Response{
		Seed:    j.req.Seed,
		Samples: make([]Sample, j.req.Samples), PromptTokens: len(j.context), Total: time.Since(began),
	}
	if !j.first.IsZero() {
		r.FirstToken = j.first.Sub(began)
	}
	for i := range r.Samples {
		s := Sample{Finish: FinishLength}
		if seq := j.results[i%len(j.results)]; seq != nil {
			s = seq.result()
		}
		s.Text = j.req.Prompt + s.Continuation
		r.Samples[i] = s
	}
	return r
}
