package generate

import (
	"slices"

	"promptgen/internal/fault"
)

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
