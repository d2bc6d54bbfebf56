package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// packCopy copies up to one register of each of k rows: it reads get floats and
// writes put floats, filling up with zeros. Strides are in bytes.
func packCopy(l level) {
	l.text("packCopy", "func(k int, src *float32, stride int, dst *float32, width, get, put int)")
	k, s, d := Load(Param("k"), GP64()), Load(Param("src"), GP64()), Load(Param("dst"), GP64())
	stride, width := Load(Param("stride"), GP64()), Load(Param("width"), GP64())
	ahead := GP64()
	MOVQ(stride, ahead)
	SHLQ(U8(3), ahead)
	get, put := Load(Param("get"), GP64()), Load(Param("put"), GP64())
	l.mask(put)
	if l.wide() {
		KMOVW(K1, K2)
	} else {
		VMOVUPS(Y15, Y14)
	}
	l.mask(get)
	Label("row")
	PREFETCHT0(Mem{Base: s, Index: ahead, Scale: 1})
	l.load(at(s), l.reg[0], true)
	if l.wide() {
		VMOVUPS(Z0, K2, at(d))
	} else {
		VMASKMOVPS(Y0, Y14, at(d))
	}
	ADDQ(stride, s)
	ADDQ(width, d)
	DECQ(k)
	JNZ(LabelRef("row"))
	end()
}

// packCopyBF16 does the same for pairs of rows, joined to pairs of bf16.
func packCopyBF16() {
	l := avx512
	TEXT("packCopyBF16", NOSPLIT, "func(pairs int, src *float32, stride int, dst *float32, width, get, put int)")
	Pragma("noescape")
	k, s, d := Load(Param("pairs"), GP64()), Load(Param("src"), GP64()), Load(Param("dst"), GP64())
	stride, width := Load(Param("stride"), GP64()), Load(Param("width"), GP64())
	ahead := GP64()
	MOVQ(stride, ahead)
	SHLQ(U8(3), ahead)
	get, put := Load(Param("get"), GP64()), Load(Param("put"), GP64())
	l.mask(put)
	KMOVW(K1, K2)
	l.mask(get)
	VMOVUPS(zip, Z4)
	Label("row")
	for _, reg := range []VecPhysical{Z0, Z1} {
		PREFETCHT0(Mem{Base: s, Index: ahead, Scale: 1})
		VMOVUPS_Z(at(s), K1, reg)
		ADDQ(stride, s)
	}
	cvtBF16(2, 1, 0)
	VPERMW(Z2, Z4, Z3)
	VMOVUPS(Z3, K2, at(d))
	ADDQ(width, d)
	DECQ(k)
	JNZ(LabelRef("row"))
	end()
}

// packSplit copies so many columns of k rows (pairs of rows, joined to pairs of
// bf16) into panels of the given width, panel bytes apart. Panels packed one by
// one would read a cache line several times, if they are narrow, and two or three
// lines out of each row, which memory is slow to give.
//
// Panels of whole cache lines are those of B, which all threads read: they are
// stored past the caches. A store into a line that another core has read waits
// until that core has given it up, five times as long if the two share no cache.
func packSplit(name string, width, columns int, bf16 bool) {
	TEXT(name, NOSPLIT, "func(k int, src *float32, stride int, dst *float32, panel int)")
	Pragma("noescape")
	k, s, stride := Load(Param("k"), GP64()), Load(Param("src"), GP64()), Load(Param("stride"), GP64())
	panel := Load(Param("panel"), GP64())
	to := make([]Register, columns/width)
	for i := range to {
		to[i] = GP64()
		if i == 0 {
			Load(Param("dst"), to[0])
			continue
		}
		LEAQ(Mem{Base: to[i-1], Index: panel, Scale: 1}, to[i])
	}
	ahead := GP64()
	MOVQ(stride, ahead)
	SHLQ(U8(4), ahead)
	regs := columns / 16
	row := func(first int) {
		for i := range regs {
			PREFETCHT1(Mem{Base: s, Index: ahead, Scale: 1, Disp: 64 * i})
			VMOVUPS(Mem{Base: s, Disp: 64 * i}, zmm[first+i])
		}
		ADDQ(stride, s)
	}
	both, order, part := 2*regs, 2*regs+1, zmm[2*regs+2]
	if bf16 {
		VMOVUPS(zip, zmm[order])
	}
	lines := width%16 == 0
	if !lines {
		n := GP64()
		MOVQ(U64(uint64(width)), n)
		avx512.mask(n)
	}
	Label("row")
	row(0)
	if bf16 {
		row(regs)
		for i := range regs {
			cvtBF16(both, regs+i, i)
			VPERMW(zmm[both], zmm[order], zmm[i])
		}
	}
	for i, d := range to {
		for c := 0; c < width; c += 16 {
			reg, lane := (i*width+c)/16, (i*width+c)%16
			from := zmm[reg]
			if lane > 0 { // the lanes from there on, and the next register's first
				VALIGND(U8(lane), zmm[reg], zmm[min(reg+1, regs-1)], part)
				from = part
			}
			if lines {
				VMOVNTPS(from, Mem{Base: d, Disp: 4 * c})
			} else {
				VMOVUPS(from, K1, at(d))
			}
		}
		ADDQ(U32(uint32(4*width)), d)
	}
	DECQ(k)
	JNZ(LabelRef("row"))
	if lines {
		SFENCE()
	}
	end()
}

// fence has stores past the caches seen before those that follow.
func fence() {
	TEXT("fence", NOSPLIT, "func()")
	SFENCE()
	RET()
}

// packTurn transposes blocks of 16 rows by 16 values (32 for bf16, which become
// 16 pairs): row i begins offsets[i] bytes after src. If past, whole cache lines go
// past the caches, as in packSplit. Else it asks for the rows behind the put first
// ones, which a thread packs next.
func packTurn(name string, bf16, past bool) {
	if bf16 {
		name += "BF16"
	}
	const mostRows = 12 // of packed A, side by side
	signature := "func(blocks int, src *float32, offsets *[16]int, dst *float32, width, put int)"
	if past {
		signature = "func(blocks int, src *float32, offsets *[16]int, dst *float32, width int)"
	}
	TEXT(name, NOSPLIT, signature)
	Pragma("noescape")
	k, s, of, d := Load(Param("blocks"), GP64()), Load(Param("src"), GP64()), Load(Param("offsets"), GP64()), Load(Param("dst"), GP64())
	width := Load(Param("width"), GP64())
	o, next := GP64(), GP64()
	if !past {
		put := Load(Param("put"), GP64())
		MOVQ(Mem{Base: of, Disp: 8}, next)
		IMULQ(put, next)
		ADDQ(s, next)
		avx512.mask(put)
	}
	step := uint64(64)
	if bf16 {
		step = 128
	}
	Label("block")
	for i := range 16 {
		MOVQ(Mem{Base: of, Disp: 8 * i}, o)
		row := Mem{Base: s, Index: o, Scale: 1}
		for line := 0; line < int(step); line += 64 {
			PREFETCHT0(row.Offset(int(4*step) + line))
			if !past && i < mostRows {
				PREFETCHT1(Mem{Base: next, Index: o, Scale: 1, Disp: line})
			}
		}
		if !bf16 {
			VMOVUPS(row, zmm[i])
			continue
		}
		VMOVUPS(row, Z16)
		VMOVUPS(row.Offset(64), Z17)
		cvtBF16(i, 17, 16)
	}
	for _, r := range transpose() {
		if past {
			VMOVNTPS(zmm[r], at(d))
		} else {
			VMOVUPS(zmm[r], K1, at(d))
		}
		ADDQ(width, d)
	}
	ADDQ(Imm(step), s)
	if !past {
		ADDQ(Imm(step), next)
	}
	DECQ(k)
	JNZ(LabelRef("block"))
	if past {
		SFENCE()
	}
	end()
}

// transpose transposes the 16x16 matrix in registers 0-15 and returns which
// register holds each row of the result. It is a butterfly: each of four stages
// pairs the registers whose numbers differ in one bit, within 128-bit lanes
// first, then across them.
func transpose() [16]int {
	var at [16]int // which register plays row i
	for i := range at {
		at[i] = i
	}
	free := []int{16, 17}
	stage := func(bit int, lo, hi func(a, b, dst Op)) {
		for i := range at {
			if i&bit != 0 {
				continue
			}
			a, b := at[i], at[i|bit]
			lo(zmm[b], zmm[a], zmm[free[0]])
			hi(zmm[b], zmm[a], zmm[free[1]])
			at[i], at[i|bit] = free[0], free[1]
			free = []int{a, b}
		}
	}
	even := func(a, b, dst Op) { VSHUFF32X4(U8(0x88), a, b, dst) }
	odd := func(a, b, dst Op) { VSHUFF32X4(U8(0xdd), a, b, dst) }
	stage(1, func(a, b, d Op) { VUNPCKLPS(a, b, d) }, func(a, b, d Op) { VUNPCKHPS(a, b, d) })
	stage(2, func(a, b, d Op) { VUNPCKLPD(a, b, d) }, func(a, b, d Op) { VUNPCKHPD(a, b, d) })
	stage(4, even, odd)
	stage(8, even, odd)
	// The bits of a register's number now say, lowest first: the column within
	// a lane by its high and by its low bit, then the lane by its low and by
	// its high bit.
	var rows [16]int
	for i, r := range at {
		rows[i>>1&1|i<<1&2|i&12] = r
	}
	return rows
}
