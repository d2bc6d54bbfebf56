package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/reg"
)

// normStat returns the sum of x about a centre and that of the squares: the
// caller takes the mean first, then the variance about it.
func (l level) normStat() {
	l.text("moments", "func(x []float32, centre float32) (sum, sq float32)")
	n, x := length("x"), base("x")
	r := l.reg
	l.broadcast("centre", 3)
	l.zero(0)
	l.zero(1)
	l.loop(n, []Register{x}, func(m bool) {
		l.load(at(x), r[2], m)
		VSUBPS(r[3], r[2], r[2])
		l.keep(r[2], m)
		VADDPS(r[2], r[0], r[0])
		VFMADD231PS(r[2], r[2], r[1])
	})
	l.fold(0, 4, addPS)
	l.fold(1, 4, addPS)
	Store(X0, ReturnIndex(0))
	Store(X1, ReturnIndex(1))
	end()
}

func (l level) norm() {
	l.text("norm", "func(y, x, gain, bias []float32, mean, rstd float32)")
	n, y, x, gain, bias := length("y"), base("y"), base("x"), base("gain"), base("bias")
	r := l.reg
	l.broadcast("mean", 3)
	l.broadcast("rstd", 4)
	l.loop(n, []Register{y, x, gain, bias}, func(m bool) {
		l.load(at(x), r[0], m)
		l.load(at(gain), r[1], m)
		l.load(at(bias), r[2], m)
		VSUBPS(r[3], r[0], r[0])
		VMULPS(r[4], r[0], r[0])
		VFMADD213PS(r[2], r[1], r[0])
		l.store(r[0], at(y), m)
	})
	end()
}

// normBack adds a row's share to dgain, dbias and dx, in two passes: the sums
// over the row first.
func (l level) normBack() {
	l.text("normBack", "func(dx, dgain, dbias, dy, x, gain []float32, mean, rstd float32)")
	r := l.reg
	xhat := func(x Register, i int, m bool) {
		l.load(at(x), r[i], m)
		VSUBPS(r[5], r[i], r[i])
		VMULPS(r[6], r[i], r[i])
		l.keep(r[i], m)
	}
	l.broadcast("mean", 5)
	l.broadcast("rstd", 6)
	l.zero(7)
	l.zero(8)
	n, dgain, dbias, dy, x, gain := length("dx"), base("dgain"), base("dbias"), base("dy"), base("x"), base("gain")
	l.loop(n, []Register{dgain, dbias, dy, x, gain}, func(m bool) {
		xhat(x, 0, m)
		l.load(at(dy), r[1], m)
		l.load(at(dgain), r[2], m)
		VFMADD231PS(r[0], r[1], r[2])
		l.store(r[2], at(dgain), m)
		l.load(at(dbias), r[3], m)
		VADDPS(r[1], r[3], r[3])
		l.store(r[3], at(dbias), m)
		l.load(at(gain), r[4], m)
		VMULPS(r[4], r[1], r[1])
		VADDPS(r[1], r[7], r[7])
		VFMADD231PS(r[0], r[1], r[8])
	})
	l.fold(7, 0, addPS)
	l.fold(8, 0, addPS)
	n = length("dx")
	VCVTSI2SSQ(n, X0, X0)
	VDIVSS(X0, X7, X7)
	VDIVSS(X0, X8, X8)
	VBROADCASTSS(X7, r[7])
	VBROADCASTSS(X8, r[8])
	dx, dy, x, gain := base("dx"), base("dy"), base("x"), base("gain")
	l.loop(n, []Register{dx, dy, x, gain}, func(m bool) {
		xhat(x, 0, m)
		l.load(at(dy), r[1], m)
		l.load(at(gain), r[2], m)
		l.load(at(dx), r[3], m)
		VFMSUB213PS(r[7], r[2], r[1])
		VFNMADD231PS(r[0], r[8], r[1])
		VFMADD231PS(r[6], r[1], r[3])
		l.store(r[3], at(dx), m)
	})
	end()
}
