package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	tileSignature   = "func(tiles, k int, a *float32, da int, b, c *float32, ldc, acc int, later *int)"
	directSignature = "func(tiles, k int, a *float32, da int, b *float32, ldb int, c *float32, ldc, acc int)"
)

// tileCode is a micro-kernel: mr rows of nv registers each accumulate in
// registers 0…mr*nv-1 while B comes in whole registers and A is broadcast. It
// computes tiles below one another, which meet the same B.
type tileCode struct {
	l          level
	mr, nv     int
	unroll     int
	multiply   func(acc, b, a int)
	k, a, b, c Register
	ldb        Register // of a direct tile, whose B is not packed: bytes between its rows
	ahead      Register // eight of them
	next       Register // of packed B: what the call after this one reads
	later      aheadCode
}

func (t *tileCode) breg(j int) int { return t.mr*t.nv + j }

// step is one k: element u of those that are unrolled.
func (t *tileCode) step(u int) {
	for j := range t.nv {
		m := Mem{Base: t.b, Disp: (u*t.nv + j) * t.l.bytes}
		if t.ldb != nil {
			m.Disp = j * t.l.bytes
			PREFETCHT0(Mem{Base: t.b, Index: t.ahead, Scale: 1, Disp: m.Disp})
		}
		VMOVUPS(m, t.l.reg[t.breg(j)])
	}
	if t.ldb != nil {
		ADDQ(t.ldb, t.b)
	}
	spare := len(t.l.reg) - t.mr*t.nv - t.nv
	for i := range t.mr {
		bc := t.mr*t.nv + t.nv + i%spare
		VBROADCASTSS(Mem{Base: t.a, Disp: (u*t.mr + i) * 4}, t.l.reg[bc])
		for j := range t.nv {
			t.multiply(i*t.nv+j, t.breg(j), bc)
		}
	}
}

func (t *tileCode) advance(steps int) {
	ADDQ(U32(uint32(steps*t.mr*4)), t.a)
	if t.ldb == nil {
		ADDQ(U32(uint32(steps*t.nv*t.l.bytes)), t.b)
	}
}

func (t *tileCode) emit(name string, direct bool) {
	signature := tileSignature
	if direct {
		signature = directSignature
	}
	TEXT(name, NOSPLIT, signature)
	Pragma("noescape")
	if direct {
		t.ldb, t.ahead = Load(Param("ldb"), GP64()), GP64()
		SHLQ(Imm(2), t.ldb)
		MOVQ(t.ldb, t.ahead)
		SHLQ(Imm(3), t.ahead)
	} else {
		t.next = t.whatFollows()
		t.later.load(func() Register { return Load(Param("later"), GP64()) })
	}
	tiles, nextA := Load(Param("tiles"), GP64()), Load(Param("a"), GP64())
	t.k, t.a, t.b, t.c = GP64(), GP64(), GP64(), Load(Param("c"), GP64())
	ldc := Load(Param("ldc"), GP64())
	SHLQ(Imm(2), ldc)
	Label("tile")
	Load(Param("k"), t.k)
	Load(Param("b"), t.b)
	MOVQ(nextA, t.a)
	t.one(ldc)
	da := Load(Param("da"), GP64())
	LEAQ(Mem{Base: nextA, Index: da, Scale: 4}, nextA)
	DECQ(tiles)
	JNZ(LabelRef("tile"))
	if direct {
		end()
		return
	}
	t.later.end()
}

// whatFollows is where the panel ends that all tiles of a call meet, and the one
// begins that those of the call after it will. The tiles fetch it while they
// compute, since packed B lies beyond a core's own caches.
func (t *tileCode) whatFollows() Register {
	next := Load(Param("k"), GP64())
	IMUL3Q(U32(uint32(t.nv*t.l.bytes)), next, next)
	ADDQ(Load(Param("b"), GP64()), next)
	return next
}

// one computes the tile at a, b and c, and leaves c at the tile below it.
func (t *tileCode) one(ldc Register) {
	row := GP64()
	rows := func(f func(i, j int, m Mem)) {
		MOVQ(t.c, row)
		for i := range t.mr {
			for j := range t.nv {
				f(i, j, Mem{Base: row, Disp: j * t.l.bytes})
			}
			ADDQ(ldc, row)
		}
	}
	rows(func(_, j int, m Mem) {
		if j*t.l.bytes%64 == 0 {
			PREFETCHT1(m)
		}
	})
	for i := range t.mr * t.nv {
		t.l.zero(i)
	}
	CMPQ(t.k, Imm(uint64(t.unroll)))
	JL(LabelRef("tail"))
	Label("loop")
	for p := 0; p < t.mr*4*t.unroll; p += 64 {
		PREFETCHT0(Mem{Base: t.a, Disp: t.mr*4*t.unroll*4 + p})
	}
	if t.next != nil {
		PREFETCHT1(Mem{Base: t.next})
		ADDQ(Imm(64), t.next)
		t.later.line()
	}
	for u := range t.unroll {
		t.step(u)
	}
	t.advance(t.unroll)
	SUBQ(Imm(uint64(t.unroll)), t.k)
	CMPQ(t.k, Imm(uint64(t.unroll)))
	JGE(LabelRef("loop"))
	Label("tail")
	TESTQ(t.k, t.k)
	JZ(LabelRef("done"))
	Label("single")
	t.step(0)
	t.advance(1)
	DECQ(t.k)
	JNZ(LabelRef("single"))
	Label("done")
	acc := Load(Param("acc"), GP64())
	TESTQ(acc, acc)
	JZ(LabelRef("store"))
	rows(func(i, j int, m Mem) { VADDPS(m, t.l.reg[i*t.nv+j], t.l.reg[i*t.nv+j]) })
	Label("store")
	rows(func(i, j int, m Mem) { VMOVUPS(t.l.reg[i*t.nv+j], m) })
	MOVQ(row, t.c)
}

func tileAVX512(name string, mr, nv int, bf16 bool) {
	t := tileCode{l: avx512, mr: mr, nv: nv, unroll: 4}
	t.multiply = func(acc, b, a int) { VFMADD231PS(zmm[b], zmm[a], zmm[acc]) }
	if bf16 {
		t.multiply = dpBF16
	}
	t.emit(name, false)
}

func tileAVX2() {
	t := tileCode{l: avx2, mr: 6, nv: 2, unroll: 4}
	t.multiply = func(acc, b, a int) { VFMADD231PS(ymm[b], ymm[a], ymm[acc]) }
	t.emit("tile6x16", false)
}

// directTile multiplies few rows by a B that is left where it is: reading it
// once is all there is to do, and packing would read it twice.
func directTile(l level, name string, mr, nv int) {
	t := tileCode{l: l, mr: mr, nv: nv, unroll: 4}
	t.multiply = func(acc, b, a int) { VFMADD231PS(l.reg[b], l.reg[a], l.reg[acc]) }
	t.emit(name, true)
}
