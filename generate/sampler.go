package generate

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"

	"promptgen/internal/kernel"
)

// What a draw can fail with.
var (
	errNaN     = errors.New("the model's logits are not finite: its weights are damaged or its training diverged")
	errNothing = errors.New("no token is left to draw: every one is banned")
)

// TokenProb is a token with the logarithm of its probability under the model,
// before temperature, penalties and filters.
type TokenProb struct {
	Token   int32
	LogProb float64
}

// newStream starts the random numbers of one try at one sample. They depend on
// these three numbers only, and nothing else is random in a text.
func newStream(seed uint64, d draft) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(d.attempt)<<32|uint64(uint32(d.sample))))
}

// sampler chooses tokens. It holds nothing of the texts but memory to work in:
// one serves all of them, one goroutine at a time.
type sampler struct {
	cpu *kernel.CPU
	row
	weights []float32   // exponentials of the logits, not normalised
	sums    []float32   // of their blocks
	kept    []candidate // what may be drawn
	head    []candidate
	heap    []float32
	border  []distance
	x       []float32 // logits of kept
	tail    []byte
}

// row is the logits of a step with the largest of each block of them.
type row struct{ logits, maxima []float32 }

func newSampler(cpu *kernel.CPU, vocab int) *sampler {
	blocks := kernel.LogitBlocks(vocab)
	return &sampler{
		cpu: cpu, row: row{make([]float32, vocab), make([]float32, blocks)},
		weights: make([]float32, vocab), sums: make([]float32, blocks),
	}
}

// draw chooses the token after h. raw [vocab] is left as it is. top is the
// r.TopLogProbs most probable tokens.
func (s *sampler) draw(raw []float32, r *Request, rules *rules, h *history, rng *rand.Rand) (chosen TokenProb, top []TokenProb, err error) {
	norm, err := s.normalizer(raw)
	if err != nil {
		return TokenProb{}, nil, err
	}
	copy(s.logits, raw)
	s.process(r, rules, h)
	var id int32
	if r.greedy() {
		id = s.argmax()
	} else {
		id = s.pick(limits{r.Temperature, r.TopK, r.TopP, r.MinP, r.TypicalP}, rng)
	}
	if id < 0 {
		return TokenProb{}, nil, errNothing
	}
	return TokenProb{id, float64(raw[id]) - norm}, s.mostProbable(raw, r.TopLogProbs, norm), nil
}

// normalizer is the logarithm of the softmax's denominator.
func (s *sampler) normalizer(raw []float32) (float64, error) {
	top := s.cpu.BlockMaxima(s.maxima, raw)
	norm := float64(top) + math.Log(s.cpu.BlockExp(s.weights, s.sums, raw, 1, -top))
	if math.IsNaN(norm) || math.IsInf(norm, 0) {
		return 0, errNaN
	}
	return norm, nil
}

// process applies penalties and bans to the logits, in transformers' order.
func (s *sampler) process(r *Request, rules *rules, h *history) {
	h.penalize(s.logits, r)
	none := float32(math.Inf(-1))
	if g := r.NoRepeatNGram; g > 0 && len(h.tokens) >= g {
		tail := h.tokens[len(h.tokens)-g+1:]
		for i := 0; i+g <= len(h.tokens); i++ {
			if slices.Equal(h.tokens[i:i+g-1], tail) {
				s.logits[h.tokens[i+g-1]] = none
			}
		}
	}
	s.tail = rules.forbid(s.logits, h.tokens, s.tail[:0])
	if rules.eos >= 0 && len(h.written()) < r.MinLength {
		s.logits[rules.eos] = none
	}
	s.cpu.BlockMaxima(s.maxima, s.logits)
}

// argmax is the first of the largest logits; -1 where all are -Inf.
func (s *sampler) argmax() int32 {
	best, top := -1, float32(math.Inf(-1))
	for b, m := range s.maxima {
		if m > top {
			best, top = b, m
		}
	}
	if best < 0 {
		return -1
	}
	at := best * kernel.LogitBlock
	return int32(at + slices.Index(s.logits[at:], top))
}

// pick draws one of the tokens that l leaves, by their probabilities; -1 of
// none.
func (s *sampler) pick(l limits, rng *rand.Rand) int32 {
	top := slices.Max(s.maxima)
	if math.IsInf(float64(top), -1) {
		return -1
	}
	if !l.cuts() {
		scale := float32(1 / l.temperature)
		total := s.cpu.BlockExp(s.weights, s.sums, s.logits, scale, -top*scale)
		return int32(fall(s.weights, s.sums, rng.Float64()*total))
	}
	kept := s.keep(l)
	weights, total := s.exponentials(kept)
	return kept[fall(weights, s.sums[:kernel.LogitBlocks(len(kept))], rng.Float64()*total)].id
}

// fall is the index at which u is used up, walking along the weights.
func fall(weights, sums []float32, u float64) int {
	b := 0
	for ; b < len(sums)-1 && u >= float64(sums[b]); b++ {
		u -= float64(sums[b])
	}
	for i := b * kernel.LogitBlock; i < len(weights); i++ {
		if u -= float64(weights[i]); u < 0 {
			return i
		}
	}
	last := len(weights) - 1 // u was within rounding of the total
	for last > 0 && weights[last] == 0 {
		last--
	}
	return last
}

// mostProbable lists the n most probable tokens, the best first.
func (s *sampler) mostProbable(raw []float32, n int, norm float64) []TokenProb {
	if n == 0 {
		return nil
	}
	s.cpu.BlockMaxima(s.maxima, raw)
	s.head = s.top(s.head[:0], row{raw, s.maxima}, n, 1)
	slices.SortFunc(s.head, better)
	out := make([]TokenProb, 0, n)
	for _, c := range s.head[:min(n, len(s.head))] {
		out = append(out, TokenProb{c.id, float64(c.logit) - norm})
	}
	return out
}
