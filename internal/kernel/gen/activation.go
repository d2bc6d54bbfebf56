package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// relu replaces what is below 0 by 0; NaN stays.
func (l level) relu() {
	l.text("relu", "func(y, x []float32)")
	n, y, x := length("y"), base("y"), base("x")
	l.zero(1)
	l.loop(n, []Register{y, x}, func(m bool) {
		l.load(at(x), l.reg[0], m)
		VMAXPS(l.reg[0], l.reg[1], l.reg[0]) // with NaN its second operand: x
		l.store(l.reg[0], at(y), m)
	})
	end()
}

// reluGrad lets d through where x is not at most 0, and makes x what relu does.
func (l level) reluGrad() {
	l.text("reluGrad", "func(d, x []float32)")
	n, d, x := length("d"), base("d"), base("x")
	const notAtMost = 0x16 // or unordered
	l.zero(1)
	l.loop(n, []Register{d, x}, func(m bool) {
		l.load(at(x), l.reg[0], m)
		l.load(at(d), l.reg[2], m)
		if l.wide() {
			VCMPPS(U8(notAtMost), l.reg[1], l.reg[0], K2)
			VMOVAPS_Z(l.reg[2], K2, l.reg[2])
		} else {
			VCMPPS(U8(notAtMost), l.reg[1], l.reg[0], l.reg[3])
			VANDPS(l.reg[3], l.reg[2], l.reg[2])
		}
		l.store(l.reg[2], at(d), m)
		VMAXPS(l.reg[0], l.reg[1], l.reg[0])
		l.store(l.reg[0], at(x), m)
	})
	end()
}

// normalCDF sets register 7 to Φ(x) of the x in register 0 and register 3 to
// e^(-x²/2), using registers 1 to 6. With z = |x|/√2 the tail beyond |x| is
// erfc(z)/2 = t·p(t)·e^(-z²)/2, t = 1/(1+c·z), to 1.5e-7 (Abramowitz and
// Stegun, Handbook of Mathematical Functions, 7.1.26).
func (l level) normalCDF() {
	r := l.reg
	VANDPS(val("absolute"), r[0], r[1])
	VMOVUPS(val("one"), r[2])
	VFMADD132PS(val("erfc"), r[2], r[1])
	VDIVPS(r[1], r[2], r[1]) // t
	VMULPS(r[0], r[0], r[3])
	VMULPS(val("minushalf"), r[3], r[3])
	l.expOf(3, 4, 5, 6)
	VMOVUPS(val("erfc5"), r[4])
	for _, c := range []string{"erfc4", "erfc3", "erfc2", "erfc1"} {
		VFMADD213PS(val(c), r[1], r[4])
	}
	VMULPS(r[1], r[4], r[4])
	VMULPS(r[3], r[4], r[4]) // the tail
	VSUBPS(r[4], r[2], r[2])
	if l.wide() {
		VPMOVD2M(r[0], K2)
		VBLENDMPS(r[4], r[2], K2, r[7])
	} else {
		VBLENDVPS(r[0], r[4], r[2], r[7])
	}
}

// erf is GELU by the error function, x·Φ(x).
func (l level) erf() {
	l.text("erfGELU", "func(y, x []float32)")
	n, y, x := length("y"), base("y"), base("x")
	l.loop(n, []Register{y, x}, func(m bool) {
		l.load(at(x), l.reg[0], m)
		l.normalCDF()
		VMULPS(l.reg[7], l.reg[0], l.reg[0])
		l.store(l.reg[0], at(y), m)
	})
	end()
}

// erfGrad multiplies d by its derivative, Φ(x) + x·φ(x), and replaces x by it.
func (l level) erfGrad() {
	l.text("erfGELUGrad", "func(d, x []float32)")
	n, d, x := length("d"), base("d"), base("x")
	l.loop(n, []Register{d, x}, func(m bool) {
		l.load(at(x), l.reg[0], m)
		l.normalCDF()
		VMULPS(val("density"), l.reg[3], l.reg[3])
		VMULPS(l.reg[7], l.reg[0], l.reg[2])
		VFMADD231PS(l.reg[3], l.reg[0], l.reg[7])
		l.store(l.reg[2], at(x), m)
		l.load(at(d), l.reg[1], m)
		VMULPS(l.reg[7], l.reg[1], l.reg[1])
		l.store(l.reg[1], at(d), m)
	})
	end()
}
