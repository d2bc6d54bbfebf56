package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"

	"promptgen/internal/kernel/gen/evex"
)

// A squeezed block is 16 ranks of 64 halves of weights as codes of 4 bits for
// their upper bytes and the lower bytes as they are; for two ranks 64 bytes of
// codes, then twice 64 lower bytes, and of fp32 the other halves. Its head is the
// table's first entry and, in the upper 16 bits, the ranks to which a patch is
// XORed.
const (
	rankBytes   = 128 // of halves that are not squeezed
	pairBytes   = 192
	floatBytes  = pairBytes + 2*rankBytes // of a pair of fp32
	pairsABlock = 8
	squeezeHead = 4
)

// unsqueezing is what undoing a block needs. Patches are seldom, so that they are
// put in behind the function's end.
type unsqueezing struct {
	width              int
	table              VecPhysical
	head, patch, flags Register
	pairs              Register // still to do in the block
	late               []func()
}

// unsqueeze takes the last of regs.
func unsqueeze(regs []VecPhysical) *unsqueezing {
	n := len(regs)
	q := &unsqueezing{width: 2 * n, table: regs[n-1]}
	q.head, q.patch, q.flags, q.pairs = Load(Param("head"), GP64()), Load(Param("patches"), GP64()), GP32(), GP32()
	return q
}

// blocks runs pair for all pairs of k blocks.
func (q *unsqueezing) blocks(k Register, pair func()) {
	Label("block")
	VPBROADCASTB(Mem{Base: q.head}, q.table)
	VPADDB(upperBytes, q.table, q.table)
	MOVL(Mem{Base: q.head}, q.flags)
	ADDQ(Imm(squeezeHead), q.head)
	MOVL(U32(pairsABlock), q.pairs)
	Label("pair")
	pair()
	SHRL(Imm(2), q.flags)
	DECL(q.pairs)
	JNZ(LabelRef("pair"))
	DECQ(k)
	JNZ(LabelRef("block"))
}

// codes loads those of a pair of ranks, one register each.
func (q *unsqueezing) codes(from Mem, codes [2]VecPhysical) {
	VMOVUPS(from, codes[0])
	VPSRLW(U8(4), codes[0], codes[1])
	for _, c := range codes {
		if q.width == 64 {
			VPANDD(lowNibbles, c, c)
		} else {
			VPAND(lowNibbles, c, c)
		}
	}
}

// words makes a rank's halves of its codes and lower bytes; code and lower end
// in rubble.
func (q *unsqueezing) words(code VecPhysical, from Mem, lower, first, last VecPhysical) {
	VPSHUFB(code, q.table, code)
	VMOVUPS(from, lower)
	VPUNPCKLBW(code, lower, first)
	VPUNPCKHBW(code, lower, last)
}

// patches puts right rank i of a pair, which lies in so many registers.
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
		ADDQ(U32(rankBytes), q.patch)
		JMP(LabelRef(back))
	})
}

// end is where the patches are.
func (q *unsqueezing) end() {
	for _, f := range q.late {
		f()
	}
}

// floats makes a step's weights of its lower halves and its upper ones, in whose
// register those of the last columns end.
func (q *unsqueezing) floats(from Mem, lower, upper, first VecPhysical) {
	VMOVUPS(from, lower)
	VPUNPCKLWD(upper, lower, first)
	VPUNPCKHWD(upper, lower, upper)
}

// form is what the weights of blocks become: pairs of bf16, floats of such pairs,
// two steps for one, or fp32, for which registers must be zmm.
type form int

const (
	pairs form = iota
	widened
	floats
)

// bytes is what two ranks take, and steps are those that they become.
func (f form) bytes() int {
	if f == floats {
		return floatBytes
	}
	return pairBytes
}

func (f form) steps() int {
	if f == pairs {
		return 2
	}
	return 4
}

// expand makes panels out of blocks.
func expand(name string, regs []VecPhysical, f form) {
	TEXT(name, NOSPLIT, "func(blocks int, from, head, patches, panel *byte)")
	Pragma("noescape")
	n, from, to := Load(Param("blocks"), GP64()), Load(Param("from"), GP64()), Load(Param("panel"), GP64())
	q := unsqueeze(regs)
	parts := 64 / q.width
	q.blocks(n, func() {
		ask(from, f.bytes())
		at := func(line, part int) Mem { return Mem{Base: from, Disp: 64*line + part*q.width} }
		var codes [2][2]VecPhysical // of parts, of ranks
		for part := range parts {
			codes[part] = [2]VecPhysical{regs[2*part], regs[2*part+1]}
			q.codes(at(0, part), codes[part])
		}
		for rank := range 2 {
			const lower, first = 4, 6
			words := regs[first:][:2*parts] // in the order of memory: the first halves of all parts, the last
			for part := range parts {
				q.words(codes[part][rank], at(1+rank, part), regs[lower+part], words[part], words[parts+part])
			}
			q.patches(rank, words...)
			for i, w := range words {
				switch f {
				case pairs:
					VMOVUPS(w, Mem{Base: to, Disp: rank*rankBytes + i*q.width})
				case widened:
					even, odd := regs[lower], Mem{Base: to, Disp: (2*rank+1)*panelBytes + i*q.width}
					halves(w, even)
					VMOVUPS(even, odd.Offset(-panelBytes))
					VMOVUPS(w, odd)
				case floats:
					step, columns := 2*rank+i, regs[first+2]
					q.floats(at(3+step, 0), regs[lower], w, columns)
					VMOVUPS(columns, Mem{Base: to, Disp: step * panelBytes})
					VMOVUPS(w, Mem{Base: to, Disp: step*panelBytes + 64})
				}
			}
		}
		ADDQ(U32(uint32(f.bytes())), from)
		ADDQ(U32(uint32(f.steps()*panelBytes)), to)
	})
	end()
	q.end()
}

// squeezedTile multiplies blocks as they are: what a tile of their form does, to
// the bit. It may leave in wide what it made of them.
func squeezedTile(name string, m int, f form, leave bool) {
	signature, wide := "func(k int, a *byte, lda int, b, head, patches *byte, c *float32, ldc int, from *float32, ldf int)", Register(nil)
	if leave {
		signature = "func(k int, a *byte, lda int, b, head, patches, wide *byte, c *float32, ldc int, from *float32, ldf int)"
	}
	t := beginAs(signature, name, zmm, m)
	if leave {
		wide = Load(Param("wide"), GP64())
	}
	q := unsqueeze(zmm)
	const codes, lower, first, other = 29, 28, 27, 26
	rest, product := other-2*m, func(acc, a, b int) { VFMADD231PS(zmm[b], zmm[a], zmm[acc]) }
	if f == pairs {
		rest, product = first-2*m, evex.DPBF16
	}
	multiply := func(step, b0, b1 int) {
		if leave {
			VMOVUPS(zmm[b0], Mem{Base: wide, Disp: step * panelBytes})
			VMOVUPS(zmm[b1], Mem{Base: wide, Disp: step*panelBytes + 64})
		}
		for i := range m {
			a := 2*m + i%rest
			VBROADCASTSS(t.row(i, 4*step), zmm[a])
			product(2*i, a, b0)
			product(2*i+1, a, b1)
		}
	}
	q.blocks(t.k, func() {
		at := func(line int) Mem { return Mem{Base: t.b, Disp: 64 * line} }
		if m > alone || f != floats && m > 1 {
			ask(t.b, f.bytes())
		}
		q.codes(at(0), [2]VecPhysical{zmm[codes], zmm[codes+1]})
		for rank := range 2 {
			last := codes + rank
			q.words(zmm[last], at(1+rank), zmm[lower], zmm[first], zmm[last])
			q.patches(rank, zmm[first], zmm[last])
			switch f {
			case pairs:
				multiply(rank, first, last)
			case widened:
				halves(zmm[first], zmm[other])
				halves(zmm[last], zmm[lower])
				multiply(2*rank, other, lower)
				multiply(2*rank+1, first, last)
			case floats:
				for i, upper := range []int{first, last} {
					q.floats(at(3+2*rank+i), zmm[lower], zmm[upper], zmm[other])
					multiply(2*rank+i, other, upper)
				}
			}
		}
		t.advance(4*f.steps(), f.bytes())
		if leave {
			ADDQ(U32(uint32(f.steps()*panelBytes)), wide)
		}
	})
	t.finish()
	q.end()
}

// split makes, of blocks of fp32, a panel of their upper halves in the same place,
// and takes the lower ones to where they lie beside what is squeezed.
func split() {
	TEXT("splitAVX512", NOSPLIT, "func(blocks int, panel, to *byte)")
	Pragma("noescape")
	n, from, to := Load(Param("blocks"), GP64()), Load(Param("panel"), GP64()), Load(Param("to"), GP64())
	halves := GP64()
	MOVQ(from, halves)
	SHLQ(Imm(3), n)
	VMOVUPS(lowerWords, Z31)
	Label("pair")
	for step := range 4 {
		for i := range 2 {
			m := Mem{Base: from, Disp: step*panelBytes + 64*i}
			VPANDD(m, Z31, zmm[i])
			VPSRLD(Imm(16), m, zmm[2+i])
		}
		VPACKUSDW(Z1, Z0, Z0)
		VPACKUSDW(Z3, Z2, Z2)
		VMOVUPS(Z0, Mem{Base: to, Disp: pairBytes + 64*step})
		VMOVUPS(Z2, Mem{Base: halves, Disp: 64 * step})
	}
	ADDQ(U32(4*panelBytes), from)
	ADDQ(U32(2*rankBytes), halves)
	ADDQ(U32(floatBytes), to)
	DECQ(n)
	JNZ(LabelRef("pair"))
	end()
}

// squeeze makes blocks of a panel, and tells which upper bytes lie below a
// block's base.
func squeeze() {
	TEXT("squeezeAVX512", NOSPLIT, "func(blocks, pair int, panel, to, head *byte, missed *uint64)")
	Pragma("noescape")
	n, from, to := Load(Param("blocks"), GP64()), Load(Param("panel"), GP64()), Load(Param("to"), GP64())
	stride, head, missed := Load(Param("pair"), GP64()), Load(Param("head"), GP64()), Load(Param("missed"), GP64())
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
	foldInt(top, func(a, b, dst Op) { VPMAXSD(a, b, dst) })
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
			halves := [2]Mem{{Base: from, Disp: (2*pair + step) * rankBytes}, {Base: from, Disp: (2*pair+step)*rankBytes + 64}}
			VPANDD(halves[0], zmm[lowers], lo)
			VPANDD(halves[1], zmm[lowers], spare)
			VPACKUSWB(spare, lo, lo)
			VMOVUPS(lo, Mem{Base: to, Disp: 64 * (1 + step)})
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
		VMOVUPS(zmm[code], Mem{Base: to})
		ADDQ(stride, to)
	}
	ADDQ(Imm(squeezeHead), head)
	ADDQ(U32(2*8*pairsABlock), missed)
	ADDQ(U32(2*pairsABlock*rankBytes), from)
	DECQ(n)
	JNZ(LabelRef("block"))
	end()
}
