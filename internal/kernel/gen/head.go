package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// expPast writes exp(x+off) of so many blocks of 32 to y, past the caches, and
// returns the sum. y begins on a cache line.
func expPast() {
	TEXT("expPast", NOSPLIT, "func(blocks int, y, x *float32, off float32) float32")
	Pragma("noescape")
	n, y, x := Load(Param("blocks"), GP64()), Load(Param("y"), GP64()), Load(Param("x"), GP64())
	const off, log2e, sum = 6, 7, 8 // and the register behind sum
	avx512.broadcast("off", off)
	VMOVUPS(val("log2e"), zmm[log2e])
	VMULPS(zmm[log2e], zmm[off], zmm[off])
	avx512.zero(sum)
	avx512.zero(sum + 1)
	Label("block")
	for i := range 2 {
		power, fraction, e := 3*i, 3*i+1, 3*i+2
		VMOVUPS(Mem{Base: x, Disp: 64 * i}, zmm[power])
		VFMADD213PS(zmm[off], zmm[log2e], zmm[power])
		avx512.exp2(power, fraction, e)
		VADDPS(zmm[power], zmm[sum+i], zmm[sum+i])
		VMOVNTPS(zmm[power], Mem{Base: y, Disp: 64 * i})
	}
	ADDQ(U32(128), y)
	ADDQ(U32(128), x)
	DECQ(n)
	JNZ(LabelRef("block"))
	VADDPS(zmm[sum+1], zmm[sum], Z0)
	avx512.fold(0, 1, addPS)
	Store(X0, ReturnIndex(0))
	end()
}

// expPanels writes exp(x-shift) of four rows and so many times 16 columns as pairs
// of bf16 to two panels of 8 columns each, panel bytes apart, past the caches: to a
// cache line of each, which is what four rows fill. The sums, before rounding, are
// lds bytes apart. Rows of x are ldx bytes apart.
func expPanels() {
	TEXT("expPanels", NOSPLIT, "func(blocks int, x *float32, ldx int, shift, y *float32, panel int, sums *float32, lds int)")
	Pragma("noescape")
	const rows, log2e, order = 4, 30, 31
	off, sum := func(i int) VecPhysical { return zmm[16+i] }, func(i int) VecPhysical { return zmm[20+i] }
	n, x, ldx := Load(Param("blocks"), GP64()), Load(Param("x"), GP64()), Load(Param("ldx"), GP64())
	y, panel, shift := Load(Param("y"), GP64()), Load(Param("panel"), GP64()), Load(Param("shift"), GP64())
	VMOVUPS(val("log2e"), zmm[log2e])
	VMOVUPS(zip, zmm[order])
	for i := range rows {
		VXORPS(sum(i), sum(i), sum(i))
		VXORPS(off(i), off(i), off(i))
		VBROADCASTSS(Mem{Base: shift, Disp: 4 * i}, Z0)
		VFNMADD231PS(Z0, zmm[log2e], off(i))
	}
	row := []Register{x, GP64(), GP64(), GP64()}
	for i := 1; i < rows; i++ {
		LEAQ(Mem{Base: row[i-1], Index: ldx, Scale: 1}, row[i])
	}
	Label("block")
	for i := range rows {
		power, fraction, e := 3*i, 3*i+1, 3*i+2
		VMOVUPS(at(row[i]), zmm[power])
		ADDQ(Imm(64), row[i])
		VFMADD213PS(off(i), zmm[log2e], zmm[power])
		avx512.exp2Half(power, fraction, e)
		VADDPS(zmm[power], sum(i), sum(i))
	}
	for pair := range 2 {
		cvtBF16(12, 6*pair+3, 6*pair)
		VPERMW(Z12, zmm[order], zmm[13+pair])
	}
	VSHUFI64X2(U8(0x44), Z14, Z13, Z0)
	VSHUFI64X2(U8(0xee), Z14, Z13, Z1)
	VMOVNTPS(Z0, at(y))
	VMOVNTPS(Z1, Mem{Base: y, Index: panel, Scale: 1})
	LEAQ(Mem{Base: y, Index: panel, Scale: 2}, y)
	DECQ(n)
	JNZ(LabelRef("block"))
	to, lds := Load(Param("sums"), GP64()), Load(Param("lds"), GP64())
	for i := range rows {
		VMOVAPS(sum(i), Z0)
		avx512.fold(0, 1, addPS)
		VMOVSS(X0, at(to))
		ADDQ(lds, to)
	}
	end()
}

// turnPanels makes, of six pairs of rows in each of so many such panels, packed rows
// of A for a product over the panels' columns: of each panel four pairs of columns,
// twelve rows side by side.
func turnPanels() {
	const rows, columns, words, panelsAhead, rowsAhead = 12, 8, 32, 8, 24
	type selection struct {
		both, third Mem // words of the first two registers, of the third
		of          uint32
	}
	var selections [rows * columns / words]selection
	for o := range selections {
		s := &selections[o]
		var both, third [words]int
		for w := range words {
			to := o*words + w
			pair, row, odd := to/(2*rows), to%(2*rows)/2, to%2
			if from := (row/2*columns+2*pair+odd)*2 + row%2; from < 2*words {
				both[w] = from
			} else {
				third[w] = from - 2*words
				s.of |= 1 << w
			}
		}
		s.both, s.third = wordTable(fmt.Sprintf("turnBoth%d", o), both), wordTable(fmt.Sprintf("turnThird%d", o), third)
	}
	TEXT("turnPanels", NOSPLIT, "func(panels int, src *float32, panel int, dst *float32)")
	Pragma("noescape")
	n, src, panel, dst := Load(Param("panels"), GP64()), Load(Param("src"), GP64()), Load(Param("panel"), GP64()), Load(Param("dst"), GP64())
	masks, mask, ahead := []Register{K1, K2, K3}, GP32(), GP64()
	for o, s := range selections {
		VMOVUPS(s.both, zmm[20+o])
		VMOVUPS(s.third, zmm[23+o])
		MOVL(U32(s.of), mask)
		KMOVD(mask, masks[o])
	}
	MOVQ(panel, ahead)
	IMUL3Q(Imm(panelsAhead), ahead, ahead)
	Label("panel")
	for i := range selections {
		PREFETCHT1(Mem{Base: src, Disp: rowsAhead/2*columns*4 + 64*i}) // of the next calls but one
		PREFETCHT0(Mem{Base: src, Index: ahead, Scale: 1, Disp: 64 * i})
		VMOVUPS(Mem{Base: src, Disp: 64 * i}, zmm[i])
	}
	for o := range selections {
		to := zmm[10+o]
		VMOVAPS(zmm[20+o], to)
		VPERMI2W(Z1, Z0, to)
		VPERMW(Z2, zmm[23+o], masks[o], to)
		VMOVUPS(to, Mem{Base: dst, Disp: 64 * o})
	}
	ADDQ(panel, src)
	ADDQ(U32(rows*columns*2), dst)
	DECQ(n)
	JNZ(LabelRef("panel"))
	end()
}

// wordTable is a constant of 32 words.
func wordTable(name string, words [32]int) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i, w := range words {
		DATA(2*i, U16(uint16(w)))
	}
	return m
}
