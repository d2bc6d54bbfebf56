package kernel

import (
	"math"

	"promptgen/internal/half"
)

// AdamW with moments in bfloat16: half their memory, for other numbers.
//
// The second moment moves by a thousandth of its distance a step, which is less
// than a bfloat16 can show: rounded to the nearest it would stand still. Rounded
// at random, up with the probability that makes the mean right, it moves as it
// should on the average (Gupta and others 2015, "Deep learning with limited
// numerical precision"). The step itself is taken by the moments before they
// are rounded.

type adam16Job struct {
	cpu  *CPU
	s    adamStep
	w, g []float32
	m, v []uint16
	draw draw
	step int // weights of a part
}

// AdamW16 is AdamW with the moments m and v in bfloat16, rounded at random. The
// random bits are a function of key and of the element's index alone: let key
// be one of the seed, the step and the tensor.
func (c *CPU) AdamW16(o *AdamW, w, g []float32, m, v []uint16, key uint64) {
	n := len(w)
	step := c.evenStep(n)
	c.adam16Job = adam16Job{c, o.prepare(), w, g[:n], m[:n], v[:n], drawOf(key, 0), step}
	c.pool.run((n+step-1)/step, &c.adam16Job)
	c.adam16Job = adam16Job{}
}

func (j *adam16Job) part(_ *worker, i int) {
	lo, hi := i*j.step, min((i+1)*j.step, len(j.w))
	j.cpu.isa.adam16(&j.s, j.w[lo:hi], j.g[lo:hi], j.m[lo:hi], j.v[lo:hi], j.draw, lo)
}

// adam16Go is the reference: every faster one gives the same to the bit. The
// conversions keep compilers from joining a product and a sum into one rounding.
// Element i of the slices is number j+i of the tensor.
func adam16Go(s *adamStep, w, g []float32, m, v []uint16, d draw, j int) {
	g, m, v = g[:len(w)], m[:len(w)], v[:len(w)]
	for i := range w {
		gr := g[i] * s.gradScale
		mean := float32(s.b1*half.FromBF16(m[i])) + float32(s.c1*gr)
		square := float32(s.b2*half.FromBF16(v[i])) + float32(s.c2*float32(gr*gr))
		random := d.bits(j + i)
		m[i] = cutBF16(mean, random&0xffff)
		v[i] = cutBF16(square, random>>16)
		den := float32(s.root*float32(math.Sqrt(float64(square)))) + s.eps
		w[i] = (float32(s.before*w[i]) - float32(s.step*mean)/den) * s.after
	}
}
