package generate

import (
	"context"
	"errors"
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
	DType      kernel.DType // arithmetic of the matrix products: FP32 or BF16 (fp32 sums)
	Slots      int          // sequences decoded together; 0: 16
	MaxContext int          // tokens a sequence looks back on; 0: the model's n_ctx
	MaxQueue   int          // requests that wait at most; 0: no limit
	// PrefixTokens bounds what is kept of the last prompts, in tokens, for those
	// that begin alike; 0: MaxContext; negative: nothing is kept.
	PrefixTokens int

	BOS, EOS *int32 // first and last token of a text; nil: [MASK] and [CLS]; negative: none
}

// Engine decodes the texts of many requests together. It is safe for
// concurrent use; a kernel.CPU serves one Engine at a time.
type Engine struct {
	p        *model.Params
	tok      *tokenizer.Tokenizer // nil: requests of tokens only
	opts     EngineOptions
	bos, eos int32   // negative: none
	banned   []int32 // never drawn
	pool     *pool   // the scheduler's, for tests to count after Close

	mu      sync.Mutex
	waiting []*job
	closed  bool
	wake    chan struct{} // something changed for the scheduler
	done    chan struct{} // the scheduler has ended
	stats   counters
}

// counters are read by Stats while the scheduler writes them.
type counters struct {
	active, generated, read, steps, prefixHits, prefixTokens atomic.Int64
}

// Stats is how busy an Engine is and what it has done.
type Stats struct {
	Slots, Active, Queued int   // places; sequences being written; requests waiting
	Generated, Read       int64 // tokens written; tokens of prompts and windows read
	Steps                 int64 // times the weights were read

	// Prompts that began like one before, and their tokens that were not read
	// again.
	PrefixHits, PrefixTokens int64
}

// NewEngine starts an engine over the weights p, which must not change any
// more, and cpu, which is the engine's until Close. tok may be nil: requests
// then give tokens and get tokens.
func NewEngine(p *model.Params, tok *tokenizer.Tokenizer, cpu *kernel.CPU, o EngineOptions) (*Engine, error) {
	var l fault.List
	if o.DType != kernel.FP32 && o.DType != kernel.BF16 {
		l.Addf("dtype %v is not one that this engine computes in: use fp32 or bf16", o.DType)
	}
	if o.Slots < 0 || o.Slots > 4096 {
		l.Addf("slots must be between 0 and 4096, not %d", o.Slots)
	}
	if o.MaxContext < 0 || o.MaxContext > p.Config.NCtx {
		l.Addf("max_context must be between 0 and the model's n_ctx (%d), not %d", p.Config.NCtx, o.MaxContext)
	}
	if o.MaxQueue < 0 {
		l.Addf("max_queue must not be negative")
	}
	if err := l.Err("engine"); err != nil {
		return nil, err
	}
	if tok != nil && tok.Vocab().Len() > p.Config.VocabSize {
		return nil, fault.Corrupt("the vocabulary has %d tokens, the model %d: they do not belong together",
			tok.Vocab().Len(), p.Config.VocabSize)
	}
	if o.Slots == 0 {
		o.Slots = 16
	}
	if o.MaxContext == 0 {
		o.MaxContext = p.Config.NCtx
	}
	if o.PrefixTokens == 0 {
		o.PrefixTokens = o.MaxContext
	}
	e := &Engine{p: p, tok: tok, opts: o, wake: make(chan struct{}, 1), done: make(chan struct{})}
	e.bos, e.eos = e.special(o.BOS, "[MASK]"), e.special(o.EOS, "[CLS]")
	e.banned = e.neverDrawn()
	s := &scheduler{e: e, f: newForwarder(cpu, p, o.DType == kernel.BF16)}
	e.pool = s.f.pool
	s.known = prefixes{pool: e.pool, limit: pagesOf(max(0, o.PrefixTokens))}
	go s.run()
	return e, nil
}

// special is the token that was asked for, or that the vocabulary has under
// this name, or -1.
func (e *Engine) special(asked *int32, name string) int32 {
	switch {
	case asked != nil:
		return *asked
	case e.tok == nil:
		return -1
	}
	if id, ok := e.tok.Vocab().ID(name); ok {
		return id
	}
	return -1
}

// neverDrawn lists [PAD], [UNK], [MASK] and the rows of the head that belong to
// no token.
func (e *Engine) neverDrawn() []int32 {
	if e.tok == nil {
		return nil
	}
	var ids []int32
	for _, name := range []string{"[PAD]", "[UNK]", "[MASK]"} {
		if id, ok := e.tok.Vocab().ID(name); ok && id != e.eos {
			ids = append(ids, id)
		}
	}
	for id := e.tok.Vocab().Len(); id < e.p.Config.VocabSize; id++ {
		ids = append(ids, int32(id))
	}
	return ids
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
	queued := len(e.waiting)
	e.mu.Unlock()
	return Stats{
		Slots: e.opts.Slots, Active: int(e.stats.active.Load()), Queued: queued,
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
	j := &job{ctx: ctx, req: &r, tok: e.tok, bos: e.bos, eos: e.eos, banned: e.banned, news: make(chan struct{}, 1)}
	if r.BOS != nil {
		j.bos = *r.BOS
	}
	if r.EOS != nil {
		j.eos = *r.EOS
	}
	vocab := int32(e.p.Config.VocabSize)
	if j.bos >= vocab || j.eos >= vocab {
		return nil, fault.Usage("request: bos and eos must be tokens of the model, below %d", vocab)
	}
	switch {
	case r.PromptIDs != nil:
		j.prompt = r.PromptIDs
		for i, id := range r.PromptIDs {
			if id < 0 || id >= vocab {
				return nil, fault.Usage("request: prompt token %d is %d, the model's are 0 to %d", i, id, vocab-1)
			}
		}
		if e.tok != nil && r.Prompt == "" {
			r.Prompt = e.tok.Decode(r.PromptIDs)
		}
	case e.tok == nil:
		return nil, fault.Usage("request: the model has no vocabulary: give the prompt as tokens")
	default:
		j.prompt = encodePrompt(e.tok, r.Prompt)
	}
	if e.tok == nil && len(r.Stop) > 0 {
		return nil, fault.Usage("request: the model has no vocabulary: stop strings need one")
	}
	j.context = j.prompt
	if j.bos >= 0 {
		j.context = append([]int32{j.bos}, j.prompt...)
	}
	if len(j.context) == 0 {
		return nil, fault.Usage("request: the prompt is empty and the model has no token to begin with: write something")
	}
	j.results = make([]*sequence, j.distinct())
	return j, nil
}

// enqueue hands the job to the scheduler.
func (e *Engine) enqueue(j *job) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiting = slices.DeleteFunc(e.waiting, (*job).left)
	switch {
	case e.closed:
		return ErrClosed
	case e.opts.MaxQueue > 0 && len(e.waiting) >= e.opts.MaxQueue:
		return ErrQueueFull
	}
	e.waiting = append(e.waiting, j)
	e.poke()
	return nil
}

func (e *Engine) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}
