package kernel

import "math"

// AdamStyle is which program's AdamW is computed.
type AdamStyle uint8

// The two differ in where eps and the decay come in.
const (
	AdamTorch AdamStyle = iota // torch.optim.AdamW: eps after bias correction, decay first
	AdamHF                     // transformers 2.1.1: eps before bias correction, decay last
)

// AdamW is one step of the optimizer (Loshchilov and Hutter 2019).
type AdamW struct {
	LR, Beta1, Beta2, Eps, WeightDecay float32

	GradScale float32 // gradients are multiplied by it first (clipping); 1: as they are
	Step      int     // of this update, counted from 1
	Style     AdamStyle
}

// adamStep is an AdamW with its bias corrections worked out: with g scaled,
// m = b1·m + c1·g, v = b2·v + c2·g², w = (before·w - step·m/(root·√v+eps))·after.
type adamStep struct {
	gradScale, b1, c1, b2, c2 float32
	step, root, eps           float32
	before, after             float32
}

func (o *AdamW) prepare() adamStep {
	b1, b2, lr := float64(o.Beta1), float64(o.Beta2), float64(o.LR)
	fix1, fix2 := 1-math.Pow(b1, float64(o.Step)), 1-math.Pow(b2, float64(o.Step))
	decay := float32(1 - lr*float64(o.WeightDecay))
	s := adamStep{
		gradScale: o.GradScale, b1: o.Beta1, c1: float32(1 - b1), b2: o.Beta2, c2: float32(1 - b2),
		eps: o.Eps, before: 1, after: 1,
	}
	if o.Style == AdamHF {
		s.step, s.root, s.after = float32(lr*math.Sqrt(fix2)/fix1), 1, decay
	} else {
		s.step, s.root, s.before = float32(lr/fix1), float32(1/math.Sqrt(fix2)), decay
	}
	return s
}

type adamJob struct {
	cpu        *CPU
	s          adamStep
	w, g, m, v []float32
	step       int // weights of a part
}

// AdamW updates the weights w and their moments m and v by the gradients g, all
// of one length. g is only read.
func (c *CPU) AdamW(o *AdamW, w, g, m, v []float32) {
	n := len(w)
	step := c.evenStep(n)
	c.adamJob = adamJob{c, o.prepare(), w, g[:n], m[:n], v[:n], step}
	c.pool.run((n+step-1)/step, &c.adamJob)
	c.adamJob = adamJob{}
}

func (j *adamJob) part(_ *worker, i int) {
	lo, hi := i*j.step, min((i+1)*j.step, len(j.w))
	j.cpu.isa.adam(&j.s, j.w[lo:hi], j.g[lo:hi], j.m[lo:hi], j.v[lo:hi])
}

func adamGo(s *adamStep, w, g, m, v []float32) {
	g, m, v = g[:len(w)], m[:len(w)], v[:len(w)]
	for i := range w {
		gr := g[i] * s.gradScale
		m[i] = s.b1*m[i] + s.c1*gr
		v[i] = s.b2*v[i] + s.c2*gr*gr
		den := s.root*float32(math.Sqrt(float64(v[i]))) + s.eps
		w[i] = (s.before*w[i] - s.step*m[i]/den) * s.after
	}
}

type squareJob struct {
	cpu *CPU
	x   []float32
}

// SumSquares is the sum of the squares of x, in float64, added in a fixed order.
func (c *CPU) SumSquares(x []float32) float64 {
	n := (len(x) + partFloats - 1) / partFloats
	if cap(c.sums) < n {
		c.sums = make([]float64, n)
	}
	c.sums = c.sums[:n]
	c.squareJob = squareJob{c, x}
	c.pool.run(n, &c.squareJob)
	c.squareJob = squareJob{}
	var sum float64
	for _, s := range c.sums {
		sum += s
	}
	return sum
}

func (j *squareJob) part(_ *worker, i int) {
	lo, hi := i*partFloats, min((i+1)*partFloats, len(j.x))
	j.cpu.sums[i] = j.cpu.isa.squares(j.x[lo:hi])
}
