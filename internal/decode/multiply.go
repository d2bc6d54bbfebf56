package decode

import "promptgen/internal/kernel"

// Product is C [M, W.N] = act(bias + A·W) + residual, for M rows of A [·, W.K] of
// W's dtype, from Row on.
type Product struct {
	Row, M int

	A   *Operand
	W   *Matrix
	C   []float32 // rows LDC apart, as many as A has
	LDC int       // at least W.N

	Bias     []float32 // [W.N] or nil
	Act      kernel.Act
	Residual []float32 // rows as in C, which it may not be, or nil

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
	strips := (panels + strip - 1) / strip
	blocks := (p.M + blockRows - 1) / blockRows
	u.cpu.Each(strips*blocks, func(worker, i int) {
		// Even blocks: threads begin with as many parts each, and have few to help with.
		b := i / strips
		r0, end := p.M*b/blocks, p.M*(b+1)/blocks
		j := job{p, u, &u.per[worker], p.Row + r0, end - r0}
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
	w := j.W
	switch {
	case w.patches == nil:
		j.tiles(w.f, 0, p, s, n, ptr(w.data, (p*w.steps+s)*w.f.bStep))
	case j.m <= len(w.f.squeezing.tiles):
		j.squeezed(p)
	case j.m <= len(w.f.tiles):
		j.expanded(&w.f.squeezing.few, p, s, n, fewSteps)
	default:
		j.expanded(&w.f.squeezing.many, p, s, n, n)
	}
}

// tiles multiplies rows [from,j.m) by n steps from s on of panel p, which lie at
// b as f has them.
func (j *job) tiles(f *format, from, p, s, n int, b *byte) {
	tiles, stride := f.tiles, j.A.stride
	n *= j.W.f.unit / f.unit
	j.each(from, j.m, len(tiles), p, s, func(m int, a *byte, t place) {
		tiles[m-1](n, a, stride, b, t.c, t.ldc, t.from, t.ldf)
	})
}

// expanded multiplies by n steps of a squeezed panel, so many at a time. The
// first rows expand them, where that is possible.
func (j *job) expanded(x *expansion, p, s, n, some int) {
	panel, f := j.W.squeezed(p), j.W.f
	if x.as != nil {
		f = x.as
	}
	wide := j.s.room(panel.k.wideBytes(some) * j.W.f.unit / f.unit)
	for end := s + n; s < end; s += some {
		some = min(some, end-s)
		rows := 0
		if x.first != nil && j.m >= firstRows && some%panel.k.steps == 0 {
			rows = firstRows
			from, head := panel.at(s)
			j.each(0, rows, rows, p, s, func(_ int, a *byte, t place) {
				x.first(some/panel.k.steps, a, j.A.stride, from, head, panel.patchesFrom(s), &wide[0], t.c, t.ldc, t.from, t.ldf)
			})
		} else {
			panel.expand(x, wide, s, some)
		}
		j.tiles(f, rows, p, s, some, &wide[0])
	}
}

// squeezed multiplies few rows by all of a squeezed panel. What is no whole block
// at its end is expanded.
func (j *job) squeezed(p int) {
	panel, stride := j.W.squeezed(p), j.A.stride
	whole := panel.steps / panel.k.steps
	from, head := panel.at(0)
	patches, tiles := panel.patchesFrom(0), panel.k.tiles
	if whole > 0 {
		j.each(0, j.m, len(tiles), p, 0, func(m int, a *byte, t place) {
			tiles[m-1](whole, a, stride, from, head, patches, t.c, t.ldc, t.from, t.ldf)
		})
	}
	if s := whole * panel.k.steps; s < panel.steps {
		j.expanded(&panel.k.few, p, s, panel.steps-s, panel.k.steps)
	}
}

// place is where a tile's sums go, and where they come from.
type place struct {
	c, from  *float32
	ldc, ldf int // bytes between rows
}

// each runs f for pieces of at most most of rows [from,to) from step s of panel p
// on: where their activations and sums lie. Sums begin with the bias.
func (j *job) each(from, to, most, p, s int, f func(m int, a *byte, t place)) {
	cols := min(panelCols, j.W.N-p*panelCols)
	bias := zeros[:cols]
	if j.Bias != nil {
		bias = j.Bias[p*panelCols:][:cols]
	}
	tiles(to-from, most, func(r, m int) {
		r += j.r0 + from
		at := r*j.LDC + p*panelCols
		t := place{c: floatPtr(j.C, at), from: &bias[0], ldc: 4 * j.LDC}
		if s > 0 {
			t.from, t.ldf = t.c, t.ldc
		}
		if cols == panelCols {
			f(m, j.A.at(r, s), t)
			return
		}
		edge := grow(&j.s.tile, maxTile*panelCols)
		for i := range m {
			begin := bias
			if s > 0 {
				begin = j.C[at+i*j.LDC:][:cols]
			}
			copy(edge[i*panelCols:], begin)
		}
		f(m, j.A.at(r, s), place{&edge[0], &edge[0], 4 * panelCols, 4 * panelCols})
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
