package decode

import "promptgen/internal/kernel"

// Product is C [M, W.N] = act(A·W + bias) + residual, for M rows of A [·, W.K] of
// W's dtype, from Row on.
type Product struct {
	Row, M int

	A   *Operand
	W   *Matrix
	C   []float32 // rows LDC apart, as many as A has
	LDC int       // at least W.N

	Bias     []float32 // [W.N] or nil
	Act      kernel.Act
	Residual []float32 // rows as in C, or nil; may be C

	// Next, shaped for rows of W.N values, or nil, receives C as well, while it
	// is in the first cache. It may not be A.
	Next *Operand
}

// stripPanels is the number of panels that a part of a product of many rows
// has, and blockRows the most rows that are multiplied while their activations
// stay in the second cache, beside a panel and their part of C.
const (
	stripPanels = 4
	blockRows   = 192
)

// Multiply computes p.
func (u *Unit) Multiply(p *Product) {
	if p.M == 0 {
		return
	}
	panels := (p.W.N + panelCols - 1) / panelCols
	strip := stripPanels
	if p.M <= len(p.W.f.tiles) { // all of a part in one go, so few parts
		strip = max(1, panels/(4*u.cpu.Threads()))
	}
	blocks := (p.M + blockRows - 1) / blockRows
	rows := roundUp((p.M+blocks-1)/blocks, len(p.W.f.tiles))
	strips := (panels + strip - 1) / strip
	u.cpu.Each(strips*blocks, func(worker, i int) {
		r0 := i / strips * rows
		if r0 >= p.M {
			return
		}
		j := job{p, u, &u.per[worker], p.Row + r0, min(rows, p.M-r0)}
		j.strip(i%strips*strip, min((i%strips+1)*strip, panels))
	})
}

// job is m rows of a product from r0 on, one thread's.
type job struct {
	*Product
	u     *Unit
	s     *scratch
	r0, m int
}

// strip computes panels [lo,hi) and finishes their columns.
func (j *job) strip(lo, hi int) {
	f, steps := j.W.f, j.W.steps
	long := steps
	if j.m > len(f.tiles) {
		long = f.long
	}
	for s := 0; s < steps; s += long {
		for p := lo; p < hi; p++ {
			j.panel(p, s, min(long, steps-s))
		}
	}
	from, to := lo*panelCols, min(hi*panelCols, j.W.N)
	for r := j.r0; r < j.r0+j.m; r++ {
		c := j.C[r*j.LDC:][from:to]
		if j.Bias != nil {
			j.u.cpu.RowAdd(c, j.Bias[from:to])
		}
		if j.Act != kernel.ActNone {
			j.u.cpu.RowAct(c, c, j.Act)
		}
		if j.Residual != nil {
			j.u.cpu.RowAdd(c, j.Residual[r*j.LDC:][from:to])
		}
		if j.Next != nil {
			j.u.setPart(j.Next, r, from, c)
		}
	}
}

// panel adds n steps from s on to all rows of panel p.
func (j *job) panel(p, s, n int) {
	f := j.W.f
	b := ptr(j.W.data, (p*j.W.steps+s)*f.bStep)
	acc := 0
	if s > 0 {
		acc = 1
	}
	cols := min(panelCols, j.W.N-p*panelCols)
	tiles(j.m, len(f.tiles), func(r, m int) {
		r += j.r0
		at := r*j.LDC + p*panelCols
		if cols == panelCols {
			f.tiles[m-1](n, j.A.at(r, s), j.A.stride, b, floatPtr(j.C, at), 4*j.LDC, acc)
			return
		}
		edge := grow(&j.s.tile, len(f.tiles)*panelCols)
		for i := range m {
			copy(edge[i*panelCols:], j.C[at+i*j.LDC:][:cols])
		}
		f.tiles[m-1](n, j.A.at(r, s), j.A.stride, b, &edge[0], 4*panelCols, acc)
		for i := range m {
			copy(j.C[at+i*j.LDC:][:cols], edge[i*panelCols:])
		}
	})
}

// tiles cuts m rows into even pieces of at most most.
func tiles(m, most int, f func(r, m int)) {
	n := (m + most - 1) / most
	for i := range n {
		f(m*i/n, m*(i+1)/n-m*i/n)
	}
}
