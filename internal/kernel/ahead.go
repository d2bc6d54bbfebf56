package kernel

import "unsafe"

// ahead is memory that a thread needs later: rows of cache lines, fetched one by
// one while it multiplies, when memory has little to do. The assembly knows the
// order of the fields.
type ahead struct {
	at    int // address of the line to fetch
	step  int // from line to line; 0: there is nothing left to fetch
	left  int // lines of this row
	lines int // of a row
	jump  int // from behind a row to the next one
	rows  int // behind this one
}

// aheadOf is so many rows of so many floats from p on, stride floats apart.
func aheadOf(p *float32, rows, floats, stride int) ahead {
	lines := (floats + lineFloats - 1) / lineFloats
	return ahead{
		at: int(uintptr(unsafe.Pointer(p))), step: lineFloats * 4,
		left: lines, lines: lines, jump: 4 * (stride - lines*lineFloats), rows: rows - 1,
	}
}

// nothingAhead fetches what is there already.
func nothingAhead(p *float32) ahead { return ahead{at: int(uintptr(unsafe.Pointer(p)))} }

// ahead is the elements that packing rows [r, r+rows) and sum [k, k+kc) reads.
func (o *operand) ahead(r, rows, k, kc int) ahead {
	switch {
	case o.panels && o.kStride:
		return aheadOf(o.panelOf(k, r), (rows+panelWidth-1)/panelWidth, kc/2*panelWidth, o.ld*panelWidth)
	case o.panels:
		return aheadOf(o.panelOf(r, k), (kc+panelWidth-1)/panelWidth, rows/2*panelWidth, o.ld*panelWidth)
	case o.kStride:
		return aheadOf(o.at(k, r), kc, rows, o.ld)
	}
	return aheadOf(o.at(r, k), rows, kc, o.ld)
}

// laterReads is what a thread fetches while it multiplies.
type laterReads struct {
	out   [3]ahead // what the epilogue of the columns at hand touches beside C
	soon  ahead    // rows of A that it packs next
	then  ahead    // its share of B after the next barrier
	stage int      // of the job that then belongs to
}

// current is what a product's tiles are to fetch: the first of an ahead's fields.
func (l *laterReads) current() *int {
	for i := range l.out {
		if l.out[i].step > 0 {
			return &l.out[i].at
		}
	}
	if l.soon.step > 0 {
		return &l.soon.at
	}
	return &l.then.at
}

// plan sets what is fetched while part i multiplies block n of those at hand.
func (j *gemmJob) plan(w *worker, i, n int) {
	l := &w.later
	l.soon = nothingAhead(ptr(j.A, 0))
	if l.stage != j.stage {
		l.stage, l.then = j.stage, l.soon
		if j.next.block != nil {
			l.then = j.shareOfB(w.id)
		}
	}
	for o := range l.out {
		l.out[o] = l.soon
	}
	part, first, end := &j.parts[i], j.shares[w.id], len(j.parts)
	if w.id+1 < len(j.shares) {
		end = j.shares[w.id+1]
	}
	block := &j.blocks[0]
	switch {
	case n+1 < len(j.blocks):
		block = &j.blocks[n+1]
	case i+1 < end && i >= first:
		if j.parts[i+1].r0 == part.r0 {
			return
		}
		part = &j.parts[i+1]
	case j.next.block != nil && j.next.j == j.j && first < end:
		part, block = &j.parts[first], j.next.block
	default:
		return
	}
	l.soon = j.a.ahead(part.r0, part.end-part.r0, block.k, block.kc)
}

// shareOfB is what worker id will read of B where the next columns, or blocks of the
// sum, are packed.
func (j *gemmJob) shareOfB(id int) ahead {
	next, threads := &j.next, len(j.shares)
	b := next.block
	k, kc := b.k, b.kc
	lo, hi := 0, next.nc
	if j.b.kStride && b.pieces >= threads {
		first := b.pieces * id / threads
		k, kc = b.k+sum(b.piece[:first]), sum(b.piece[first:b.pieces*(id+1)/threads])
	} else {
		group := j.packGroup() * j.t.nr
		groups := (next.nc + group - 1) / group
		lo, hi = groups*id/threads*group, min(groups*(id+1)/threads*group, next.nc)
	}
	if lo >= hi {
		return nothingAhead(ptr(j.B, 0))
	}
	return j.b.ahead(next.j+lo, hi-lo, k, kc)
}

func sum(x []int) (n int) {
	for _, v := range x {
		n += v
	}
	return n
}

// planOut has rows [r0,end) and columns [lo,hi) of what the epilogue touches fetched.
func (j *gemmJob) planOut(w *worker, r0, end, lo, hi int) {
	for i, x := range [...][]float32{j.PreAct, j.Through, j.Residual} {
		if x != nil {
			w.later.out[i] = aheadOf(ptr(x, r0*j.LDC+lo), end-r0, hi-lo, j.LDC)
		}
	}
}
