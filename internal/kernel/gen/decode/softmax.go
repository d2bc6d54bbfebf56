package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"

	"promptgen/internal/kernel/gen/approx"
)

// scaled makes blocks of activations, each multiplied first by the 32 fp16 that
// lie at bytes into the next page.
func scaled(name string, regs []VecPhysical) {
	TEXT(name, NOSPLIT, "func(blocks int, x *float32, to *byte, zero int, pages *[]uint32, at int)")
	Pragma("noescape")
	b := newBlock(regs)
	n, x := Load(Param("blocks"), GP64()), Load(Param("x"), GP64())
	pages, at, page := Load(Param("pages"), GP64()), Load(Param("at"), GP64()), GP64()
	Label("block")
	MOVQ(Mem{Base: pages}, page)
	ADDQ(Imm(sliceBytes), pages)
	for i := range b.count {
		VMOVUPS(Mem{Base: x, Disp: b.bytes * i}, regs[i])
	}
	b.scale(Mem{Base: page, Index: at, Scale: 1})
	b.write()
	ADDQ(U32(128), x)
	DECQ(n)
	JNZ(LabelRef("block"))
	end()
}

// softmax makes such blocks of 2 to the power of scale*x+off, for n values x and
// zeros behind them, and returns the sum of these powers. Meanwhile it asks for the
// values of each page, which lie behind their scales: the memory would be idle.
func softmax() {
	TEXT("softmaxAVX512", NOSPLIT, "func(blocks, n int, x *float32, scale, off float32, to *byte, zero int, pages *[]uint32, at int) float32")
	Pragma("noescape")
	b := newBlock(zmm)
	blocks, n, x := Load(Param("blocks"), GP64()), Load(Param("n"), GP64()), Load(Param("x"), GP64())
	pages, at, page := Load(Param("pages"), GP64()), Load(Param("at"), GP64()), GP64()
	const power, fraction, sum, scale, off = 2, 3, 7, 16, 17
	VBROADCASTSS(argument("scale"), zmm[scale])
	VBROADCASTSS(argument("off"), zmm[off])
	var coefficients []Op
	for i, c := range exp2 {
		r := zmm[off+1+i]
		VMOVUPS(c, r)
		coefficients = append(coefficients, r)
	}
	VXORPS(zmm[sum], zmm[sum], zmm[sum])
	Label("block")
	MOVQ(Mem{Base: pages}, page)
	ADDQ(Imm(sliceBytes), pages)
	ADDQ(at, page)
	lanes, mask := GP64(), GP64() // of the values that are left
	MOVQ(U32(32), lanes)
	CMPQ(n, lanes)
	CMOVQLT(n, lanes)
	SUBQ(lanes, n)
	MOVQ(I32(-1), mask)
	BZHIQ(lanes, mask, mask)
	KMOVW(mask.As32(), K1)
	SHRQ(Imm(16), mask)
	KMOVW(mask.As32(), K2)
	for i, k := range []Register{K1, K2} {
		for line := range valueLines / 2 {
			PREFETCHT2(Mem{Base: page, Disp: scaleArea + 64*(2*line+i)})
		}
		v := zmm[i]
		VMOVUPS_Z(Mem{Base: x, Disp: 64 * i}, k, v)
		VFMADD213PS(zmm[off], zmm[scale], v)
		VREDUCEPS(U8(9), v, zmm[fraction])
		approx.Polynomial(coefficients, zmm[fraction], zmm[power])
		VSCALEFPS_Z(v, zmm[power], k, v)
		VADDPS(v, zmm[sum], zmm[sum])
	}
	b.scale(Mem{Base: page})
	b.write()
	ADDQ(U32(128), x)
	DECQ(blocks)
	JNZ(LabelRef("block"))
	fold(zmm, sum, 1, func(a, b, dst Op) { VADDPS(a, b, dst) })
	Store(xmm[sum], ReturnIndex(0))
	end()
}

// valueLines are the cache lines that a page's values take: of 64 columns, the
// usual ones.
const valueLines = 16
