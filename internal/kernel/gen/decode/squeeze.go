package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"

	"promptgen/internal/kernel/gen/evex"
)

// A squeezed block is 16 steps of pairs of bf16 as codes of 4 bits for their upper
// bytes and the lower bytes as they are; for two steps 64 bytes of codes, then
// twice 64 lower bytes. Its head is the table's first entry and, in the upper 16
// bits, the steps to which a patch is XORed.
const (
	pairBytes   = 192
	pairsABlock = 8
	squeezeHead = 4
)

// unsqueezing is what undoing a block needs. Patches are seldom, so that they are
// put in behind the function's end.
type unsqueezing struct {
	regs                  []VecPhysical
	width                 int
	nibbles, upper, table VecPhysical
	head, patch, flags    Register
	late                  []func()
}

// unsqueeze takes the last three of regs.
func unsqueeze(regs []VecPhysical) *unsqueezing {
	n := len(regs)
	q := &unsqueezing{regs: regs, width: 2 * n, nibbles: regs[n-1], upper: regs[n-2], table: regs[n-3]}
	q.head, q.patch, q.flags = Load(Param("head"), GP64()), Load(Param("patches"), GP64()), GP32()
	VMOVUPS(lowNibbles, q.nibbles)
	VMOVUPS(upperBytes, q.upper)
	return q
}

// block begins one.
func (q *unsqueezing) block() {
	VPBROADCASTB(Mem{Base: q.head}, q.table)
	VPADDB(q.upper, q.table, q.table)
	MOVL(Mem{Base: q.head}, q.flags)
	ADDQ(Imm(squeezeHead), q.head)
}

// codes loads those of a pair of steps, one register each.
func (q *unsqueezing) codes(from Mem, codes [2]VecPhysical) {
	VMOVUPS(from, codes[0])
	VPSRLW(U8(4), codes[0], codes[1])
	for _, c := range codes {
		if q.width == 64 {
			VPANDD(q.nibbles, c, c)
		} else {
			VPAND(q.nibbles, c, c)
		}
	}
}

// words makes a step's weights of its codes and lower bytes; code and lower end
// in rubble.
func (q *unsqueezing) words(code VecPhysical, from Mem, lower, first, last VecPhysical) {
	VPSHUFB(code, q.table, code)
	VMOVUPS(from, lower)
	VPUNPCKLBW(code, lower, first)
	VPUNPCKHBW(code, lower, last)
}

// patches puts right step i of a block, which lies in so many registers.
func (q *unsqueezing) patches(i int, words ...VecPhysical) {
	patch, back := fmt.Sprintf("patch%d", i), fmt.Sprintf("right%d", i)
	BTL(U8(uint8(16+i)), q.flags)
	JCS(LabelRef(patch))
	Label(back)
	q.late = append(q.late, func() {
		Label(patch)
		for n, w := range words {
			if q.width == 64 {
				VPXORD(Mem{Base: q.patch, Disp: n * q.width}, w, w)
			} else {
				VPXOR(Mem{Base: q.patch, Disp: n * q.width}, w, w)
			}
		}
		ADDQ(U32(panelBytes), q.patch)
		JMP(LabelRef(back))
	})
}

// end is where the patches are.
func (q *unsqueezing) end() {
	for _, f := range q.late {
		f()
	}
}

// expand makes panels of bf16 out of blocks.
func expand(name string, regs []VecPhysical) {
	TEXT(name, NOSPLIT, "func(blocks int, from, head, patches, panel *byte)")
	Pragma("noescape")
	n, from, to := Load(Param("blocks"), GP64()), Load(Param("from"), GP64()), Load(Param("panel"), GP64())
	q := unsqueeze(regs)
	parts := 64 / q.width
	Label("block")
	q.block()
	for pair := range pairsABlock {
		at := func(line, part int) Mem {
			return Mem{Base: from, Disp: pair*pairBytes + 64*line + part*q.width}
		}
		var codes [2][2]VecPhysical // of parts, of steps
		for part := range parts {
			codes[part] = [2]VecPhysical{regs[2*part], regs[2*part+1]}
			q.codes(at(0, part), codes[part])
		}
		for step := range 2 {
			const lower, first = 4, 6
			words := regs[first:][:2*parts] // in the order of memory: the first halves of all parts, the last
			for part := range parts {
				q.words(codes[part][step], at(1+step, part), regs[lower+part], words[part], words[parts+part])
			}
			q.patches(2*pair+step, words...)
			for i, w := range words {
				VMOVUPS(w, Mem{Base: to, Disp: (2*pair+step)*panelBytes + i*q.width})
			}
		}
	}
	ADDQ(U32(pairsABlock*pairBytes), from)
	ADDQ(U32(2*pairsABlock*panelBytes), to)
	DECQ(n)
	JNZ(LabelRef("block"))
	end()
	q.end()
}

// fetch asks for so many lines, in the second cache.
func fetch() {
	TEXT("fetchLines", NOSPLIT, "func(lines int, from *byte)")
	Pragma("noescape")
	n, from := Load(Param("lines"), GP64()), Load(Param("from"), GP64())
	Label("line")
	PREFETCHT1(Mem{Base: from})
	ADDQ(Imm(64), from)
	DECQ(n)
	JNZ(LabelRef("line"))
	RET()
}

// squeezedTile multiplies blocks without expanding them in memory: what a tile
// of pairs of bf16 does, to the bit.
func squeezedTile(m int) {
	t := beginAs("func(k int, a *byte, lda int, b, head, patches *byte, c *float32, ldc, acc int)", "tileSqueezed512", zmm, m)
	q := unsqueeze(zmm)
	const codes, lower, first, last = 27, 26, 25, 24
	Label("block")
	q.block()
	for pair := range pairsABlock {
		at := func(line int) Mem { return Mem{Base: t.b, Disp: pair*pairBytes + 64*line} }
		for line := range 3 {
			m := at(line)
			m.Disp += 2 * ahead
			PREFETCHT0(m)
		}
		q.codes(at(0), [2]VecPhysical{zmm[codes], zmm[codes+1]})
		for step := range 2 {
			q.words(zmm[codes+step], at(1+step), zmm[lower], zmm[first], zmm[last])
			q.patches(2*pair+step, zmm[first], zmm[last])
			for i := range m {
				a := 2*m + i%(last-2*m)
				VBROADCASTSS(t.row(i, 4*(2*pair+step)), zmm[a])
				evex.DPBF16(2*i, a, first)
				evex.DPBF16(2*i+1, a, last)
			}
		}
	}
	t.advance(4*2*pairsABlock, pairsABlock*pairBytes)
	DECQ(t.k)
	JNZ(LabelRef("block"))
	t.finish()
	q.end()
}

// squeeze makes blocks of a panel, and tells which upper bytes lie below a
// block's base.
func squeeze() {
	TEXT("squeezeAVX512", NOSPLIT, "func(blocks int, panel, to, head *byte, missed *uint64)")
	Pragma("noescape")
	n, from, to := Load(Param("blocks"), GP64()), Load(Param("panel"), GP64()), Load(Param("to"), GP64())
	head, missed := Load(Param("head"), GP64()), Load(Param("missed"), GP64())
	const top, lowers, mags, sevens, eights, base = 0, 16, 17, 18, 19, 20
	VMOVUPS(lowerBytes, zmm[lowers])
	VMOVUPS(magnitude, zmm[mags])
	VMOVUPS(lowThree, zmm[sevens])
	VMOVUPS(bitThree, zmm[eights])
	Label("block")
	VPXORD(zmm[top], zmm[top], zmm[top])
	for i := range 4 * pairsABlock {
		VPSRLW(Imm(8), Mem{Base: from, Disp: 64 * i}, Z2)
		VPANDD(zmm[mags], Z2, Z2)
		VPMAXUB(Z2, zmm[top], zmm[top])
	}
	VPSRLD(Imm(16), zmm[top], Z1)
	VPMAXUB(Z1, zmm[top], zmm[top])
	VPSLLD(Imm(24), zmm[top], zmm[top])
	VPSRLD(Imm(24), zmm[top], zmm[top])
	foldInt(top, 1, func(a, b, dst Op) { VPMAXSD(a, b, dst) })
	first, none := GP32(), GP32()
	VMOVD(X0, first)
	XORL(none, none)
	SUBL(Imm(7), first)
	CMOVLLT(none, first)
	MOVB(first.As8(), Mem{Base: head})
	VMOVD(first, X1)
	VPBROADCASTB(X1, zmm[base])
	for pair := range pairsABlock {
		const code, lower, upper = 4, 6, 8
		for step := range 2 {
			c, lo, up, spare := zmm[code+step], zmm[lower], zmm[upper], zmm[upper+1]
			halves := [2]Mem{{Base: from, Disp: (2*pair + step) * panelBytes}, {Base: from, Disp: (2*pair+step)*panelBytes + 64}}
			VPANDD(halves[0], zmm[lowers], lo)
			VPANDD(halves[1], zmm[lowers], spare)
			VPACKUSWB(spare, lo, lo)
			VMOVUPS(lo, Mem{Base: to, Disp: pair*pairBytes + 64*(1+step)})
			VPSRLW(Imm(8), halves[0], up)
			VPSRLW(Imm(8), halves[1], spare)
			VPACKUSWB(spare, up, up)
			VPANDD(zmm[mags], up, c)
			VPCMPUB(Imm(1), zmm[base], c, K1) // less
			KMOVQ(K1, Mem{Base: missed, Disp: 8 * (2*pair + step)})
			VPSUBB(zmm[base], c, c)
			VPANDD(zmm[sevens], c, c)
			VPSRLW(Imm(4), up, up)
			VPANDD(zmm[eights], up, up)
			VPORD(up, c, c)
		}
		VPSLLW(Imm(4), zmm[code+1], zmm[code+1])
		VPORD(zmm[code], zmm[code+1], zmm[code])
		VMOVUPS(zmm[code], Mem{Base: to, Disp: pair * pairBytes})
	}
	ADDQ(Imm(squeezeHead), head)
	ADDQ(U32(2*8*pairsABlock), missed)
	ADDQ(U32(pairsABlock*pairBytes), to)
	ADDQ(U32(2*pairsABlock*panelBytes), from)
	DECQ(n)
	JNZ(LabelRef("block"))
	end()
}
