package generate

import (
	"cmp"
	"math"
	"slices"

	"promptgen/internal/kernel"
)

// candidate is a token that may still be drawn, with its scaled logit.
type candidate struct {
	id    int32
	logit float32
}

// better orders candidates, the most probable first.
func better(a, b candidate) int {
	return cmp.Or(cmp.Compare(b.logit, a.logit), cmp.Compare(a.id, b.id))
}

// limits says which tokens may be drawn. They are applied in this order, each
// to what the one before has left.
type limits struct {
	temperature float64 // > 0; logits are divided by it
	topK        int     // 0: off
	topP        float64 // 0 and 1: off
	minP        float64 // 0: off
	typicalP    float64 // 0 and 1: off
}

func (l limits) nucleus() bool { return l.topP > 0 && l.topP < 1 }
func (l limits) typical() bool { return l.typicalP > 0 && l.typicalP < 1 }

// cuts reports whether anything is taken away.
func (l limits) cuts() bool { return l.topK > 0 || l.nucleus() || l.minP > 0 || l.typical() }

// keep returns the tokens of s.logits that may be drawn. A logit of -Inf never
// may. The result is valid until the next call; its order depends on the logits
// alone.
func (s *sampler) keep(l limits) []candidate {
	t := float32(l.temperature)
	switch {
	case l.topK > 0 && l.topK < len(s.logits):
		s.kept = s.top(s.kept[:0], s.row, l.topK, t)
		if l.nucleus() {
			s.kept = nucleus(s.kept, l.topP)
		}
	case l.nucleus():
		s.kept = s.nucleusOfAll(t, l.topP)
	case l.minP > 0: // what is far below the limit need not be looked at
		floor := slices.Max(s.maxima) + t*float32(math.Log(l.minP)-0.01)
		s.kept = s.row.atLeast(s.kept[:0], max(floor, -math.MaxFloat32), t)
	default:
		s.kept = s.row.atLeast(s.kept[:0], -math.MaxFloat32, t)
	}
	if l.minP > 0 {
		floor := largest(s.kept) + float32(math.Log(l.minP))
		s.kept = slices.DeleteFunc(s.kept, func(c candidate) bool { return c.logit < floor })
	}
	if l.typical() {
		s.kept = s.typical(s.kept, l.typicalP)
	}
	return s.kept
}

// atLeast appends the tokens whose logit is not below floor, divided by t.
func (r row) atLeast(dst []candidate, floor, t float32) []candidate {
	for b, m := range r.maxima {
		if m < floor {
			continue
		}
		at := b * kernel.LogitBlock
		for i, x := range r.logits[at:min(at+kernel.LogitBlock, len(r.logits))] {
			if x >= floor {
				dst = append(dst, candidate{int32(at + i), x / t})
			}
		}
	}
	return dst
}

// top appends the n most probable tokens and all that equal the n-th after the
// division by t.
func (s *sampler) top(dst []candidate, r row, n int, t float32) []candidate {
	// n blocks have a logit that is not below the n-th largest maximum, so that
	// only what is not below it need be looked at.
	lowest := float32(-math.MaxFloat32)
	floor := s.nth(r.maxima, n, lowest)
	h := s.heap[:0]
	for b, m := range r.maxima {
		if m < floor {
			continue
		}
		at := b * kernel.LogitBlock
		for _, x := range r.logits[at:min(at+kernel.LogitBlock, len(r.logits))] {
			if x >= floor {
				if h = push(h, x, n); len(h) == n {
					floor = h[0]
				}
			}
		}
	}
	s.heap = h
	if len(h) < n {
		return r.atLeast(dst, lowest, t)
	}
	// The division may make equal what was not: two neighbours of the n-th at
	// most, wherever numbers are normal.
	limit := floor / t
	for range 2 {
		if below := math.Nextafter32(floor, lowest); below/t == limit {
			floor = below
		}
	}
	return r.atLeast(dst, floor, t)
}

// nth is the n-th largest of x that is not below lowest; lowest if there are
// fewer.
func (s *sampler) nth(x []float32, n int, lowest float32) float32 {
	if n > len(x) {
		return lowest
	}
	h := s.heap[:0]
	for _, v := range x {
		if v >= lowest {
			h = push(h, v, n)
		}
	}
	s.heap = h
	if len(h) < n {
		return lowest
	}
	return h[0]
}

// push adds x to the heap h of the n largest values, the smallest at its root.
func push(h []float32, x float32, n int) []float32 {
	if len(h) < n {
		h = append(h, x)
		for i := len(h) - 1; i > 0 && h[i] < h[(i-1)/2]; i = (i - 1) / 2 {
			h[i], h[(i-1)/2] = h[(i-1)/2], h[i]
		}
		return h
	}
	if x <= h[0] {
		return h
	}
	h[0] = x
	for i := 0; ; {
		child := 2*i + 1
		if child >= len(h) {
			return h
		}
		if child+1 < len(h) && h[child+1] < h[child] {
			child++
		}
		if h[i] <= h[child] {
			return h
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}

// nucleus keeps the most probable of c up to and including the one at which
// their probabilities exceed p, the best first.
func nucleus(c []candidate, p float64) []candidate {
	slices.SortFunc(c, better)
	total, sum := 0.0, 0.0
	for _, x := range c {
		total += math.Exp(float64(x.logit - c[0].logit))
	}
	for i, x := range c {
		if sum += math.Exp(float64(x.logit - c[0].logit)); sum > p*total {
			return c[:i+1]
		}
	}
	return c
}

// fewNucleus is the size up to which a nucleus is found by sorting.
const fewNucleus = 64

// nucleusOfAll is nucleus over all tokens, without sorting them.
func (s *sampler) nucleusOfAll(t float32, p float64) []candidate {
	scale := 1 / t
	total := s.cpu.BlockExp(s.weights, s.sums, s.logits, scale, -slices.Max(s.maxima)*scale)
	few := s.top(s.kept[:0], s.row, fewNucleus, t)
	if kept, enough := s.cut(few, p*total); enough {
		return kept
	}
	return s.byClasses(few[:0], t, p*total)
}

// cut sorts c and keeps the first up to the one at which their weights exceed
// mass; enough is false if they do not.
func (s *sampler) cut(c []candidate, mass float64) (kept []candidate, enough bool) {
	slices.SortFunc(c, better)
	for i, x := range c {
		if mass -= float64(s.weights[x.id]); mass < 0 {
			return c[:i+1], true
		}
	}
	return c, false
}

// Weights fall into classes, sixteen for each factor of two; all below 2^-31
// are in the last.
const (
	weightClasses = 512
	classShift    = 23 - 4
	classOfTwo    = 0x40000000 >> classShift
)

func classOf(weight float32) uint32 {
	return min(classOfTwo-math.Float32bits(weight)>>classShift, weightClasses-1)
}

// byClasses finds the class in which the weights' sum exceeds mass; only that
// one is sorted.
func (s *sampler) byClasses(dst []candidate, t float32, mass float64) []candidate {
	var sums [weightClasses]float64
	for _, w := range s.weights {
		sums[classOf(w)] += float64(w)
	}
	last := uint32(0)
	for ; last < weightClasses-1 && sums[last] <= mass; last++ {
		mass -= sums[last]
	}
	border := s.head[:0]
	for i, w := range s.weights {
		if w == 0 {
			continue
		}
		switch c := classOf(w); {
		case c < last:
			dst = append(dst, candidate{int32(i), s.logits[i] / t})
		case c == last:
			border = append(border, candidate{int32(i), s.logits[i] / t})
		}
	}
	s.head = border
	border, _ = s.cut(border, mass)
	return append(dst, border...)
}

// distance is how far a token's information is from the entropy.
type distance struct {
	candidate
	far, mass float64
}

// farClasses are the classes of distances, 32 for a nat; the last has the rest.
const farClasses = 512

// typical keeps the tokens whose information is nearest to the distribution's
// entropy, up to and including the one at which their probabilities reach p,
// and those as near as that (Meister et al., Locally Typical Sampling, 2022).
func (s *sampler) typical(c []candidate, p float64) []candidate {
	weights, total := s.exponentials(c)
	norm, entropy := float64(largest(c))+math.Log(total), 0.0
	for i, x := range c {
		if w := float64(weights[i]); w > 0 {
			entropy += w / total * (norm - float64(x.logit))
		}
	}
	class := func(far float64) int { return int(min(far*32, farClasses-1)) }
	far := func(x candidate) float64 { return math.Abs(norm - float64(x.logit) - entropy) }
	var sums [farClasses]float64
	for i, x := range c {
		sums[class(far(x))] += float64(weights[i]) / total
	}
	last := 0
	for ; last < farClasses-1 && sums[last] < p; last++ {
		p -= sums[last]
	}
	// Only the class in which p is reached is sorted.
	kept, border := c[:0], s.border[:0]
	for i, x := range c {
		switch d := far(x); {
		case class(d) < last:
			kept = append(kept, x)
		case class(d) == last:
			border = append(border, distance{x, d, float64(weights[i]) / total})
		}
	}
	s.border = border
	slices.SortFunc(border, func(a, b distance) int {
		return cmp.Or(cmp.Compare(a.far, b.far), cmp.Compare(a.id, b.id))
	})
	for i, x := range border {
		if p <= 0 && x.far != border[i-1].far {
			break
		}
		kept = append(kept, x.candidate)
		p -= x.mass
	}
	return kept
}

// exponentials are the weights of c, not normalised, and their sum.
func (s *sampler) exponentials(c []candidate) (weights []float32, total float64) {
	s.x = s.x[:0]
	for _, x := range c {
		s.x = append(s.x, x.logit)
	}
	weights = s.weights[:len(c)]
	return weights, s.cpu.BlockExp(weights, s.sums[:kernel.LogitBlocks(len(c))], s.x, 1, -largest(c))
}

// largest is the largest logit; -Inf of none.
func largest(c []candidate) float32 {
	top := float32(math.Inf(-1))
	for _, x := range c {
		top = max(top, x.logit)
	}
	return top
}
