package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// packTurnAVX2 is packTurn for blocks of 8 rows by 8 values. Rows i and i+4 share
// a register, so that what remains is to transpose 4 by 4 within its halves.
func packTurnAVX2() {
	avx2.text("packTurn", "func(blocks int, src *float32, offsets *[8]int, dst *float32, width, put int)")
	k, s, of, d := Load(Param("blocks"), GP64()), Load(Param("src"), GP64()), Load(Param("offsets"), GP64()), Load(Param("dst"), GP64())
	width := Load(Param("width"), GP64())
	avx2.mask(Load(Param("put"), GP64()))
	o := GP64()
	row := func(i, half int) Mem {
		MOVQ(Mem{Base: of, Disp: 8 * i}, o)
		return Mem{Base: s, Index: o, Scale: 1, Disp: 16 * half}
	}
	Label("block")
	for half := range 2 {
		for i := range 4 {
			VMOVUPS(row(i, half), xmm[i])
			VINSERTF128(U8(1), row(i+4, half), ymm[i], ymm[i])
		}
		VUNPCKLPS(Y1, Y0, Y4)
		VUNPCKHPS(Y1, Y0, Y5)
		VUNPCKLPS(Y3, Y2, Y6)
		VUNPCKHPS(Y3, Y2, Y7)
		VUNPCKLPD(Y6, Y4, Y0)
		VUNPCKHPD(Y6, Y4, Y1)
		VUNPCKLPD(Y7, Y5, Y2)
		VUNPCKHPD(Y7, Y5, Y3)
		for i := range 4 {
			VMASKMOVPS(ymm[i], Y15, at(d))
			ADDQ(width, d)
		}
	}
	ADDQ(Imm(32), s)
	DECQ(k)
	JNZ(LabelRef("block"))
	end()
}
