package kernel

import (
	"math"

	"promptgen/internal/half"
)

// vectors are the loops over rows that an instruction set speeds up. Slices of
// one call have the same length.
type vectors struct {
	add     func(dst, x []float32)                           // dst += x
	act     func(y, x []float32, a Act)                      // y = act(x); y may be x
	actGrad func(d, x []float32, a Act)                      // d *= act'(x), then x = act(x)
	drop    func(y, x []float32, d dropRow, j int)           // y = dropout of x, whose first element is j; y may be x
	maximum func(x []float32) float32                        // NaNs are passed over
	exp     func(y, x []float32, scale, off float32) float32 // y = exp(scale*x+off), returns the sum; y may be x
	scale   func(y, x []float32, a float32)                  // y = a*x; y may be x
	dot     func(x, y []float32) float32
	fetch   func(x []float32) // will be needed soon

	normStat func(x []float32, eps float32) (mean, rstd float32)
	norm     func(y, x, gain, bias []float32, mean, rstd float32)
	normBack func(dx, dgain, dbias, dy, x, gain []float32, mean, rstd float32)

	adam    func(s *adamStep, w, g, m, v []float32)
	adam16  func(s *adamStep, w, g []float32, m, v []uint16, d draw, j int) // d's words from j on
	squares func(x []float32) float64
	round   func(x []float32) // to bf16
}

func goVectors() vectors {
	return vectors{
		add: addGo, act: actGo, actGrad: actGradGo, drop: dropGo, maximum: maximumGo, exp: expGo,
		scale: scaleGo, dot: dotGo, fetch: func([]float32) {},
		normStat: normStatGo, norm: normGo, normBack: normBackGo, adam: adamGo, adam16: adam16Go, squares: squaresGo, round: roundGo,
	}
}

func addGo(dst, x []float32) {
	x = x[:len(dst)]
	for i := range dst {
		dst[i] += x[i]
	}
}

func scaleGo(y, x []float32, a float32) {
	x = x[:len(y)]
	for i := range y {
		y[i] = a * x[i]
	}
}

func dotGo(x, y []float32) float32 {
	y = y[:len(x)]
	var s0, s1, s2, s3 float32
	i := 0
	for ; i+4 <= len(x); i += 4 {
		s0 += x[i] * y[i]
		s1 += x[i+1] * y[i+1]
		s2 += x[i+2] * y[i+2]
		s3 += x[i+3] * y[i+3]
	}
	for ; i < len(x); i++ {
		s0 += x[i] * y[i]
	}
	return (s0 + s1) + (s2 + s3)
}

func maximumGo(x []float32) float32 {
	m := float32(math.Inf(-1))
	for _, v := range x {
		if v > m {
			m = v
		}
	}
	return m
}

func expGo(y, x []float32, scale, off float32) float32 {
	x = x[:len(y)]
	var sum float32
	for i := range y {
		e := exp32(scale*x[i] + off)
		y[i] = e
		sum += e
	}
	return sum
}

// expRowBy is isa.expRow by isa.exp.
func expRowBy(exp func(y, x []float32, scale, off float32) float32) func(y, x []float32, off float32) float32 {
	return func(y, x []float32, off float32) float32 { return exp(y[:len(x)], x, 1, off) }
}

func exp32(x float32) float32 { return float32(math.Exp(float64(x))) }

func dropGo(y, x []float32, d dropRow, j int) {
	x = x[:len(y)]
	for i := range y {
		if d.keeps(j + i) {
			y[i] = x[i] * d.scale
		} else {
			y[i] = 0
		}
	}
}

// GELU's tanh form, 0.5x(1+tanh(u)) with u = √(2/π)(x+0.044715x³), is
// x·σ(2u): one exponential.
const (
	geluA = 0.7978845608028654 // √(2/π)
	geluB = 0.044715

	geluFlat = 30 // beyond it the derivative is 0 or 1, and x² might overflow
)

// sigmoid2u is σ(2u) at x.
func sigmoid2u(x float32) float32 { return 1 / (1 + exp32(-2*geluA*x*(1+geluB*x*x))) }

func actGo(y, x []float32, a Act) {
	x = x[:len(y)]
	switch a {
	case ActGELUNew:
		for i, v := range x {
			y[i] = v * sigmoid2u(v)
		}
	case ActGELU:
		for i, v := range x {
			y[i] = v * normalCDF(v)
		}
	case ActReLU:
		for i, v := range x {
			if v < 0 {
				v = 0
			}
			y[i] = v
		}
	}
}

func normalCDF(x float32) float32 { return float32(0.5 * math.Erfc(-float64(x)*(math.Sqrt2/2))) }

func actGradGo(d, x []float32, a Act) {
	x = x[:len(d)]
	for i, v := range x {
		switch a {
		case ActGELUNew:
			w := max(-geluFlat, min(geluFlat, v))
			s := sigmoid2u(w)
			d[i] *= s + w*s*(1-s)*(2*geluA)*(1+3*geluB*w*w)
		case ActGELU:
			density := exp32(-0.5*v*v) * 0.3989422804014327
			d[i] *= normalCDF(v) + v*density
		case ActReLU:
			if v <= 0 {
				d[i] = 0
			}
		}
	}
	actGo(x, x, a)
}

func normStatGo(x []float32, eps float32) (mean, rstd float32) {
	var sum, sq float64
	for _, v := range x {
		sum += float64(v)
	}
	mu := sum / float64(len(x))
	for _, v := range x {
		d := float64(v) - mu
		sq += d * d
	}
	return float32(mu), float32(1 / math.Sqrt(sq/float64(len(x))+float64(eps)))
}

func normGo(y, x, gain, bias []float32, mean, rstd float32) {
	x, gain, bias = x[:len(y)], gain[:len(y)], bias[:len(y)]
	for i := range y {
		y[i] = (x[i]-mean)*rstd*gain[i] + bias[i]
	}
}

// normBackGo adds one row's gradients to dx, dgain and dbias.
func normBackGo(dx, dgain, dbias, dy, x, gain []float32, mean, rstd float32) {
	n := len(dx)
	dgain, dbias, dy, x, gain = dgain[:n], dbias[:n], dy[:n], x[:n], gain[:n]
	var sum, sumX float64
	for i, d := range dy {
		xh := (x[i] - mean) * rstd
		dgain[i] += d * xh
		dbias[i] += d
		dn := d * gain[i]
		sum += float64(dn)
		sumX += float64(dn) * float64(xh)
	}
	m, mx := float32(sum/float64(n)), float32(sumX/float64(n))
	for i, d := range dy {
		xh := (x[i] - mean) * rstd
		dx[i] += rstd * (d*gain[i] - m - xh*mx)
	}
}

func squaresGo(x []float32) float64 {
	var s0, s1 float64
	i := 0
	for ; i+2 <= len(x); i += 2 {
		s0 += float64(x[i]) * float64(x[i])
		s1 += float64(x[i+1]) * float64(x[i+1])
	}
	if i < len(x) {
		s0 += float64(x[i]) * float64(x[i])
	}
	return s0 + s1
}

func roundGo(x []float32) {
	for i, v := range x {
		x[i] = half.RoundBF16(v)
	}
}
