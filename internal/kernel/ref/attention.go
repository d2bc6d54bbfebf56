package ref

import "math"

// Attention is causal self-attention; see kernel.Attention for the shapes. Mask
// [Batch*Heads*SeqLen, SeqLen] multiplies the probabilities; nil is all ones.
type Attention struct {
	Batch, SeqLen, Heads, HeadDim int

	QKV, Mask []float64
}

// at is the index into QKV of element d of the query (0), key (1) or value (2)
// of position i.
func (a *Attention) at(part, b, h, i, d int) int {
	width := a.Heads * a.HeadDim
	return (b*a.SeqLen+i)*3*width + part*width + h*a.HeadDim + d
}

// out is the same into the output.
func (a *Attention) out(b, h, i, d int) int {
	return ((b*a.SeqLen+i)*a.Heads+h)*a.HeadDim + d
}

// row is the number of a row of scores.
func (a *Attention) row(b, h, i int) int { return (b*a.Heads+h)*a.SeqLen + i }

func (a *Attention) mask(b, h, i, j int) float64 {
	if a.Mask == nil {
		return 1
	}
	return a.Mask[a.row(b, h, i)*a.SeqLen+j]
}

// dot is the product of two vectors of HeadDim elements.
func (a *Attention) dot(x, y []float64) float64 {
	s := 0.0
	for d := range a.HeadDim {
		s += x[d] * y[d]
	}
	return s
}

// probs returns the softmax of row i of head h, and the log of its denominator.
func (a *Attention) probs(b, h, i int) (p []float64, lse float64) {
	p = make([]float64, i+1)
	top, sum := math.Inf(-1), 0.0
	for j := range p {
		p[j] = a.dot(a.QKV[a.at(0, b, h, i, 0):], a.QKV[a.at(1, b, h, j, 0):]) / math.Sqrt(float64(a.HeadDim))
		top = math.Max(top, p[j])
	}
	for j := range p {
		p[j] = math.Exp(p[j] - top)
		sum += p[j]
	}
	for j := range p {
		p[j] /= sum
	}
	return p, top + math.Log(sum)
}

// each calls f for every row of scores.
func (a *Attention) each(f func(b, h, i int)) {
	for r := range a.Batch * a.Heads * a.SeqLen {
		f(r/a.SeqLen/a.Heads, r/a.SeqLen%a.Heads, r%a.SeqLen)
	}
}

// Forward returns the output and the logs of the softmax's denominators.
func (a *Attention) Forward() (out, lse []float64) {
	out = make([]float64, a.Batch*a.SeqLen*a.Heads*a.HeadDim)
	lse = make([]float64, a.Batch*a.Heads*a.SeqLen)
	a.each(func(b, h, i int) {
		p, l := a.probs(b, h, i)
		lse[a.row(b, h, i)] = l
		for j, pj := range p {
			for d := range a.HeadDim {
				out[a.out(b, h, i, d)] += pj * a.mask(b, h, i, j) * a.QKV[a.at(2, b, h, j, d)]
			}
		}
	})
	return out, lse
}

// Backward returns the gradient of QKV given that of the output.
func (a *Attention) Backward(dout []float64) []float64 {
	dqkv := make([]float64, len(a.QKV))
	a.each(func(b, h, i int) {
		p, _ := a.probs(b, h, i)
		dp, inner := make([]float64, i+1), 0.0
		for j := range p {
			dp[j] = a.mask(b, h, i, j) * a.dot(dout[a.out(b, h, i, 0):], a.QKV[a.at(2, b, h, j, 0):])
			inner += p[j] * dp[j]
		}
		for j := range p {
			ds := p[j] * (dp[j] - inner) / math.Sqrt(float64(a.HeadDim))
			for d := range a.HeadDim {
				dqkv[a.at(0, b, h, i, d)] += ds * a.QKV[a.at(1, b, h, j, d)]
				dqkv[a.at(1, b, h, j, d)] += ds * a.QKV[a.at(0, b, h, i, d)]
				dqkv[a.at(2, b, h, j, d)] += p[j] * a.mask(b, h, i, j) * dout[a.out(b, h, i, d)]
			}
		}
	})
	return dqkv
}
