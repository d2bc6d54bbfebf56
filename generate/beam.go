package generate

import (
	"cmp"
	"math"
	"slices"
)

// beam is a beam search: of all ways to go on from the most probable texts so
// far, as many as there are beams are followed. Texts that have ended compete
// by their score per token. It is transformers' search (num_beams,
// length_penalty, early_stopping off): penalties and bans work on the
// logarithms of probabilities, and as long as a text that goes on might still
// beat the worst of those that ended, the search goes on.
type beam struct {
	live []*hypothesis // the best first
	next []*hypothesis // what live becomes when the caches follow
	done []*hypothesis // ended, the best first

	ways []way
}

// hypothesis is a text of the search.
type hypothesis struct {
	history
	cache    cache
	parent   *hypothesis // whose cache it goes on from
	score    float64     // sum of the logarithms, penalties included
	rank     float64     // of one that has ended: score by length
	finish   Finish
	logProb  float64 // the model's own
	logProbs []float64
	top      [][]TokenProb
}

// way is one token after one hypothesis.
type way struct {
	from    *hypothesis
	at      int // of from in live
	id      int32
	score   float64
	logProb float64
	top     []TokenProb
}

func newBeam(h history) *beam { return &beam{live: []*hypothesis{{history: h}}} }

// advance chooses what live becomes. The search is over when the answer is not
// empty.
func (b *beam) advance(s *sampler, j *job, raw []float32) (Finish, error) {
	r := j.req
	if err := b.explore(s, j, raw); err != nil {
		return "", err
	}
	if len(b.ways) == 0 && len(b.done) == 0 {
		return "", errNothing
	}
	b.next = b.next[:0]
	for place, w := range b.ways {
		h := w.hypothesis(j.rules.eos)
		switch h.finish = j.ends(w.id, h); {
		case h.finish == "":
			b.next = append(b.next, h)
		case place < r.Beams: // one that others beat does not end
			b.end(h, r)
		}
		if len(b.next) == r.Beams {
			break
		}
	}
	n := len(b.live[0].written()) + 1
	if n == r.Length {
		for _, h := range b.next {
			h.finish = FinishLength
			b.end(h, r)
		}
	} else if len(b.next) > 0 && !b.settled(b.next[0].score, n, r) {
		return "", nil
	}
	return b.done[0].finish, nil
}

// explore lists the best ways to go on, twice as many as there are beams.
func (b *beam) explore(s *sampler, j *job, raw []float32) error {
	b.ways = b.ways[:0]
	width, v := 2*j.req.Beams, len(s.logits)
	for at, h := range b.live {
		row := raw[at*v:][:v]
		norm, err := s.normalizer(row)
		if err != nil {
			return err
		}
		for i, x := range row {
			s.logits[i] = x - float32(norm)
		}
		s.process(j.req, j.rules, &h.history)
		s.kept = s.top(s.kept[:0], s.row, width, 1)
		kept := s.kept
		top := s.mostProbable(row, j.req.TopLogProbs, norm)
		for _, c := range kept {
			b.ways = append(b.ways, way{h, at, c.id, h.score + float64(c.logit), float64(row[c.id]) - norm, top})
		}
	}
	slices.SortFunc(b.ways, func(x, y way) int {
		return cmp.Or(cmp.Compare(y.score, x.score), cmp.Compare(x.at, y.at), cmp.Compare(x.id, y.id))
	})
	b.ways = b.ways[:min(width, len(b.ways))]
	return nil
}

// hypothesis is the text that the way leads to; the end of text is no token of
// it.
func (w *way) hypothesis(eos int32) *hypothesis {
	h := &hypothesis{parent: w.from, score: w.score, logProb: w.from.logProb + w.logProb}
	h.history = w.from.history.clone()
	if w.id == eos {
		h.logProbs, h.top = w.from.logProbs, w.from.top
		return h
	}
	h.push(w.id)
	h.logProbs = append(slices.Clip(w.from.logProbs), w.logProb)
	if w.top != nil {
		h.top = append(slices.Clip(w.from.top), w.top)
	}
	return h
}

// ends says whether a text ends with the token id.
func (j *job) ends(id int32, h *hypothesis) Finish {
	if id == j.rules.eos {
		return FinishEOS
	}
	if len(j.req.Stop) > 0 {
		w := j.newWriter()
		for _, id := range h.written() {
			if _, stopped := w.push(id); stopped {
				return FinishStop
			}
		}
	}
	return ""
}

// end files a text that has ended, if it is among the best.
func (b *beam) end(h *hypothesis, r *Request) {
	n := len(h.written())
	if h.finish == FinishEOS {
		n++ // the end of text counts
	}
	h.rank = h.score / math.Pow(float64(n), r.LengthPenalty)
	h.parent = nil
	at := len(b.done)
	for at > 0 && b.done[at-1].rank < h.rank {
		at--
	}
	b.done = slices.Insert(b.done, at, h)
	b.done = b.done[:min(len(b.done), r.Beams)]
}

// settled reports that no text of n tokens that goes on, the best of which has
// this score, beats those that have ended.
func (b *beam) settled(score float64, n int, r *Request) bool {
	return len(b.done) == r.Beams && b.done[len(b.done)-1].rank >= score/math.Pow(float64(n), r.LengthPenalty)
}

// follow lets the caches follow the texts: those that go on from the same text
// share its pages.
func (b *beam) follow(p *pool) {
	for _, h := range b.next {
		h.cache = p.fork(&h.parent.cache, h.parent.cache.n)
		h.parent = nil // whose text need not be kept
	}
	for _, h := range b.live {
		p.release(&h.cache)
	}
	b.live, b.next = b.next, b.live[:0]
}

func (b *beam) release(p *pool) {
	for _, h := range b.live {
		p.release(&h.cache)
	}
}

// results are the samples of a search that is over, the best first. Where it
// found fewer texts than were asked for, the last stands for the rest.
func (q *sequence) results() []*sequence {
	out := make([]*sequence, q.job.req.Samples)
	for i := range out {
		h := q.beam.done[min(i, len(q.beam.done)-1)]
		w := q.job.newWriter()
		stopped := false
		for _, id := range h.written() {
			if _, stopped = w.push(id); stopped {
				break
			}
		}
		finish := h.finish
		if !stopped {
			if _, stopped = w.finish(); stopped {
				finish = FinishStop
			}
		}
		out[i] = &sequence{
			job: q.job, draft: draft{sample: i}, history: h.history, writer: w, finish: finish,
			logProb: h.logProb, logProbs: h.logProbs, top: h.top,
		}
	}
	return out
}
