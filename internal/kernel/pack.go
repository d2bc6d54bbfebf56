package kernel

import (
	"math"

	"promptgen/internal/half"
)

// operand is op(X) as packing sees it: element (r, k), where r runs over the
// rows of A or the columns of B and k over the sum.
type operand struct {
	x       []float32
	ld      int
	kStride bool // X is stored [k][r]: consecutive r lie side by side; else [r][k]
	shared  bool // packed once for all threads, on cache lines
	panels  bool // X is a head's exponentials in panels of ld slots, and r are its rows
}

// at is where an element lies, its row and column as stored.
func (o *operand) at(row, column int) *float32 { return ptr(o.x, row*o.ld+column) }

// packers copy a panel's columns (copyRows: X is [k][r]) or transpose its rows
// (turn: X is [r][k]) where the instruction set has something faster than Go.
// Both return how much of the sum they did (k values from the start).
type packers struct {
	copyRows func(dst []float32, width int, o operand, r, rows, k, kc int, t *tile) int
	turn     func(dst []float32, width int, o operand, r, rows, k, kc int, t *tile) int
}

// split packs columns of k rows (pairs of rows where the tile takes pairs) into
// panels, panel bytes apart: splitColumns of a thread's own A, ncPack of B.
type split func(k int, src *float32, stride int, dst *float32, panel int)

const splitColumns = 48

func goPackers() packers {
	none := func([]float32, int, operand, int, int, int, int, *tile) int { return 0 }
	return packers{none, none}
}

// kSlots is how many slots of a panel kc values of the sum take.
func (t *tile) kSlots(kc int) int {
	if t.pairs {
		return (kc + 1) / 2
	}
	return kc
}

// packPanels packs rows [r, r+rows) and sum [k, k+kc) of o into panels of the
// given width, panel floats apart.
func (s *isa) packPanels(dst []float32, width, panel int, o operand, r, rows, k, kc int, t *tile) {
	for rows > 0 {
		n, done := t.splitPanels(dst, width, panel, o, r, rows, k, kc)
		for p := range n / width {
			s.endPanel(dst[p*panel:], width, o, r+p*width, width, k, kc, t, done)
		}
		if n == 0 {
			n = min(width, rows)
			s.packPanel(dst, width, o, r, n, k, kc, t)
		}
		if rows -= n; rows > 0 {
			r, dst = r+n, dst[(n+width-1)/width*panel:]
		}
	}
}

// splitPanels packs several panels of an operand stored [k][r] at once, and returns
// how many columns and how much of the sum that was: nothing where fewer are left
// or the tile has nothing for it.
func (t *tile) splitPanels(dst []float32, width, panel int, o operand, r, rows, k, kc int) (columns, done int) {
	run := t.splitA
	columns = splitColumns
	if o.shared {
		run, columns = t.splitB, ncPack
	}
	n, step := kc, 1
	if t.pairs {
		n, step = kc/2, 2
	}
	if run == nil || !o.kStride || rows < columns || n == 0 {
		return 0, 0
	}
	_ = dst[(columns/width-1)*panel+n*width-1]
	run(n, o.at(k, r), o.ld*4, &dst[0], panel*4)
	return columns, n * step
}

// packPanel packs rows [r, r+rows) and sum [k, k+kc) of o into a panel of the
// given width: slot s of the sum holds width values side by side. Those past rows
// are arbitrary: they only reach rows or columns of a tile that are not there.
func (s *isa) packPanel(dst []float32, width int, o operand, r, rows, k, kc int, t *tile) {
	fast := s.pack.turn
	if o.kStride {
		fast = s.pack.copyRows
	}
	dst = dst[:t.kSlots(kc)*width]
	s.endPanel(dst, width, o, r, rows, k, kc, t, fast(dst, width, o, r, rows, k, kc, t))
}

// endPanel packs what is left of a panel whose sum is done up to a value, and
// rounds it where the tile wants that.
func (s *isa) endPanel(dst []float32, width int, o operand, r, rows, k, kc int, t *tile, done int) {
	dst = dst[:t.kSlots(kc)*width]
	if done < kc {
		packRest(dst, width, o, r, rows, k, kc, t, done)
	}
	if t.round {
		s.round(dst)
	}
}

// packRest is packPanel from value done of the sum on.
func packRest(dst []float32, width int, o operand, r, rows, k, kc int, t *tile, done int) {
	slots := t.kSlots(kc)
	if rows < width {
		clear(dst[t.kSlots(done)*width:]) // arbitrary, but not slow subnormals
	}
	at := func(i, kk int) float32 {
		row, column := r+i, k+kk
		if o.kStride {
			row, column = column, row
		}
		if o.panels {
			return half.FromBF16(asBF16(o.x)[bf16At(o.ld, row, column)])
		}
		return o.x[row*o.ld+column]
	}
	switch {
	case t.pairs:
		for s := done / 2; s < slots; s++ {
			for i := range rows {
				v := uint32(half.ToBF16(at(i, 2*s)))
				if 2*s+1 < kc {
					v |= uint32(half.ToBF16(at(i, 2*s+1))) << 16
				}
				dst[s*width+i] = math.Float32frombits(v)
			}
		}
	case o.kStride:
		for kk := done; kk < kc; kk++ {
			d := dst[kk*width:][:rows]
			copy(d, o.x[(k+kk)*o.ld+r:])
		}
	default:
		for i := range rows {
			for kk, v := range o.x[(r+i)*o.ld+k+done:][:kc-done] {
				dst[(done+kk)*width+i] = v
			}
		}
	}
}
