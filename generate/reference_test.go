package generate

import (
	"cmp"
	"math"
	"slices"
)

// The clear versions that the fast ones are tested against.

// filtered are the logits divided by the temperature, with what may not be
// drawn at -Inf.
func filtered(s *sampler, logits []float32, l limits) []float32 {
	copy(s.logits, logits)
	s.cpu.BlockMaxima(s.maxima, s.logits)
	out := make([]float32, len(logits))
	for i := range out {
		out[i] = float32(math.Inf(-1))
	}
	for _, c := range s.keep(l) {
		out[c.id] = c.logit
	}
	return out
}

// refKeep is keep by sorting everything, each limit in the words of its
// definition. The result is ordered by id.
func refKeep(logits []float32, l limits) []candidate {
	var c []candidate
	for i, x := range logits {
		if !math.IsInf(float64(x), -1) {
			c = append(c, candidate{int32(i), x / float32(l.temperature)})
		}
	}
	slices.SortFunc(c, better)
	if l.topK > 0 && l.topK < len(c) {
		at := l.topK
		for at < len(c) && c[at].logit == c[l.topK-1].logit {
			at++
		}
		c = c[:at]
	}
	if l.nucleus() {
		p, sum := refSoftmax(c), 0.0
		for i := range c {
			if sum += p[i]; sum > l.topP {
				c = c[:i+1]
				break
			}
		}
	}
	if l.minP > 0 {
		p := refSoftmax(c)
		for i := range c {
			if p[i] < l.minP*p[0] {
				c = c[:i]
				break
			}
		}
	}
	if l.typical() {
		p, entropy := refSoftmax(c), 0.0
		for _, x := range p {
			entropy -= x * math.Log(x)
		}
		distance := make(map[int32]float64)
		mass := make(map[int32]float64)
		for i, x := range c {
			distance[x.id], mass[x.id] = math.Abs(-math.Log(p[i])-entropy), p[i]
		}
		slices.SortFunc(c, func(a, b candidate) int {
			return cmp.Or(cmp.Compare(distance[a.id], distance[b.id]), cmp.Compare(a.id, b.id))
		})
		sum := 0.0
		for i, x := range c {
			if sum += mass[x.id]; sum >= l.typicalP {
				c = slices.DeleteFunc(c, func(y candidate) bool { return distance[y.id] > distance[c[i].id] })
				break
			}
		}
	}
	slices.SortFunc(c, func(a, b candidate) int { return cmp.Compare(a.id, b.id) })
	return c
}

// refSoftmax are the probabilities of candidates, the first of which is the
// most probable.
func refSoftmax(c []candidate) []float64 {
	p, sum := make([]float64, len(c)), 0.0
	for i, x := range c {
		p[i] = math.Exp(float64(x.logit) - float64(c[0].logit))
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}

// argmax is the first of the largest logits.
func argmax(logits []float32) int32 {
	best := 0
	for i, x := range logits {
		if x > logits[best] {
			best = i
		}
	}
	return int32(best)
}

// logSumExp is the logarithm of the softmax's denominator.
func logSumExp(logits []float32) float64 {
	top, sum := slices.Max(logits), 0.0
	for _, x := range logits {
		sum += math.Exp(float64(x) - float64(top))
	}
	return float64(top) + math.Log(sum)
}
