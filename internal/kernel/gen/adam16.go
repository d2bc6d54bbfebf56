package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// adam16 is kernel.adam16Go for whole registers: the lengths must be multiples
// of the lanes. consts are the ten floats of kernel.adamStep; start is the
// stream's a plus the number of the first element. Products and sums are rounded
// one by one, as they are there.
func (l level) adam16() {
	l.text("adam16", "func(consts *float32, w, gr []float32, m, v []uint16, start, b uint32)")
	c := Load(Param("consts"), GP64())
	n, w, g, mm, vv := length("w"), base("w"), base("gr"), base("m"), base("v")
	r := l.reg
	const gradScale, b1, c1, b2, c2, step, root, eps, count = 7, 8, 9, 10, 11, 12, 13, 14, 15
	for i := range 8 {
		VBROADCASTSS(Mem{Base: c, Disp: 4 * i}, r[gradScale+i])
	}
	l.broadcast("start", count)
	VPADDD(lane, r[count], r[count])
	TESTQ(n, n)
	JZ(LabelRef("none"))
	Label("more")
	VMULPS(at(g), r[gradScale], r[0])
	l.widen(at(mm), 1)
	VMULPS(r[b1], r[1], r[1])
	VMULPS(r[c1], r[0], r[4])
	VADDPS(r[4], r[1], r[1])
	l.widen(at(vv), 2)
	VMULPS(r[b2], r[2], r[2])
	VMULPS(r[0], r[0], r[0])
	VMULPS(r[c2], r[0], r[0])
	VADDPS(r[0], r[2], r[2])

	l.broadcast("b", 3)
	l.bits(r[count], r[4], r[5], r[3])
	VPADDD(val(map[bool]string{true: "sixteen", false: "eight"}[l.wide()]), r[count], r[count])
	l.and(val("lower"), r[4], r[5])
	VPADDD(r[5], r[1], r[5])
	l.cut(5, 6, at(mm))
	VPSRLD(U8(16), r[4], r[4])
	VPADDD(r[4], r[2], r[4])
	l.cut(4, 6, at(vv))

	VSQRTPS(r[2], r[2])
	VMULPS(r[root], r[2], r[2])
	VADDPS(r[eps], r[2], r[2])
	VMULPS(r[step], r[1], r[1])
	VDIVPS(r[2], r[1], r[1])
	VBROADCASTSS(Mem{Base: c, Disp: 32}, r[3])
	VMULPS(at(w), r[3], r[3])
	VSUBPS(r[1], r[3], r[3])
	VBROADCASTSS(Mem{Base: c, Disp: 36}, r[4])
	VMULPS(r[4], r[3], r[3])
	VMOVUPS(r[3], at(w))
	for _, p := range []struct {
		ptr   Op
		bytes int
	}{{w, l.bytes}, {g, l.bytes}, {mm, l.bytes / 2}, {vv, l.bytes / 2}} {
		ADDQ(Imm(uint64(p.bytes)), p.ptr)
	}
	SUBQ(Imm(uint64(l.lanes())), n)
	JNZ(LabelRef("more"))
	Label("none")
	end()
}

// widen loads a register's worth of bfloat16 as float32.
func (l level) widen(m Mem, i int) {
	VPMOVZXWD(m, l.reg[i])
	VPSLLD(U8(16), l.reg[i], l.reg[i])
}

// cut stores the upper halves of register i, using register tmp (both < 16).
func (l level) cut(i, tmp int, m Mem) {
	VPSRLD(U8(16), l.reg[i], l.reg[i])
	if l.wide() {
		VPMOVDW(zmm[i], m)
		return
	}
	VPACKUSDW(ymm[i], ymm[i], ymm[tmp]) // doubled within each half
	VPERMQ(U8(0x08), ymm[tmp], ymm[tmp])
	VMOVDQU(xmm[tmp], m)
}
