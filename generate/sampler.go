package generate

import (
	"cmp"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
)

// errNaN says that the model's answer is no number.
var errNaN = errors.New("the model's logits are not finite: its weights are damaged or its training diverged")

// TokenProb is a token with the logarithm of its probability under the model,
// before temperature, penalties and filters.
type TokenProb struct {
	Token   int32
	LogProb float64
}

// sampler chooses the next token of one sequence. It is the only place where
// randomness enters.
type sampler struct {
	rng    *rand.Rand
	filter filter
	logits []float32 // a copy that may be changed
	counts map[int32]int
	best   []candidate
}

// newSampler starts the random stream of one try at one sample. It depends on
// these three numbers only.
func newSampler(seed uint64, sample, attempt int) *sampler {
	return &sampler{
		rng:    rand.New(rand.NewPCG(seed, uint64(attempt)<<32|uint64(uint32(sample)))),
		counts: make(map[int32]int),
	}
}

// draw chooses a token after the tokens of context (prompt and continuation),
// of which the last n were generated. raw [vocab] is left as it is. top receives
// the r.TopLogProbs most probable tokens.
func (s *sampler) draw(raw []float32, r *Request, context []int32, n int, banned []int32) (chosen TokenProb, top []TokenProb, err error) {
	norm := logSumExp(raw)
	if math.IsNaN(norm) || math.IsInf(norm, 0) {
		return TokenProb{}, nil, errNaN
	}
	s.logits = append(s.logits[:0], raw...)
	s.penalize(r, context, n)
	for _, id := range banned {
		s.logits[id] = float32(math.Inf(-1))
	}
	var id int32
	if r.greedy() {
		id = argmax(s.logits)
	} else {
		id = s.pick(s.filter.keep(s.logits, limits{r.Temperature, r.TopK, r.TopP, r.MinP}))
	}
	if id < 0 {
		return TokenProb{}, nil, errors.New("no token is left to draw: every one is banned")
	}
	if r.TopLogProbs > 0 {
		top = s.mostProbable(raw, r.TopLogProbs, norm)
	}
	return TokenProb{id, float64(raw[id]) - norm}, top, nil
}

// penalize lowers the logits of tokens that were there before: by repetition
// (positive ones divided, negative ones multiplied, over the whole context), by
// presence (once) and frequency (each time, over what was generated), and of
// those that would repeat an n-gram.
func (s *sampler) penalize(r *Request, context []int32, n int) {
	generated := context[len(context)-n:]
	if p := float32(r.RepetitionPenalty); p > 0 && p != 1 {
		clear(s.counts)
		for _, id := range context {
			if s.counts[id]++; s.counts[id] > 1 {
				continue
			}
			if s.logits[id] > 0 {
				s.logits[id] /= p
			} else {
				s.logits[id] *= p
			}
		}
	}
	if r.PresencePenalty != 0 || r.FrequencyPenalty != 0 {
		clear(s.counts)
		for _, id := range generated {
			s.counts[id]++
		}
		for id, c := range s.counts {
			s.logits[id] -= float32(r.PresencePenalty + r.FrequencyPenalty*float64(c))
		}
	}
	if g := r.NoRepeatNGram; g > 0 && len(context) >= g {
		tail := context[len(context)-g+1:]
		for i := 0; i+g <= len(context); i++ {
			if slices.Equal(context[i:i+g-1], tail) {
				s.logits[context[i+g-1]] = float32(math.Inf(-1))
			}
		}
	}
}

// pick draws one of the candidates by their probabilities; -1 of none.
func (s *sampler) pick(c []candidate) int32 {
	if len(c) == 0 {
		return -1
	}
	top, total := largest(c), 0.0
	for _, x := range c {
		total += math.Exp(float64(x.logit - top))
	}
	u := s.rng.Float64() * total
	for _, x := range c {
		if u -= math.Exp(float64(x.logit - top)); u < 0 {
			return x.id
		}
	}
	return c[len(c)-1].id // u was within rounding of the total
}

// mostProbable lists the n most probable tokens, the best first.
func (s *sampler) mostProbable(raw []float32, n int, norm float64) []TokenProb {
	all := s.filter.keep(raw, limits{temperature: 1})
	s.best = s.filter.top(s.best[:0], all, min(n, len(all)))
	slices.SortFunc(s.best, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.logit, a.logit), cmp.Compare(a.id, b.id))
	})
	out := make([]TokenProb, 0, n)
	for _, c := range s.best[:min(n, len(s.best))] {
		out = append(out, TokenProb{c.id, float64(c.logit) - norm})
	}
	return out
}

// argmax is the first of the largest logits; -1 where all are -Inf.
func argmax(logits []float32) int32 {
	best, top := int32(-1), float32(math.Inf(-1))
	for i, x := range logits {
		if x > top {
			best, top = int32(i), x
		}
	}
	return best
}

// logSumExp is the logarithm of the softmax's denominator; NaN if a logit is.
func logSumExp(logits []float32) float64 {
	top := float32(math.Inf(-1))
	for _, x := range logits {
		top = max(top, x)
	}
	sum := 0.0
	for _, x := range logits {
		sum += math.Exp(float64(x - top))
	}
	return float64(top) + math.Log(sum)
}
