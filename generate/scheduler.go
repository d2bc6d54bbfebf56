package generate

import (
	"fmt"
	"runtime/debug"
	"slices"

	"promptgen/internal/fault"
)

// prefillRows bounds the prompt tokens read in one step where others write or
// read beside it, so that these do not stand still for long: a longer prompt is
// read in several steps.
const prefillRows = 256

// minShare is what a prompt reads in a step at least, however many there are.
const minShare = 32

// scheduler is the goroutine that owns the processor.
type scheduler struct {
	e      *Engine
	f      *forwarder
	known  prefixes
	jobs   []*job      // admitted, in order of arrival
	active []*sequence // being written

	samplers []*sampler // one for each thread

	running []*sequence // of this step, and what they and the prompts read
	reading []*job
	segs    []segment
	raw     [][]float32
	pieces  []Piece
}

func newScheduler(e *Engine, f *forwarder) *scheduler {
	s := &scheduler{e: e, f: f, known: prefixes{pool: f.pool, limit: pagesOf(max(0, e.opts.PrefixTokens))}}
	for range f.cpu.Threads() {
		s.samplers = append(s.samplers, newSampler(f.cpu, f.c.VocabSize))
	}
	return s
}

// run takes step after step until the engine is closed.
func (s *scheduler) run() {
	defer close(s.e.done)
	defer s.f.close()
	for s.admit() {
		s.dropCancelled()
		s.guarded(s.start)
		s.guarded(s.step)
		s.e.stats.active.Store(int64(len(s.active)))
	}
	for len(s.jobs) > 0 {
		s.remove(s.jobs[0], ErrClosed)
	}
	s.known.clear()
}

// guarded runs one phase; should it panic, the requests in flight fail and the
// engine lives on.
func (s *scheduler) guarded(phase func()) {
	defer func() {
		if r := recover(); r != nil {
			s.e.opts.Log.Error("the engine panicked", "model", s.e.opts.Name, "panic", r, "stack", string(debug.Stack()))
			failure := fault.Panicked(r)
			for _, j := range slices.Clone(s.jobs) {
				s.remove(j, fmt.Errorf("the engine failed within a step: %w", failure))
			}
		}
	}()
	phase()
}

// admit takes jobs from the queue while places are left, and waits for one when
// there is nothing to do. It is false when the engine is closed.
func (s *scheduler) admit() bool {
	for {
		s.e.mu.Lock()
		if s.e.closed {
			s.jobs = append(s.jobs, s.e.waiting...)
			s.e.waiting = nil
			s.e.mu.Unlock()
			return false
		}
		s.e.waiting = slices.DeleteFunc(s.e.waiting, (*job).left)
		for len(s.e.waiting) > 0 && len(s.jobs) < s.e.opts.Slots {
			s.jobs = append(s.jobs, s.e.waiting[0])
			s.e.waiting = slices.Delete(s.e.waiting, 0, 1)
		}
		s.e.stats.admitted.Store(int64(len(s.jobs)))
		s.e.mu.Unlock()
		if len(s.jobs) > 0 {
			return true
		}
		<-s.e.wake
	}
}

// dropCancelled lets go of the jobs whose caller has left.
func (s *scheduler) dropCancelled() {
	for i := 0; i < len(s.jobs); {
		if err := s.jobs[i].ctx.Err(); err != nil {
			s.remove(s.jobs[i], err)
		} else {
			i++
		}
	}
}

// remove ends a job and frees all it holds.
func (s *scheduler) remove(j *job, err error) {
	s.jobs = slices.DeleteFunc(s.jobs, func(o *job) bool { return o == j })
	s.active = slices.DeleteFunc(s.active, func(q *sequence) bool {
		if q.job == j {
			q.release(s.f.pool)
		}
		return q.job == j
	})
	for _, q := range j.paused {
		q.release(s.f.pool)
	}
	s.f.pool.release(&j.cache)
	j.paused, j.live, j.removed = nil, 0, true
	s.e.stats.admitted.Store(int64(len(s.jobs))) // before the caller knows, who may ask for the place again
	j.end(err)
}

// step reads the last token of every live sequence, and new prompts as far as
// there is room, in one pass over the weights.
func (s *scheduler) step() {
	s.running, s.segs = append(s.running[:0], s.active...), s.segs[:0]
	for _, q := range s.running {
		if q.beam == nil {
			s.segs = append(s.segs, s.nextSegment(&q.cache, q.tokens))
			continue
		}
		for _, h := range q.beam.live {
			s.segs = append(s.segs, s.nextSegment(&h.cache, h.tokens))
		}
	}
	rows, segs := 0, len(s.segs)
	for _, seg := range s.segs {
		rows += len(seg.ids)
	}
	fresh := s.readPrompts(prefillRows - rows)
	if len(s.segs) == 0 {
		return
	}
	logits := s.f.run(s.segs)
	s.e.stats.steps.Add(1)
	s.e.stats.read.Add(int64(rows - segs + fresh))
	v := s.f.c.VocabSize
	s.raw = s.raw[:0]
	for _, q := range s.running {
		n := v
		if q.beam != nil {
			n *= len(q.beam.live)
		}
		s.raw, logits = append(s.raw, logits[:n]), logits[n:]
	}
	for i, j := range s.reading {
		if j.cache.n == len(j.window) {
			s.known.keep(j.window, &j.cache)
			j.logits = slices.Clone(logits[i*v:][:v])
			j.plan()
		}
	}
	s.advance(s.running, s.raw)
}

// readPrompts adds to the step's segments what is read of new prompts, some
// budget tokens together, and returns how many tokens that is. A prompt that
// would be read alone is read whole.
func (s *scheduler) readPrompts(budget int) (rows int) {
	s.reading = s.reading[:0]
	for _, j := range s.jobs {
		if j.logits == nil && len(s.running)+len(s.reading) < s.e.opts.Slots {
			s.reading = append(s.reading, j)
		}
	}
	share := max(minShare, budget/max(1, len(s.reading)))
	alone := len(s.running)+len(s.reading) == 1
	for _, j := range s.reading {
		if j.window == nil {
			s.recall(j)
		}
		n := len(j.window) - j.cache.n
		if n > share && !alone {
			n = share
		}
		s.segs = append(s.segs, segment{&j.cache, j.window[j.cache.n:][:n]})
		rows += n
	}
	return rows
}

// recall sets what the job reads of its prompt, and begins with what is known
// of it.
func (s *scheduler) recall(j *job) {
	j.window = j.context[max(0, len(j.context)-s.e.opts.MaxContext):]
	j.cache = s.known.begin(j.window)
	if n := j.cache.n; n > 0 {
		s.e.stats.prefixHits.Add(1)
		s.e.stats.prefixTokens.Add(int64(n))
	}
}

// nextSegment is what a text reads next: its last token, or, when the window is
// full, the last half of it from a fresh start.
func (s *scheduler) nextSegment(c *cache, tokens []int32) segment {
	if c.n < s.e.opts.MaxContext {
		return segment{c, tokens[len(tokens)-1:]}
	}
	s.f.pool.release(c)
	half := max(1, s.e.opts.MaxContext/2)
	return segment{c, tokens[len(tokens)-half:]}
}

// advance draws the next token of each sequence, spread over the threads, and
// settles those that are done.
func (s *scheduler) advance(seqs []*sequence, raw [][]float32) {
	s.pieces = slices.Grow(s.pieces[:0], len(seqs))[:len(seqs)]
	threads := min(len(s.samplers), len(seqs))
	s.f.cpu.Parallel(threads, func(lo, hi int) {
		for t := lo; t < hi; t++ {
			for i := t; i < len(seqs); i += threads {
				s.pieces[i] = seqs[i].advance(s.samplers[t], raw[i])
			}
		}
	})
	for i, q := range seqs {
		switch {
		case q.job.removed: // a sibling has failed
		case q.err != nil:
			s.remove(q.job, s.e.blame(q.err))
		case q.beam != nil:
			s.e.stats.generated.Add(int64(len(q.beam.live)))
			if q.finish != "" {
				s.settle(q, q.results()...)
			} else {
				q.beam.follow(s.f.pool)
			}
		default:
			s.e.stats.generated.Add(1)
			q.job.tell(s.pieces[i])
			if q.finish != "" {
				s.settle(q, q)
			}
		}
	}
}

// settle files what a finished sequence has written; with the last one its job
// is complete, unless there are duplicates to draw again.
func (s *scheduler) settle(q *sequence, results ...*sequence) {
	j := q.job
	for _, r := range results {
		j.results[r.sample] = r
	}
	j.live--
	q.release(s.f.pool)
	s.active = slices.DeleteFunc(s.active, func(o *sequence) bool { return o == q })
	if j.live > 0 || j.pending() {
		return
	}
	if j.plan(); !j.pending() {
		s.remove(j, nil)
	}
}
