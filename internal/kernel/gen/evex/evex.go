// Package evex encodes the instructions that neither Go's assembler nor avo
// knows, those of AVX512_BF16: EVEX (Intel SDM 2A, 2.7), 512 bits, map 0F38, W0,
// registers only.
package evex

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
)

// DPBF16 adds the products of the pairs of bf16 in registers a and b to acc.
func DPBF16(acc, a, b int) {
	Comment(fmt.Sprintf("VDPBF16PS Z%d, Z%d, Z%d", b, a, acc))
	emit(0b10, 0x52, acc, a, b)
}

// CvtBF16 rounds registers hi and lo to bf16: lo into the lower half of dst.
func CvtBF16(dst, hi, lo int) {
	Comment(fmt.Sprintf("VCVTNE2PS2BF16 Z%d, Z%d, Z%d", lo, hi, dst))
	emit(0b11, 0x72, dst, hi, lo)
}

// emit writes an instruction with destination reg, first source vvvv and second
// source rm. EVEX stores the high bits of register numbers inverted.
func emit(prefix, opcode byte, reg, vvvv, rm int) {
	inv := func(n, bit int) byte { return byte(^n>>bit) & 1 }
	for _, b := range []byte{
		0x62,
		inv(reg, 3)<<7 | inv(rm, 4)<<6 | inv(rm, 3)<<5 | inv(reg, 4)<<4 | 0b010,
		byte(^vvvv&0xf)<<3 | 1<<2 | prefix,
		0b10<<5 | inv(vvvv, 4)<<3,
		opcode,
		0b11<<6 | byte(reg&7)<<3 | byte(rm&7),
	} {
		Instruction(&ir.Instruction{Opcode: "BYTE", Operands: []Op{U8(b)}})
	}
}
