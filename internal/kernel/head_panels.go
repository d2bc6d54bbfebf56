package kernel

import (
	"math"
	"unsafe"
)

// Exponentials of a head in bf16 lie as the product that takes all rows for its sum
// wants its packed A: in panels of panelWidth columns (tokens of the vocabulary), a
// slot for each pair of rows, a word of two halves for each column. That product
// reads them where they are; the other one's rows are made of them as fast as of any.
const (
	panelWidth = 8
	panelRows  = 4  // fill a cache line of a panel, and are written together
	turnWidth  = 12 // rows of packed A that are made of panels together
)

// panelSlots is the slots of a panel for so many rows: whole cache lines, an odd
// number of them, so that panels do not compete for the same few sets of a cache.
func panelSlots(rows int) int {
	const lineSlots = lineFloats / panelWidth
	return (roundUp(rows, panelRows)/panelRows | 1) * lineSlots
}

// panelFloats is what the panels of so many columns take, and what is read behind
// the last, for rows that are not there.
func panelFloats(slots, columns int) int {
	return roundUp(columns, 2*panelWidth)*slots + turnWidth/2*panelWidth
}

// panelOf is where the slot of a row and, if it is the first of its panel, of a
// column lies.
func (o *operand) panelOf(row, column int) *float32 {
	return ptr(o.x, (column/panelWidth*o.ld+row/2)*panelWidth)
}

// bf16At is where an exponential lies, counted in bf16.
func bf16At(slots, row, column int) int {
	return ((column/panelWidth*slots+row/2)*panelWidth+column%panelWidth)*2 + row%2
}

// asBF16 is the same memory as bf16.
func asBF16(x []float32) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(x))), 2*len(x))
}

// finishPanels takes columns from on of panelRows rows from r on, of which the first
// m are there. x has softColumns for each.
func (s *softRows) finishPanels(set *isa, x []float32, columns, r, m, from int) {
	group := r*s.groups + from/softColumns
	for i := range m {
		s.see(x[i*softColumns:][:columns], r+i, from)
		if s.maxima {
			s.sums[group+i*s.groups] = set.maximum(x[i*softColumns:][:columns])
		}
	}
	if s.maxima {
		return
	}
	const block = 16
	for i := range panelRows {
		for c := columns; c%block > 0; c++ {
			x[i*softColumns+c] = float32(math.Inf(-1))
		}
	}
	to := s.out[(from/panelWidth*s.ld+r/2)*panelWidth:]
	set.expPanels((columns+block-1)/block, &x[0], 4*softColumns, &s.shift[r], &to[0], 4*s.ld*panelWidth, &s.sums[group], 4*s.groups)
}
