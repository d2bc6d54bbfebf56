package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"

	"promptgen/internal/kernel/gen/evex"
)

// panelBytes is one step of a panel of floats or of pairs of bf16: 32 columns.
const panelBytes = 128

const tileSignature = "func(k int, a *byte, lda int, b *byte, c *float32, ldc int, from *float32, ldf int)"

// tile is a micro-kernel: m rows of 32 columns, accumulated in registers
// 0…m*nv-1, row by row.
type tile struct {
	regs      []VecPhysical
	width     int // bytes of a register
	m, nv     int
	k, lda, b Register
	rows      []Register // addresses of rows 0, 3, 6, 9
}

// begin declares the function and loads what all tiles need.
func begin(name string, regs []VecPhysical, m int) *tile {
	return beginAs(tileSignature, name, regs, m)
}

func beginAs(signature, name string, regs []VecPhysical, m int) *tile {
	TEXT(fmt.Sprintf("%s_%d", name, m), NOSPLIT, signature)
	Pragma("noescape")
	t := &tile{regs: regs, width: 64, m: m}
	if len(regs) == 16 {
		t.width = 32
	}
	t.nv = panelBytes / t.width
	t.k, t.lda, t.b = Load(Param("k"), GP64()), Load(Param("lda"), GP64()), Load(Param("b"), GP64())
	t.rows = []Register{Load(Param("a"), GP64())}
	for len(t.rows)*3 < m {
		r, last := GP64(), t.rows[len(t.rows)-1]
		LEAQ(Mem{Base: last, Index: t.lda, Scale: 2}, r)
		ADDQ(t.lda, r)
		t.rows = append(t.rows, r)
	}
	t.each("c", "ldc", 64, func(i, j int, c Mem) { PREFETCHT0(c) })
	t.each("from", "ldf", t.width, func(i, j int, from Mem) { VMOVUPS(from, t.regs[i*t.nv+j]) })
	return t
}

// each calls f for each piece of the tile's rows, of which the first lies at a
// parameter and the others so much further on as another says.
func (t *tile) each(first, apart string, piece int, f func(i, j int, at Mem)) {
	row, ld := Load(Param(first), GP64()), Load(Param(apart), GP64())
	for i := range t.m {
		for j := range panelBytes / piece {
			f(i, j, Mem{Base: row, Disp: j * piece})
		}
		if i < t.m-1 {
			ADDQ(ld, row)
		}
	}
}

// row is where row i of A lies.
func (t *tile) row(i, disp int) Mem {
	m := Mem{Base: t.rows[i/3], Disp: disp}
	if i%3 > 0 {
		m.Index, m.Scale = t.lda, uint8(i%3)
	}
	return m
}

// step advances to the next: a and b are the bytes of one.
func (t *tile) advance(a, b int) {
	for _, r := range t.rows {
		ADDQ(U32(uint32(a)), r)
	}
	ADDQ(U32(uint32(b)), t.b)
}

func (t *tile) finish() {
	t.each("c", "ldc", t.width, func(i, j int, c Mem) { VMOVUPS(t.regs[i*t.nv+j], c) })
	end()
}

// ahead is how far before its use a weight is asked for.
const ahead = 8192

// few is the number of rows up to which a tile waits for memory, alone that up to
// which it is faster not to ask: instructions are so few to a line that the
// processor begins to load early enough.
const (
	few   = 6
	alone = 3
)

// ask asks for the weights that follow in so many bytes, in the second cache: the
// first has few lines on their way at a time, which the tile itself needs.
func ask(from Register, bytes int) {
	for line := 0; line < bytes; line += 64 {
		PREFETCHT1(Mem{Base: from, Disp: line + ahead})
	}
}

// floatTile multiplies fp32 values or pairs of bf16, one step of aStep bytes a row
// and 128 bytes of B at a time.
func floatTile(name string, regs []VecPhysical, m, aStep int, step func(t *tile, u int)) {
	t := begin(name, regs, m)
	unroll := 32 / aStep
	if m > 4 {
		unroll /= 2
	}
	CMPQ(t.k, Imm(uint64(unroll)))
	JLT(LabelRef("tail"))
	Label("loop")
	if m > alone && m <= few {
		ask(t.b, unroll*panelBytes)
	}
	for u := range unroll {
		step(t, u)
	}
	t.advance(aStep*unroll, panelBytes*unroll)
	SUBQ(Imm(uint64(unroll)), t.k)
	CMPQ(t.k, Imm(uint64(unroll)))
	JGE(LabelRef("loop"))
	Label("tail")
	TESTQ(t.k, t.k)
	JZ(LabelRef("done"))
	Label("single")
	step(t, 0)
	t.advance(aStep, panelBytes)
	DECQ(t.k)
	JNZ(LabelRef("single"))
	Label("done")
	t.finish()
}

// fmaF32 is a step of fp32.
func fmaF32(t *tile, u int) {
	free := t.m * t.nv
	if t.width == 32 { // three rows leave one register for B
		for i := range t.m {
			VBROADCASTSS(t.row(i, 4*u), t.regs[free+1+i])
		}
		for j := range t.nv {
			VMOVUPS(Mem{Base: t.b, Disp: u*panelBytes + j*t.width}, t.regs[free])
			for i := range t.m {
				VFMADD231PS(t.regs[free], t.regs[free+1+i], t.regs[i*t.nv+j])
			}
		}
		return
	}
	t.wideStep(u, func(acc, a, b int) { VFMADD231PS(t.regs[b], t.regs[a], t.regs[acc]) })
}

// dotBF16 is a step of pairs of bf16.
func dotBF16(t *tile, u int) { t.wideStep(u, evex.DPBF16) }

func (t *tile) wideStep(u int, multiply func(acc, a, b int)) {
	b := t.m * t.nv
	for j := range t.nv {
		VMOVUPS(Mem{Base: t.b, Disp: u*panelBytes + j*t.width}, t.regs[b+j])
	}
	spare := len(t.regs) - b - t.nv
	for i := range t.m {
		a := b + t.nv + i%spare
		VBROADCASTSS(t.row(i, 4*u), t.regs[a])
		for j := range t.nv {
			multiply(i*t.nv+j, a, b+j)
		}
	}
}

// widen is a step of pairs of bf16 where there is no instruction for them: each
// half is made a float32, and multiplied by one of the row's two.
func widen(t *tile, u int) {
	b := t.m * t.nv
	split := func(j, lo, hi int) {
		VMOVUPS(Mem{Base: t.b, Disp: u*panelBytes + j*t.width}, t.regs[hi])
		halves(t.regs[hi], t.regs[lo])
	}
	if t.width == 32 { // three rows leave two registers for B
		for j := range t.nv {
			split(j, b, b+1)
			for i := range t.m {
				for half := range 2 {
					a := t.regs[b+2+(2*i+half)%(len(t.regs)-b-2)]
					VBROADCASTSS(t.row(i, 8*u+4*half), a)
					VFMADD231PS(t.regs[b+half], a, t.regs[i*t.nv+j])
				}
			}
		}
		return
	}
	for j := range t.nv {
		split(j, b+2*j, b+2*j+1)
	}
	first := b + 2*t.nv
	for i := range t.m {
		for half := range 2 {
			a := t.regs[first+(2*i+half)%(len(t.regs)-first)]
			VBROADCASTSS(t.row(i, 8*u+4*half), a)
			for j := range t.nv {
				VFMADD231PS(t.regs[b+2*j+half], a, t.regs[i*t.nv+j])
			}
		}
	}
}

// halves makes float32 of pairs of bf16: of the upper in place, of the lower in lo.
func halves(hi, lo VecPhysical) {
	VPSLLD(Imm(16), hi, lo)
	if hi.Size() == 64 {
		VPANDD(upperHalf, hi, hi)
	} else {
		VPAND(upperHalf, hi, hi)
	}
}
