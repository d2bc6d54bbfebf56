// Package ref says what package kernel computes, in float64, one loop at a
// time: the definition that the fast kernels are tested against. Shapes and
// names are those of package kernel; slices are tight and row-major.
//
// Every backward function is checked here against finite differences of its
// forward function, so the chain of trust ends at the forward formulas.
package ref

import "math"

// Matrix products.

// Gemm returns C = op(A)·op(B) + C0 (C0 may be nil): op(A) is [m,k], A is
// stored [k,m] if transA, B is stored [n,k] if transB.
func Gemm(m, n, k int, transA, transB bool, a, b, c0 []float64) []float64 {
	c := make([]float64, m*n)
	copy(c, c0)
	for i := range m {
		for j := range n {
			for p := range k {
				x, y := i*k+p, p*n+j
				if transA {
					x = p*m + i
				}
				if transB {
					y = j*k + p
				}
				c[i*n+j] += a[x] * b[y]
			}
		}
	}
	return c
}

// RoundBF16 is x with each element rounded to bfloat16, ties to even.
func RoundBF16(x []float64) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		u := math.Float32bits(float32(v))
		if v == v {
			u += 0x7fff + u>>16&1
		}
		y[i] = float64(math.Float32frombits(u &^ 0xffff))
	}
	return y
}

// Activations.

// GELUNew is GPT-2's GELU: 0.5x(1+tanh(√(2/π)(x+0.044715x³))).
func GELUNew(x float64) float64 {
	return 0.5 * x * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
}

// GELUNewGrad is the derivative of GELUNew.
func GELUNewGrad(x float64) float64 {
	t := math.Tanh(math.Sqrt(2/math.Pi) * (x + 0.044715*x*x*x))
	return 0.5*(1+t) + 0.5*x*(1-t*t)*math.Sqrt(2/math.Pi)*(1+3*0.044715*x*x)
}

// GELU is x times the normal distribution function.
func GELU(x float64) float64 { return x * 0.5 * (1 + math.Erf(x/math.Sqrt2)) }

// GELUGrad is the derivative of GELU.
func GELUGrad(x float64) float64 {
	return 0.5*(1+math.Erf(x/math.Sqrt2)) + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
}

// ReLU is max(x, 0).
func ReLU(x float64) float64 { return math.Max(x, 0) }

// ReLUGrad is the derivative of ReLU, 0 at 0.
func ReLUGrad(x float64) float64 {
	if x > 0 {
		return 1
	}
	return 0
}

// Dropout.

// keeps decides whether element j of row r (counted in the effective batch)
// survives dropout with probability p: SplitMix64's mixer makes a key of the
// row, a 32-bit mixer makes a number of the key and j.
func keeps(p float32, key uint64, r, j int) bool {
	z := key + uint64(r+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	x := uint32(j) + uint32(z)
	x = (x ^ x>>16) * 0x7feb352d
	x ^= uint32(z >> 32)
	x = (x ^ x>>15) * 0x846ca68b
	x ^= x >> 16
	return float64(x) >= math.Trunc(float64(p)*(1<<32))
}

// Mask is what dropout multiplies [rows,width] by, from row row0 on: 0 or
// 1/(1-p).
func Mask(p float32, key uint64, row0, rows, width int) []float64 {
	m := make([]float64, rows*width)
	for i := range m {
		if p == 0 || keeps(p, key, row0+i/width, i%width) {
			m[i] = 1 / float64(1-p)
		}
	}
	return m
}

// LayerNorm.

// LayerNormForward returns y, and mean and 1/√(variance+eps) of each row.
func LayerNormForward(x, gain, bias []float64, rows, width int, eps float64) (y, mean, rstd []float64) {
	y, mean, rstd = make([]float64, rows*width), make([]float64, rows), make([]float64, rows)
	for r := range rows {
		row := x[r*width : (r+1)*width]
		variance := 0.0
		for _, v := range row {
			mean[r] += v / float64(width)
		}
		for _, v := range row {
			variance += (v - mean[r]) * (v - mean[r]) / float64(width)
		}
		rstd[r] = 1 / math.Sqrt(variance+eps)
		for i, v := range row {
			y[r*width+i] = (v-mean[r])*rstd[r]*gain[i] + bias[i]
		}
	}
	return y, mean, rstd
}

// LayerNormBackward returns the gradients of x, gain and bias.
func LayerNormBackward(dy, x, mean, rstd, gain []float64, rows, width int) (dx, dgain, dbias []float64) {
	dx, dgain, dbias = make([]float64, rows*width), make([]float64, width), make([]float64, width)
	for r := range rows {
		var sum, sumX float64 // means of dn and dn·x̂, dn being the gradient of x̂
		for i := range width {
			xhat := (x[r*width+i] - mean[r]) * rstd[r]
			dn := dy[r*width+i] * gain[i]
			dgain[i] += dy[r*width+i] * xhat
			dbias[i] += dy[r*width+i]
			sum += dn / float64(width)
			sumX += dn * xhat / float64(width)
		}
		for i := range width {
			xhat := (x[r*width+i] - mean[r]) * rstd[r]
			dx[r*width+i] = rstd[r] * (dy[r*width+i]*gain[i] - sum - xhat*sumX)
		}
	}
	return dx, dgain, dbias
}

// ColumnSums returns the sums of the columns of [rows,width].
func ColumnSums(x []float64, rows, width int) []float64 {
	s := make([]float64, width)
	for i := range rows * width {
		s[i%width] += x[i]
	}
	return s
}

// Embedding.

// EmbedForward returns mask∘(wte[ids[r]] + wpe[r%seqLen]); mask may be nil.
func EmbedForward(ids []int32, wte, wpe, mask []float64, seqLen, width int) []float64 {
	y := make([]float64, len(ids)*width)
	for i := range y {
		r, j := i/width, i%width
		y[i] = wte[int(ids[r])*width+j] + wpe[r%seqLen*width+j]
		if mask != nil {
			y[i] *= mask[i]
		}
	}
	return y
}

// EmbedBackward returns the gradients of wte [vocab,width] and wpe [seqLen,width].
func EmbedBackward(dy []float64, ids []int32, mask []float64, vocab, seqLen, width int) (dwte, dwpe []float64) {
	dwte, dwpe = make([]float64, vocab*width), make([]float64, seqLen*width)
	for i, d := range dy {
		r, j := i/width, i%width
		if mask != nil {
			d *= mask[i]
		}
		dwte[int(ids[r])*width+j] += d
		dwpe[r%seqLen*width+j] += d
	}
	return dwte, dwpe
}
