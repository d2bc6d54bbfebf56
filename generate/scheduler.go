package generate

import (
	"fmt"
	"slices"

	"promptgen/internal/fault"
)

// prefillRows bounds the prompt tokens read in one step beside the running
// sequences, so that these do not stand still for long. A single prompt may
// exceed it.
const prefillRows = 256

// sequence is a sample being written.
type sequence struct {
	job *job
	draft
	sampler *sampler
	writer  *writer
	context []int32 // what the job's context and this sample have written
	cache   cache   // reads context but for its last token
	finish  Finish  // not empty: done
	err     error

	logProb  float64
	logProbs []float64
	top      [][]TokenProb
}

// scheduler is the goroutine that owns the processor.
type scheduler struct {
	e      *Engine
	f      *forwarder
	jobs   []*job // admitted, in order of arrival
	active []*sequence
}

// run takes step after step until the engine is closed.
func (s *scheduler) run() {
	defer close(s.e.done)
	for s.admit() {
		s.dropCancelled()
		s.guarded(s.start)
		s.guarded(s.step)
		s.e.stats.active.Store(int64(len(s.active)))
	}
	for _, j := range s.jobs {
		j.end(ErrClosed)
	}
}

// guarded runs one phase; should it panic, the requests in flight fail and the
// engine lives on.
func (s *scheduler) guarded(phase func()) {
	defer func() {
		if r := recover(); r != nil {
			for _, j := range slices.Clone(s.jobs) {
				s.remove(j, fmt.Errorf("the engine failed within a step: %v", r))
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
		s.e.mu.Unlock()
		if len(s.jobs) > 0 {
			return true
		}
		<-s.e.wake
	}
}

// dropCancelled lets go of the jobs whose caller has left.
func (s *scheduler) dropCancelled() {
	for _, j := range slices.Clone(s.jobs) {
		if err := j.ctx.Err(); err != nil {
			s.remove(j, err)
		}
	}
}

// remove ends a job and frees all it holds.
func (s *scheduler) remove(j *job, err error) {
	s.jobs = slices.DeleteFunc(s.jobs, func(o *job) bool { return o == j })
	s.active = slices.DeleteFunc(s.active, func(q *sequence) bool {
		if q.job == j {
			s.f.pool.release(&q.cache)
		}
		return q.job == j
	})
	s.f.pool.release(&j.cache)
	j.removed = true
	j.end(err)
}

// start begins samples of prompts that are read, as long as there are slots:
// the job with the fewest live samples first, so that a large request leaves
// room for small ones.
func (s *scheduler) start() {
	for {
		var fresh []*sequence
		var raw [][]float32
		for len(s.active) < s.e.opts.Slots {
			j := s.nextToStart()
			if j == nil || j.live > 0 && len(s.active)+s.unread() >= s.e.opts.Slots {
				break // what is left is for prompts that are not read yet
			}
			q := s.newSequence(j, j.todo[0])
			j.todo = j.todo[1:]
			j.live++
			s.active = append(s.active, q)
			fresh, raw = append(fresh, q), append(raw, j.logits)
		}
		if len(fresh) == 0 {
			return
		}
		s.advance(fresh, raw) // some may be complete with their first token
	}
}

func (s *scheduler) nextToStart() *job {
	var best *job
	for _, j := range s.jobs {
		if j.logits != nil && len(j.todo) > 0 && (best == nil || j.live < best.live) {
			best = j
		}
	}
	return best
}

// unread counts the jobs whose prompt is still to be read.
func (s *scheduler) unread() int {
	n := 0
	for _, j := range s.jobs {
		if j.logits == nil {
			n++
		}
	}
	return n
}

func (s *scheduler) newSequence(j *job, d draft) *sequence {
	return &sequence{
		job: j, draft: d,
		sampler: newSampler(j.req.Seed, d.sample, d.attempt),
		writer:  newWriter(j.tok, j.req.Prompt, j.prompt, j.req.Stop),
		context: slices.Clone(j.context),
		cache:   s.f.pool.fork(&j.cache),
	}
}

// step reads the last token of every live sequence, and new prompts as far as
// there is room, in one pass over the weights.
func (s *scheduler) step() {
	running := slices.Clone(s.active)
	segs := make([]segment, 0, s.e.opts.Slots)
	rows := 0
	for _, q := range running {
		seg := s.nextSegment(q)
		segs = append(segs, seg)
		rows += len(seg.ids)
	}
	var reading []*job
	for _, j := range s.jobs {
		if j.logits != nil || len(running)+len(reading) >= s.e.opts.Slots {
			continue
		}
		ids := j.context[max(0, len(j.context)-s.e.opts.MaxContext):]
		if len(reading) > 0 && rows+len(ids) > prefillRows {
			break
		}
		reading = append(reading, j)
		segs = append(segs, segment{&j.cache, ids})
		rows += len(ids)
	}
	if len(segs) == 0 {
		return
	}
	logits := s.f.run(segs)
	s.e.stats.steps.Add(1)
	s.e.stats.read.Add(int64(rows - len(running)))
	row := func(i int) []float32 {
		v := s.f.p.Config.VocabSize
		return logits[i*v : (i+1)*v]
	}
	for i, j := range reading {
		j.logits = slices.Clone(row(len(running) + i))
		j.plan()
	}
	raw := make([][]float32, len(running))
	for i := range running {
		raw[i] = row(i)
	}
	s.advance(running, raw)
}

// nextSegment is what a sequence reads next: its last token, or, when the
// window is full, the last half of it from a fresh start.
func (s *scheduler) nextSegment(q *sequence) segment {
	if q.cache.n < s.e.opts.MaxContext {
		return segment{&q.cache, q.context[len(q.context)-1:]}
	}
	s.f.pool.release(&q.cache)
	half := max(1, s.e.opts.MaxContext/2)
	return segment{&q.cache, q.context[len(q.context)-half:]}
}

// advance draws the next token of each sequence and settles those that are done.
func (s *scheduler) advance(seqs []*sequence, raw [][]float32) {
	pieces := make([]Piece, len(seqs))
	s.f.cpu.Parallel(len(seqs), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			pieces[i] = seqs[i].advance(raw[i])
		}
	})
	for i, q := range seqs {
		if q.job.removed { // a sibling has failed
			continue
		}
		if q.err != nil {
			s.remove(q.job, q.err)
			continue
		}
		s.e.stats.generated.Add(1)
		q.job.tell(pieces[i])
		if q.finish != "" {
			s.settle(q)
		}
	}
}

// settle files a finished sequence; with the last one its job is complete,
// unless there are duplicates to draw again.
func (s *scheduler) settle(q *sequence) {
	j := q.job
	j.results[q.sample] = q
	j.live--
	s.f.pool.release(&q.cache)
	s.active = slices.DeleteFunc(s.active, func(o *sequence) bool { return o == q })
	if j.live > 0 || len(j.todo) > 0 {
		return
	}
	if j.plan(); len(j.todo) == 0 {
		s.remove(j, nil)
	}
}

// advance draws the next token.
func (q *sequence) advance(raw []float32) Piece {
	r, n := q.job.req, len(q.written())
	banned := q.job.banned
	if n < r.MinLength && q.job.eos >= 0 {
		banned = append(slices.Clip(banned), q.job.eos)
	}
	next, top, err := q.sampler.draw(raw, r, q.context, n, banned)
	if err != nil {
		q.err = fault.With(fault.CodeCorrupt, err)
		return Piece{}
	}
	q.logProb += next.LogProb
	var text, last string
	stopped := false
	if next.Token == q.job.eos {
		q.finish = FinishEOS
	} else {
		q.context = append(q.context, next.Token)
		q.logProbs = append(q.logProbs, next.LogProb)
		if top != nil {
			q.top = append(q.top, top)
		}
		text, stopped = q.writer.push(next.Token)
		if n+1 == r.Length {
			q.finish = FinishLength
		}
	}
	if q.finish != "" && !stopped {
		last, stopped = q.writer.finish()
	}
	if stopped {
		q.finish = FinishStop
	}
	return Piece{q.sample, text + last, len(q.written()), q.finish, next, top}
}

// written is what the sample has written so far.
func (q *sequence) written() []int32 { return q.context[len(q.job.context):] }

func (q *sequence) result() Sample {
	return Sample{
		Continuation: q.writer.shown.String(), Tokens: slices.Clone(q.written()), Finish: q.finish,
		LogProb: q.logProb, LogProbs: q.logProbs, Top: q.top,
	}
}
