package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// limits are the loops that measure the machine: independent multiply-adds in
// enough registers to hide their latency, and reading.
func limits() {
	peak("peakAVX512", 24, avx512, func(i int) { VFMADD231PS(Z30, Z31, zmm[i]) })
	peak("peakAVX2", 12, avx2, func(i int) { VFMADD231PS(Y14, Y15, ymm[i]) })
	peak("peakBF16", 24, avx512, func(i int) { dpBF16(i, 30, 31) })
	for _, l := range []level{avx512, avx2} {
		l.text("read", "func(x []float32)") // a multiple of eight registers
		n, x := length("x"), base("x")
		Label("more")
		for i := range 8 {
			VORPS(Mem{Base: x, Disp: i * l.bytes}, l.reg[i], l.reg[i])
		}
		ADDQ(U32(uint32(8*l.bytes)), x)
		SUBQ(U32(uint32(8*l.lanes())), n)
		JNZ(LabelRef("more"))
		end()
	}
}

// peak repeats op on n registers, rounds times.
func peak(name string, n int, l level, op func(i int)) {
	TEXT(name, NOSPLIT, "func(rounds int)")
	k := Load(Param("rounds"), GP64())
	for i := range l.reg {
		l.zero(i)
	}
	Label("loop")
	for i := range n {
		op(i)
	}
	DECQ(k)
	JNZ(LabelRef("loop"))
	end()
}
