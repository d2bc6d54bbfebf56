package generate

import (
	"cmp"
	"math"
	"slices"
)

// candidate is a token that may still be drawn, with its scaled logit.
type candidate struct {
	id    int32
	logit float32
}

// Filter keeps of logits [vocab] what may be drawn and sets the others to -Inf,
// in the original's order: logits are divided by temperature, then all below
// the topK-th largest go (those equal to it stay), then the nucleus of topP is
// kept: the fewest of the most probable tokens whose probabilities sum to more
// than topP. topK 0, topP 0 and topP >= 1 are off; temperature must be positive.
func Filter(logits []float32, temperature float64, topK int, topP float64) {
	var f filter
	kept := f.keep(logits, limits{temperature: temperature, topK: topK, topP: topP})
	for i := range logits {
		logits[i] = float32(math.Inf(-1))
	}
	for _, c := range kept {
		logits[c.id] = c.logit
	}
}

// limits says which tokens may be drawn.
type limits struct {
	temperature float64 // > 0
	topK        int     // 0: off
	topP, minP  float64 // 0: off
}

// filter is the scratch memory of the selection.
type filter struct {
	kept []candidate
	head []candidate
	heap []float32
}

// keep returns the tokens that may be drawn. A logit of -Inf never may. The
// result is valid until the next call; its order depends on the logits alone.
func (f *filter) keep(logits []float32, l limits) []candidate {
	t := float32(l.temperature)
	if cap(f.kept) < len(logits) {
		f.kept = make([]candidate, 0, len(logits))
	}
	f.kept = f.kept[:0]
	for i, x := range logits {
		if x > float32(math.Inf(-1)) {
			f.kept = append(f.kept, candidate{int32(i), x / t})
		}
	}
	if l.topK > 0 && l.topK < len(f.kept) {
		f.kept = f.top(f.kept[:0], f.kept, l.topK)
	}
	if l.topP > 0 && l.topP < 1 {
		f.kept = f.nucleus(f.kept, l.topP)
	}
	if l.minP > 0 {
		f.kept = atLeast(f.kept, largest(f.kept)+float32(math.Log(l.minP)))
	}
	return f.kept
}

// top appends to dst the n largest of src and all that equal the n-th. dst may
// be src[:0].
func (f *filter) top(dst, src []candidate, n int) []candidate {
	// A heap of the n largest values seen, the smallest of them at its root.
	h := f.heap[:0]
	for _, c := range src {
		switch {
		case len(h) < n:
			h = append(h, c.logit)
			for i := len(h) - 1; i > 0 && h[i] < h[(i-1)/2]; i = (i - 1) / 2 {
				h[i], h[(i-1)/2] = h[(i-1)/2], h[i]
			}
		case c.logit > h[0]:
			h[0] = c.logit
			siftDown(h)
		}
	}
	f.heap = h
	for _, c := range src {
		if c.logit >= h[0] {
			dst = append(dst, c)
		}
	}
	return dst
}

// siftDown restores the heap h, whose root alone may be out of place.
func siftDown(h []float32) {
	for i := 0; ; {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && h[child+1] < h[child] {
			child++
		}
		if h[i] <= h[child] {
			return
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}

// nucleus keeps the most probable tokens up to and including the one at which
// their probabilities exceed p. It returns them with the largest first. Only as
// many are sorted as it takes.
func (f *filter) nucleus(c []candidate, p float64) []candidate {
	if len(c) == 0 {
		return c
	}
	top, total := largest(c), 0.0
	for _, x := range c {
		total += math.Exp(float64(x.logit - top))
	}
	for n := 64; ; n *= 8 {
		head := c
		if n < len(c) {
			f.head = f.top(f.head[:0], c, n)
			head = f.head
		}
		slices.SortFunc(head, func(a, b candidate) int {
			return cmp.Or(cmp.Compare(b.logit, a.logit), cmp.Compare(a.id, b.id))
		})
		sum := 0.0
		for i, x := range head {
			if sum += math.Exp(float64(x.logit - top)); sum > p*total {
				return append(c[:0], head[:i+1]...)
			}
		}
		if len(head) == len(c) {
			return c
		}
	}
}

// atLeast keeps the candidates whose logit is not below the floor.
func atLeast(c []candidate, floor float32) []candidate {
	return slices.DeleteFunc(c, func(x candidate) bool { return x.logit < floor })
}

// largest is the largest logit; -Inf of none.
func largest(c []candidate) float32 {
	top := float32(math.Inf(-1))
	for _, x := range c {
		top = max(top, x.logit)
	}
	return top
}
