package generate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model"
	"promptgen/tokenizer"
)

// What Generate answers when the engine cannot take a request.
var (
	ErrQueueFull = errors.New("the queue is full: try again later")
	ErrClosed    = errors.New("the engine is closed")
)

// EngineOptions are the choices of an Engine.
type EngineOptions struct {
	Name       string       // of the model, for errors
	Log        *slog.Logger // told of panics and where they happened; nil: no log
	DType      kernel.DType // of the weights: FP32, BF16, Q8_0 or Q4_0; the cache holds fp32, bf16, 8 or 4 bits
	Slots      int          // sequences decoded together; 0: 16
	MaxContext int          // tokens a sequence looks back on; 0: the model's n_ctx
	MaxQueue   int          // requests that wait at most, beside one for each slot; 0: no limit
	// PrefixTokens bounds what is kept of the last prompts, in tokens, for those
	// that begin alike; 0: MaxContext; negative: nothing is kept.
	PrefixTokens int

	// Lent is memory that packed weights may lie in until Close, pieces that begin
	// with cache lines; what does not fit there is taken from the system.
	Lent [][]float32

	BOS, EOS *int32 // first and last token of a text; nil: [MASK] and [CLS]; negative: none
}

// Engine decodes the texts of many requests together. It is safe for
// concurrent use; a kernel.CPU serves one Engine at a time.
type Engine struct {
	c        model.Config
	tok      *tokenizer.Tokenizer // nil: requests of tokens only
	opts     EngineOptions
	bos, eos int32   // negative: none
	banned   []int32 // never drawn

	mu      sync.Mutex
	waiting []*job
	closed  bool
	wake    chan struct{} // something changed for the scheduler
	done    chan struct{} // the scheduler has ended
	stats   counters
}

// counters are read by Stats while the scheduler writes them.
type counters struct {
	admitted atomic.Int64 // requests that have a place

	active, generated, read, steps, prefixHits, prefixTokens atomic.Int64
}

// Stats is how busy an Engine is and what it has done.
type Stats struct {
	Slots, Active, Queued int   // places; sequences being written; requests waiting
	MaxQueue              int   // requests that may wait; 0: any number
	Generated, Read       int64 // tokens written; tokens of prompts and windows read
	Steps                 int64 // times the weights were read

	// Prompts that began like one before, and their tokens that were not read
	// again.
	PrefixHits, PrefixTokens int64
}

// Plus adds what o has done to s; how busy they are stays that of s.
func (s Stats) Plus(o Stats) Stats {
	s.Generated += o.Generated
	s.Read += o.Read
	s.Steps += o.Steps
	s.PrefixHits += o.PrefixHits
	s.PrefixTokens += o.PrefixTokens
	return s
}

// NewEngine starts an engine over the weights p, of which it makes packed copies,
// and cpu, which is the engine's until Close. tok may be nil: requests then give
// tokens and get tokens.
func NewEngine(p *model.Params, tok *tokenizer.Tokenizer, cpu *kernel.CPU, o EngineOptions) (*Engine, error) {
	return NewEngineFrom(FromParams(p, nil), tok, cpu, o)
}

// NewEngineFrom is NewEngine over weights that need not be in memory.
func NewEngineFrom(src Source, tok *tokenizer.Tokenizer, cpu *kernel.CPU, o EngineOptions) (*Engine, error) {
	s, err := prepare(src, tok, cpu, o)
	if err != nil {
		return nil, err
	}
	go s.run()
	return s.e, nil
}

// prepare makes an engine and its scheduler, which does not run yet.
func prepare(src Source, tok *tokenizer.Tokenizer, cpu *kernel.CPU, o EngineOptions) (*scheduler, error) {
	c, _ := src.Config()
	if err := o.validate(c); err != nil {
		return nil, err
	}
	if tok != nil && tok.Vocab().Len() > c.VocabSize {
		return nil, fault.Corrupt("the vocabulary has %d tokens, the model %d: they do not belong together",
			tok.Vocab().Len(), c.VocabSize)
	}
	o.Slots = cmp.Or(o.Slots, 16)
	o.MaxContext = cmp.Or(o.MaxContext, c.NCtx)
	o.PrefixTokens = cmp.Or(o.PrefixTokens, o.MaxContext)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{c: c, tok: tok, opts: o, wake: make(chan struct{}, 1), done: make(chan struct{})}
	e.bos, e.eos = o.frame(tok)
	e.banned = e.neverDrawn()
	f, err := newForwarder(cpu, src, o.DType, o.Lent)
	switch {
	case fault.Code(err) == fault.CodeCorrupt:
		return nil, o.damaged(err)
	case err != nil:
		return nil, err
	}
	return newScheduler(e, f), nil
}

// validate lists all that is wrong with the options beside a model.
func (o *EngineOptions) validate(c model.Config) error {
	var l fault.List
	if err := checkDType(o.DType); err != nil {
		l.Addf("%v", err)
	}
	if o.Slots < 0 || o.Slots > 4096 {
		l.Addf("slots must be between 0 and 4096, not %d", o.Slots)
	}
	if o.MaxContext < 0 || o.MaxContext > c.NCtx {
		l.Addf("max_context must be between 0 and the model's n_ctx (%d), not %d", c.NCtx, o.MaxContext)
	}
	if o.MaxQueue < 0 {
		l.Addf("max_queue must not be negative")
	}
	special := func(name string, id *int32) {
		if id != nil && int(*id) >= c.VocabSize {
			l.Addf("%s must be below the model's vocab_size (%d), not %d", name, c.VocabSize, *id)
		}
	}
	special("bos", o.BOS)
	special("eos", o.EOS)
	return l.Err("engine")
}

// frame is the first and the last token of a text: those that were asked for, or
// the vocabulary's; negative: none.
func (o *EngineOptions) frame(tok *tokenizer.Tokenizer) (bos, eos int32) {
	bos, eos = -1, -1
	if tok != nil {
		special := tok.Vocab().Special()
		bos, eos = special.MASK, special.CLS
	}
	if o.BOS != nil {
		bos = *o.BOS
	}
	if o.EOS != nil {
		eos = *o.EOS
	}
	return bos, eos
}

// neverDrawn lists [PAD], [UNK], [MASK] and the rows of the head that belong to
// no token.
func (e *Engine) neverDrawn() []int32 {
	if e.tok == nil {
		return nil
	}
	var ids []int32
	special := e.tok.Vocab().Special()
	for _, id := range []int32{special.PAD, special.UNK, special.MASK} {
		if id != e.eos {
			ids = append(ids, id)
		}
	}
	for id := e.tok.Vocab().Len(); id < e.c.VocabSize; id++ {
		ids = append(ids, int32(id))
	}
	return ids
}

// blame gives an error of a draw its exit code, and the model its name.
func (e *Engine) blame(err error) error {
	if errors.Is(err, errNaN) {
		return e.opts.damaged(err)
	}
	return fault.With(fault.CodeUsage, err)
}

// damaged says of which model's weights an error is.
func (o *EngineOptions) damaged(err error) error {
	if o.Name != "" {
		err = fmt.Errorf("%s: %w", o.Name, err)
	}
	return fault.With(fault.CodeCorrupt, err)
}

// Close ends the engine; requests in flight get ErrClosed. The CPU is the
// caller's again.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.poke()
	<-e.done
}

// Tokenizer is the engine's tokenizer; nil if it has none.
func (e *Engine) Tokenizer() *tokenizer.Tokenizer { return e.tok }

// Stats tells how busy the engine is.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	queued := e.queued()
	e.mu.Unlock()
	return Stats{
		Slots: e.opts.Slots, Active: int(e.stats.active.Load()), Queued: queued, MaxQueue: e.opts.MaxQueue,
		Generated: e.stats.generated.Load(), Read: e.stats.read.Load(), Steps: e.stats.steps.Load(),
		PrefixHits: e.stats.prefixHits.Load(), PrefixTokens: e.stats.prefixTokens.Load(),
	}
}

// Generate writes the texts that r asks for. It returns as soon as ctx is
// done; the engine then drops the request before its next step.
func (e *Engine) Generate(ctx context.Context, r Request) (*Response, error) {
	began := time.Now()
	j, err := e.newJob(ctx, r)
	if err != nil {
		return nil, err
	}
	if r.Length > 0 {
		if err := e.enqueue(j); err != nil {
			return nil, err
		}
		if err := j.wait(ctx, r.OnToken); err != nil {
			return nil, err
		}
	}
	return j.response(began), nil
}

// newJob checks the request and turns its prompt into tokens.
func (e *Engine) newJob(ctx context.Context, r Request) (*job, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.Samples = max(r.Samples, 1)
	if err := e.known(&r); err != nil {
		return nil, err
	}
	j := &job{ctx: ctx, req: &r, tok: e.tok, prompt: r.PromptIDs, news: make(chan struct{}, 1)}
	switch {
	case r.PromptIDs == nil:
		j.prompt = encodePrompt(e.tok, r.Prompt)
	case e.tok != nil && r.Prompt == "":
		r.Prompt = e.tok.Decode(r.PromptIDs)
	}
	j.context = j.prompt
	if e.bos >= 0 {
		j.context = append([]int32{e.bos}, j.prompt...)
	}
	if len(j.context) == 0 {
		return nil, badPrompt("request: the prompt is empty and the model has no token to begin with: write something")
	}
	j.rules = newRules(e.tok, e.banned, e.eos, &r)
	j.results = make([]*sequence, j.distinct())
	return j, nil
}

// known checks that the model has the request's tokens, and a vocabulary where
// the request has texts.
func (e *Engine) known(r *Request) error {
	vocab := int32(e.c.VocabSize)
	for i, id := range r.PromptIDs {
		if id < 0 || id >= vocab {
			return badPrompt("request: prompt token %d is %d; give tokens that the model has, 0 to %d", i, id, vocab-1)
		}
	}
	switch {
	case e.tok != nil:
	case r.PromptIDs == nil:
		return badPrompt("request: the model has no vocabulary: give the prompt as tokens")
	case len(r.Stop)+len(r.Ban) > 0:
		return fault.Usage("request: the model has no vocabulary: stop strings and banned words need one")
	}
	return nil
}

// enqueue hands the job to the scheduler.
func (e *Engine) enqueue(j *job) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiting = slices.DeleteFunc(e.waiting, (*job).left)
	switch {
	case e.closed:
		return ErrClosed
	case e.opts.MaxQueue > 0 && len(e.waiting) >= e.places()+e.opts.MaxQueue:
		return ErrQueueFull
	}
	e.waiting = append(e.waiting, j)
	e.poke()
	return nil
}

// places is how many requests the scheduler takes from the queue before its next
// step, be they of one text or of many. mu is held.
func (e *Engine) places() int { return max(0, e.opts.Slots-int(e.stats.admitted.Load())) }

// queued counts the requests that wait for a place; those that have one and that
// the scheduler has not come round to do not wait. mu is held.
func (e *Engine) queued() int { return max(0, len(e.waiting)-e.places()) }

func (e *Engine) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}
