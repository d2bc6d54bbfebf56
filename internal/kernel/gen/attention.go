package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Attention works on blocks of scores that stay in the caches, with a lane for
// each query and a row for each key. All functions of this file take a pointer
// to one of package kernel's structs attnProduct and attnPass; the offsets of
// their fields are checked there.

// Fields of attnProduct.
const (
	prodTiles, prodK, prodDK   = 0, 8, 16
	prodA, prodLDA, prodDA     = 24, 32, 40
	prodB, prodLDB, prodDB     = 48, 56, 64
	prodC, prodLDC             = 72, 80
	prodScale, prodAcc         = 88, 96
	prodLater                  = 104
	attnVectors                = 2   // registers of a row of scores
	laneField                  = 256 // bytes of a field of attnLanes
	laneMax, laneSum, laneGrow = 0 * laneField, 1 * laneField, 2 * laneField
	laneKeyA, laneKeyB         = 3 * laneField, 4 * laneField
	laneLSE, laneDelta         = 5 * laneField, 6 * laneField
)

// Fields of attnPass.
const (
	passS, passDS, passP, passDSRows, passDSCols = 0, 8, 16, 24, 32
	passLanes, passFull, passMasked              = 40, 48, 56
	passC, passScale, passBelow, passKeep, passJ = 64, 68, 72, 76, 80
)

// attnTile is the micro-kernel of attention: tiles of mr rows by nv registers.
type attnTile struct {
	l        level
	mr, nv   int
	cols     bool // A is stored [k][m]; else [m][k]
	multiply func(acc, b, a int)

	a, b, k, lda, ldb Register
	odd               [8]Register // multiples 1, 3, 5 and 7 of lda
	later             aheadCode
}

func (l level) attnRows() int { // rows of a tile
	if l.wide() {
		return 8
	}
	return 6
}

func (l level) attnBlock() int { // queries and keys of a block
	if l.wide() {
		return 64
	}
	return 48
}

// attentionProducts emits the products with a stored A of either order.
func attentionProducts(l level) {
	fma := func(acc, b, a int) { VFMADD231PS(l.reg[b], l.reg[a], l.reg[acc]) }
	both := func(nv int, suffix string, multiply func(acc, b, a int)) {
		(&attnTile{l: l, mr: l.attnRows(), nv: nv, multiply: multiply}).emit("attnRows" + suffix)
		(&attnTile{l: l, mr: l.attnRows(), nv: nv, multiply: multiply, cols: true}).emit("attnCols" + suffix)
	}
	both(attnVectors, l.suffix, fma)
	if l.wide() {
		both(attnVectors, "BF16", dpBF16)
		both(attnVectors+1, "Wide"+l.suffix, fma)
		both(attnVectors+1, "WideBF16", dpBF16)
	}
}

// element is where row r of A lies, step u of those that are unrolled.
func (t *attnTile) element(r, u int) Mem {
	switch {
	case t.cols:
		return Mem{Base: t.a, Disp: 4 * r}
	case r == 0:
		return Mem{Base: t.a, Disp: 4 * u}
	}
	scale := 1
	for r%2 == 0 {
		r, scale = r/2, scale*2
	}
	return Mem{Base: t.a, Index: t.odd[r], Scale: uint8(scale), Disp: 4 * u}
}

// steps is n steps of the sum.
func (t *attnTile) steps(n int) {
	acc := t.mr * t.nv
	spare := len(t.l.reg) - acc - t.nv
	for u := range n {
		if u%2 == 1 { // twice in a loop of four
			t.later.line()
		}
		for v := range t.nv {
			VMOVUPS(Mem{Base: t.b, Disp: v * t.l.bytes}, t.l.reg[acc+v])
		}
		ADDQ(t.ldb, t.b)
		for r := range t.mr {
			bc := acc + t.nv + r%spare
			VBROADCASTSS(t.element(r, u), t.l.reg[bc])
			for v := range t.nv {
				t.multiply(r*t.nv+v, acc+v, bc)
			}
		}
		if t.cols {
			ADDQ(t.lda, t.a)
		}
	}
	if !t.cols {
		ADDQ(Imm(uint64(4*n)), t.a)
	}
}

func (t *attnTile) emit(name string) {
	const unroll = 4
	TEXT(name, NOSPLIT, "func(p *byte)")
	Pragma("noescape")
	p := Load(Param("p"), GP64())
	field := func(off int) Mem { return Mem{Base: p, Disp: off} }
	get := func(off int) Register {
		r := GP64()
		MOVQ(field(off), r)
		return r
	}
	// What changes from tile to tile lives on the stack: pointers that have moved
	// past the end of their memory must not be seen by the garbage collector.
	local := AllocLocal(8 * 5)
	moving := map[int]Mem{}
	for i, off := range []int{prodA, prodB, prodK, prodScale, prodTiles} {
		moving[off] = local.Offset(8 * i)
		r := get(off)
		MOVQ(r, moving[off])
	}
	t.lda, t.ldb = get(prodLDA), get(prodLDB)
	for _, m := range []int{1, 3, 5, 7} {
		switch {
		case t.cols || m >= t.mr:
		case m == 1:
			t.odd[1] = t.lda
		default:
			r := GP64()
			LEAQ(Mem{Base: t.odd[m-2], Index: t.lda, Scale: 2}, r)
			t.odd[m] = r
		}
	}
	c := get(prodC)
	t.a, t.b, t.k = GP64(), GP64(), GP64()
	rows := func(f func(r int, m func(v int) Mem)) {
		row, ldc := GP64(), GP64()
		MOVQ(field(prodLDC), ldc)
		MOVQ(c, row)
		for r := range t.mr {
			f(r, func(v int) Mem { return Mem{Base: row, Disp: v * t.l.bytes} })
			ADDQ(ldc, row)
		}
		MOVQ(row, c)
	}
	t.later.load(func() Register { return get(prodLater) })
	l := t.l
	Label("tile")
	MOVQ(moving[prodA], t.a)
	MOVQ(moving[prodB], t.b)
	MOVQ(moving[prodK], t.k)
	for i := range t.mr * t.nv {
		l.zero(i)
	}
	SUBQ(Imm(unroll), t.k)
	JL(LabelRef("tail"))
	Label("loop")
	t.steps(unroll)
	SUBQ(Imm(unroll), t.k)
	JGE(LabelRef("loop"))
	Label("tail")
	ADDQ(Imm(unroll), t.k)
	JZ(LabelRef("done"))
	Label("single")
	t.steps(1)
	DECQ(t.k)
	JNZ(LabelRef("single"))
	Label("done")
	// where the next tile is
	for _, step := range [][2]int{{prodA, prodDA}, {prodB, prodDB}, {prodK, prodDK}} {
		MOVQ(field(step[1]), t.k)
		ADDQ(t.k, moving[step[0]])
	}
	spare := t.mr*t.nv + t.nv
	MOVQ(moving[prodScale], t.k)
	TESTQ(t.k, t.k)
	JZ(LabelRef("plain"))
	rows(func(r int, m func(v int) Mem) {
		VBROADCASTSS(Mem{Base: t.k, Disp: 4 * r}, l.reg[spare])
		for v := range t.nv {
			VFMADD231PS(m(v), l.reg[spare], l.reg[r*t.nv+v])
			VMOVUPS(l.reg[r*t.nv+v], m(v))
		}
	})
	ADDQ(Imm(uint64(4*t.mr)), moving[prodScale])
	JMP(LabelRef("next"))
	Label("plain")
	MOVQ(field(prodAcc), t.k)
	TESTQ(t.k, t.k)
	JZ(LabelRef("store"))
	rows(func(r int, m func(v int) Mem) {
		for v := range t.nv {
			VADDPS(m(v), l.reg[r*t.nv+v], l.reg[r*t.nv+v])
			VMOVUPS(l.reg[r*t.nv+v], m(v))
		}
	})
	JMP(LabelRef("next"))
	Label("store")
	rows(func(r int, m func(v int) Mem) {
		for v := range t.nv {
			VMOVUPS(l.reg[r*t.nv+v], m(v))
		}
	})
	Label("next")
	DECQ(moving[prodTiles])
	JNZ(LabelRef("tile"))
	t.later.end()
}

// attentionRows emits what moves rows between matrices of different strides,
// which are in bytes.
func attentionRows(l level) {
	rows := func(name, signature string) (n, cols Register, body func(ptrs []Register, strides []string, each func(cur []Register))) {
		l.text(name, signature)
		n, cols = Load(Param("rows"), GP64()), Load(Param("cols"), GP64())
		return n, cols, func(ptrs []Register, strides []string, each func(cur []Register)) {
			cur := make([]Register, len(ptrs))
			for i := range cur {
				cur[i] = GP64()
			}
			Label("row")
			for i, p := range ptrs {
				MOVQ(p, cur[i])
			}
			each(cur)
			for i, p := range ptrs {
				s := GP64()
				Load(Param(strides[i]), s)
				ADDQ(s, p)
			}
			DECQ(n)
			JNZ(LabelRef("row"))
			end()
		}
	}
	r := l.reg

	// dst = src*factor, a factor for each row, step bytes apart
	_, cols, body := rows("attnScale", "func(dst *float32, ldd int, src *float32, lds int, factor *float32, step, rows, cols int)")
	d, s, f := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("factor"), GP64())
	body([]Register{d, s, f}, []string{"ldd", "lds", "step"}, func(cur []Register) {
		n := GP64()
		MOVQ(cols, n)
		VBROADCASTSS(at(cur[2]), r[1])
		l.loop(n, cur[:2], func(m bool) {
			l.load(at(cur[1]), r[0], m)
			VMULPS(r[1], r[0], r[0])
			l.store(r[0], at(cur[0]), m)
		})
	})

	// dst = the products of the rows of x and y
	_, cols, body = rows("attnDots", "func(dst *float32, x *float32, ldx int, y *float32, ldy int, rows, cols int)")
	d, x, y := Load(Param("dst"), GP64()), Load(Param("x"), GP64()), Load(Param("y"), GP64())
	body([]Register{x, y}, []string{"ldx", "ldy"}, func(cur []Register) {
		n := GP64()
		MOVQ(cols, n)
		l.zero(0)
		l.loop(n, cur, func(m bool) {
			l.load(at(cur[0]), r[1], m)
			l.load(at(cur[1]), r[2], m)
			VFMADD231PS(r[1], r[2], r[0])
		})
		l.fold(0, 1, addPS)
		VMOVSS(X0, at(d))
		ADDQ(Imm(4), d)
	})
	if !l.wide() {
		return
	}

	// dst = src rounded to bf16, each row filled up with zeros to a multiple of 32
	TEXT("attnBF16", NOSPLIT, "func(dst *float32, ldd int, src *float32, lds int, rows, cols int)")
	Pragma("noescape")
	n := Load(Param("rows"), GP64())
	d, s = Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	ldd, lds := Load(Param("ldd"), GP64()), Load(Param("lds"), GP64())
	cols = Load(Param("cols"), GP64())
	to, from, left, ones, mask := GP64(), GP64(), GP64(), GP64(), GP64()
	MOVL(U32(0xffffffff), ones.As32())
	Label("row")
	MOVQ(d, to)
	MOVQ(s, from)
	MOVQ(cols, left)
	Label("piece")
	MOVL(ones.As32(), mask.As32())
	CMPQ(left, Imm(32))
	JGE(LabelRef("whole"))
	BZHIL(left.As32(), ones.As32(), mask.As32())
	Label("whole")
	KMOVW(mask.As32(), K1)
	SHRL(U8(16), mask.As32())
	KMOVW(mask.As32(), K2)
	VMOVUPS_Z(at(from), K1, Z0)
	VMOVUPS_Z(Mem{Base: from, Disp: 64}, K2, Z1)
	cvtBF16(2, 1, 0)
	VMOVUPS(Z2, at(to))
	ADDQ(Imm(128), from)
	ADDQ(Imm(64), to)
	SUBQ(Imm(32), left)
	JG(LabelRef("piece"))
	ADDQ(ldd, d)
	ADDQ(lds, s)
	DECQ(n)
	JNZ(LabelRef("row"))
	end()
}

// passName is the name of a pass over scores.
func passName(name string, drop, bf16 bool, l level) string {
	if drop {
		name += "Drop"
	}
	if bf16 {
		return name + "BF16"
	}
	return fmt.Sprint(name, l.suffix)
}

// laneNumbers hold the numbers of lanes, each entry from eight more on.
var laneNumbers [4]Mem

func attentionConstants() {
	fill := func(name string, word func(i int) uint32) Mem {
		m := GLOBL(name, RODATA|NOPTR)
		for i := range 16 {
			DATA(4*i, U32(word(i)))
		}
		return m
	}
	laneMask = fill("laneMask", func(i int) uint32 { return uint32(int32(i-8) >> 31) })
	zip = fill("zip", func(i int) uint32 { return uint32(i) | uint32(i+16)<<16 })
	laneNumbers[0] = fill("lane0", func(i int) uint32 { return uint32(i) })
	laneNumbers[1] = fill("lane8", func(i int) uint32 { return uint32(i + 8) })
	laneNumbers[2] = fill("lane16", func(i int) uint32 { return uint32(i + 16) })
	for _, name := range []string{"one", "e1", "e2", "e3", "e4", "e5", "e_least"} {
		values[name] = fill("f_"+name, func(int) uint32 { return math.Float32bits(float32(floats[name])) })
	}
	for _, name := range []string{"bit0", "mul1", "mul2"} {
		values[name] = fill("i_"+name, func(int) uint32 { return ints[name] })
	}
}
