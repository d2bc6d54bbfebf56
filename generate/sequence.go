package generate

import (
	"math/rand/v2"
	"slices"
)

// sequence is a sample being written; or, with a beam, the samples of a beam
// search.
type sequence struct {
	job *job
	draft
	history
	rng    *rand.Rand
	writer *writer
	cache  cache // reads the tokens but for the last
	beam   *beam
	finish Finish // not empty: done
	err    error

	logProb  float64
	logProbs []float64
	top      [][]TokenProb
}

func newSequence(j *job, d draft) *sequence {
	q := &sequence{job: j, draft: d, history: newHistory(j.context, j.req)}
	if j.req.Beams > 0 {
		q.beam = newBeam(q.history)
		return q
	}
	q.rng, q.writer = newStream(j.req.Seed, d), j.newWriter()
	return q
}

// release frees what the sequence holds in the cache.
func (q *sequence) release(p *pool) {
	p.release(&q.cache)
	if q.beam != nil {
		q.beam.release(p)
	}
}

// advance draws the next token; raw has the logits of each row that was read,
// one after the other.
func (q *sequence) advance(s *sampler, raw []float32) Piece {
	if q.beam != nil {
		q.finish, q.err = q.beam.advance(s, q.job, raw)
		return Piece{}
	}
	r, n := q.job.req, len(q.written())
	next, top, err := s.draw(raw, r, q.job.rules, &q.history, q.rng)
	if err != nil {
		q.err = err
		return Piece{}
	}
	q.logProb += next.LogProb
	var text, last string
	stopped := false
	if next.Token == q.job.rules.eos {
		q.finish = FinishEOS
	} else {
		q.push(next.Token)
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

func (q *sequence) result() Sample {
	return Sample{
		Continuation: q.writer.shown.String(), Tokens: slices.Clone(q.written()), Finish: q.finish,
		LogProb: q.logProb, LogProbs: q.logProbs, Top: q.top,
	}
}
