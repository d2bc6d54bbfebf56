package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"

	"promptgen/internal/kernel/gen/approx"
)

func end() {
	VZEROUPPER()
	RET()
}

func at(p Register) Mem { return Mem{Base: p} }

func (l level) add() {
	l.text("add", "func(dst, x []float32)")
	n, d, x := length("dst"), base("dst"), base("x")
	l.loop(n, []Register{d, x}, func(m bool) {
		l.load(at(d), l.reg[0], m)
		l.load(at(x), l.reg[1], m)
		VADDPS(l.reg[1], l.reg[0], l.reg[0])
		l.store(l.reg[0], at(d), m)
	})
	end()
}

func (l level) scale() {
	l.text("scale", "func(y, x []float32, a float32)")
	n, y, x := length("y"), base("y"), base("x")
	l.broadcast("a", 1)
	l.loop(n, []Register{y, x}, func(m bool) {
		l.load(at(x), l.reg[0], m)
		VMULPS(l.reg[1], l.reg[0], l.reg[0])
		l.store(l.reg[0], at(y), m)
	})
	end()
}

func (l level) dot() {
	l.text("dot", "func(x, y []float32) float32")
	n, x, y := length("x"), base("x"), base("y")
	l.zero(0)
	l.loop(n, []Register{x, y}, func(m bool) {
		l.load(at(x), l.reg[1], m)
		l.load(at(y), l.reg[2], m)
		VFMADD231PS(l.reg[1], l.reg[2], l.reg[0])
	})
	l.fold(0, 1, addPS)
	Store(X0, ReturnIndex(0))
	end()
}

func (l level) maximum() {
	l.text("maximum", "func(x []float32) float32")
	n, x := length("x"), base("x")
	VMOVUPS(val("minusinf"), l.reg[0])
	l.loop(n, []Register{x}, func(m bool) {
		l.load(at(x), l.reg[1], m)
		switch { // lanes outside the mask must not count
		case !m:
		case l.wide():
			VBLENDMPS(l.reg[1], l.reg[0], K1, l.reg[1])
		default:
			VBLENDVPS(Y15, l.reg[1], l.reg[0], l.reg[1])
		}
		VMAXPS(l.reg[0], l.reg[1], l.reg[0]) // with NaN in x the other operand
	})
	l.fold(0, 1, maxPS)
	Store(X0, ReturnIndex(0))
	end()
}

// expOf replaces register x by its exponential, using registers n, p and t. NaN
// stays, what is too large becomes infinite, what is too small becomes 0.
func (l level) expOf(x, n, p, t int) {
	r := l.reg
	VMOVUPS(val("expmax"), r[t])
	VMINPS(r[x], r[t], r[x]) // NaN: the first operand
	VMOVUPS(val("expmin"), r[t])
	VMAXPS(r[x], r[t], r[x])
	VMULPS(val("log2e"), r[x], r[n])
	if l.wide() {
		VRNDSCALEPS(U8(0), r[n], r[n])
	} else {
		VROUNDPS(U8(0), r[n], r[n])
	}
	VFNMADD231PS(val("ln2hi"), r[n], r[x])
	VFNMADD231PS(val("ln2lo"), r[n], r[x])
	VMOVUPS(val("p0"), r[p])
	for _, c := range []string{"p1", "p2", "p3", "p4", "p5"} {
		VFMADD213PS(val(c), r[x], r[p])
	}
	VMULPS(r[x], r[x], r[t])
	VADDPS(val("one"), r[x], r[x])
	VFMADD231PS(r[p], r[t], r[x])
	if l.wide() {
		VSCALEFPS(r[n], r[x], r[x])
		return
	}
	// 2^n in two factors, since n may be beyond the exponents there are.
	VCVTPS2DQ(r[n], r[n])
	VPSRAD(U8(1), r[n], r[p])
	VPSUBD(r[p], r[n], r[n])
	for _, half := range []int{p, n} {
		VPADDD(val("bias127"), r[half], r[half])
		VPSLLD(U8(23), r[half], r[half])
		VMULPS(r[half], r[x], r[x])
	}
}

// exp2 replaces register x by 2 to its power, using n and y: a polynomial in the
// fraction times 2 to the floor. NaN stays, what is too large becomes infinite,
// what is too small 0. It takes AVX-512.
func (l level) exp2(x, n, y int) { l.exp2By(x, n, y, l.exp2Fraction) }

// exp2Half is exp2 for what is rounded to bf16.
func (l level) exp2Half(x, n, y int) {
	l.exp2By(x, n, y, func(n, y int) {
		approx.Polynomial([]Op{val("h4"), val("h3"), val("h2"), val("h1"), val("one")}, l.reg[n], l.reg[y])
	})
}

func (l level) exp2By(x, n, y int, fraction func(n, y int)) {
	r := l.reg
	VREDUCEPS(U8(9), r[x], r[n])
	fraction(n, y)
	VSCALEFPS(r[x], r[y], r[x])
}

// exp2Fraction sets register y to 2 to the power of register n, in [0,1).
func (l level) exp2Fraction(n, y int) {
	approx.Polynomial([]Op{val("e5"), val("e4"), val("e3"), val("e2"), val("e1"), val("one")}, l.reg[n], l.reg[y])
}

func (l level) exp() {
	l.text("exp", "func(y, x []float32, scale, off float32) float32")
	n, y, x := length("y"), base("y"), base("x")
	l.broadcast("scale", 5)
	l.broadcast("off", 6)
	l.zero(7)
	l.loop(n, []Register{y, x}, func(m bool) {
		l.load(at(x), l.reg[0], m)
		VFMADD213PS(l.reg[6], l.reg[5], l.reg[0])
		l.expOf(0, 1, 2, 3)
		l.keep(l.reg[0], m)
		VADDPS(l.reg[0], l.reg[7], l.reg[7])
		l.store(l.reg[0], at(y), m)
	})
	l.fold(7, 1, addPS)
	Store(X7, ReturnIndex(0))
	end()
}

// sigmoid sets register s to σ(2u) of the x in register x, with GELU's u; it
// uses registers s+1…s+3 and leaves x² in register sq.
func (l level) sigmoid(x, sq, s int) {
	r := l.reg
	g1, g3 := "g1", "g3"
	if l.wide() { // for a power of 2
		g1, g3 = "g1b", "g3b"
	}
	VMULPS(r[x], r[x], r[sq])
	VMOVUPS(val(g3), r[s])
	VFMADD213PS(val(g1), r[sq], r[s])
	VMULPS(r[x], r[s], r[s])
	if l.wide() {
		l.exp2(s, s+1, s+2)
	} else {
		l.expOf(s, s+1, s+2, s+3)
	}
	VADDPS(val("one"), r[s], r[s])
}

func (l level) gelu() {
	l.text("gelu", "func(y, x []float32)")
	n, y, x := length("y"), base("y"), base("x")
	l.loop(n, []Register{y, x}, func(m bool) {
		l.load(at(x), l.reg[0], m)
		l.sigmoid(0, 1, 2)
		VDIVPS(l.reg[2], l.reg[0], l.reg[0])
		l.store(l.reg[0], at(y), m)
	})
	end()
}

// geluGrad multiplies d by GELU'(x) and replaces x by GELU(x): with s = σ(2u),
// d/dx x·s = s + x·s(1-s)·2u'.
func (l level) geluGrad() {
	l.text("geluGrad", "func(d, x []float32)")
	n, d, x := length("d"), base("d"), base("x")
	r := l.reg
	VMOVUPS(val("one"), r[8])
	VMOVUPS(val("flat"), r[9])
	VMOVUPS(val("unflat"), r[10])
	l.loop(n, []Register{d, x}, func(m bool) {
		l.load(at(x), r[11], m)
		VMINPS(r[11], r[9], r[0])
		VMAXPS(r[0], r[10], r[0])
		l.sigmoid(0, 1, 2)
		VDIVPS(r[2], r[8], r[2]) // s
		VMULPS(r[2], r[11], r[11])
		l.store(r[11], at(x), m)
		VMOVUPS(val("d3"), r[3])
		VFMADD213PS(val("d1"), r[1], r[3]) // 2u'
		VMULPS(r[0], r[3], r[3])
		VSUBPS(r[2], r[8], r[4])
		VMULPS(r[3], r[4], r[4])
		VFMADD213PS(r[2], r[2], r[4])
		l.load(at(d), r[5], m)
		VMULPS(r[5], r[4], r[4])
		l.store(r[4], at(d), m)
	})
	end()
}

// fetch asks for the cache lines that x begins in and that follow within it.
func fetch() {
	TEXT("fetch", NOSPLIT, "func(x []float32)")
	Pragma("noescape")
	n, x := length("x"), base("x")
	JMP(LabelRef("enough"))
	Label("line")
	PREFETCHT0(at(x))
	ADDQ(Imm(64), x)
	SUBQ(Imm(16), n)
	Label("enough")
	CMPQ(n, Imm(0))
	JGT(LabelRef("line"))
	end()
}

// xor and and are bitwise operations, which avo names apart for the two levels.
func (l level) xor(a, b, dst Op) {
	if l.wide() {
		VPXORD(a, b, dst)
	} else {
		VPXOR(a, b, dst)
	}
}

func (l level) and(a, b, dst Op) {
	if l.wide() {
		VPANDD(a, b, dst)
	} else {
		VPAND(a, b, dst)
	}
}

// bits is kernel.draw.bits for all lanes: register at holds the index plus the
// stream's a in each, and x receives the words. b is the stream's b, t is used.
func (l level) bits(at, x, t VecPhysical, b Op) {
	VPSRLD(U8(16), at, x)
	l.xor(at, x, x)
	VPMULLD(val("mul1"), x, x)
	l.xor(b, x, x)
	VPSRLD(U8(15), x, t)
	l.xor(t, x, x)
	VPMULLD(val("mul2"), x, x)
	VPSRLD(U8(16), x, t)
	l.xor(t, x, x)
}

// drop is kernel.dropRow.keeps for all lanes: start is the row's first key plus
// the number of the first element.
func (l level) drop() {
	l.text("drop", "func(y, x []float32, start, b, below uint32, scale float32)")
	n, y, x := length("y"), base("y"), base("x")
	r := l.reg
	for i, name := range []string{"start", "b", "below", "scale"} {
		l.broadcast(name, 4+i)
	}
	VPADDD(lane, r[4], r[4])
	step := GP64()
	MOVQ(I32(int32(l.lanes())), step)
	VMOVQ(step, X8)
	VPBROADCASTD(X8, r[8])
	l.loop(n, []Register{y, x}, func(m bool) {
		l.bits(r[4], r[0], r[1], r[5])
		VPADDD(r[8], r[4], r[4])
		l.load(at(x), r[2], m)
		if l.wide() {
			VPCMPUD(U8(5), r[6], r[0], K2) // not less
			VMULPS_Z(r[7], r[2], K2, r[2])
		} else {
			VPMAXUD(r[6], r[0], r[1])
			VPCMPEQD(r[0], r[1], r[1])
			VMULPS(r[7], r[2], r[2])
			VANDPS(r[1], r[2], r[2])
		}
		l.store(r[2], at(y), m)
	})
	end()
}

// adam works on consts, the ten floats of kernel.adamStep.
func (l level) adam() {
	l.text("adam", "func(consts *float32, w, gr, m, v []float32)")
	c := Load(Param("consts"), GP64())
	n, w, g, mm, vv := length("w"), base("w"), base("gr"), base("m"), base("v")
	r := l.reg
	const gradScale, b1, c1, b2, c2, step, root, eps = 7, 8, 9, 10, 11, 12, 13, 14
	for i := range 8 {
		VBROADCASTSS(Mem{Base: c, Disp: 4 * i}, r[gradScale+i])
	}
	l.loop(n, []Register{w, g, mm, vv}, func(m bool) {
		l.load(at(g), r[0], m)
		l.load(at(mm), r[1], m)
		l.load(at(vv), r[2], m)
		l.load(at(w), r[3], m)
		VMULPS(r[gradScale], r[0], r[0])
		VMULPS(r[b1], r[1], r[1])
		VFMADD231PS(r[0], r[c1], r[1])
		VMULPS(r[0], r[0], r[0])
		VMULPS(r[b2], r[2], r[2])
		VFMADD231PS(r[0], r[c2], r[2])
		l.store(r[1], at(mm), m)
		l.store(r[2], at(vv), m)
		VSQRTPS(r[2], r[2])
		VFMADD213PS(r[eps], r[root], r[2])
		VMULPS(r[step], r[1], r[1])
		VDIVPS(r[2], r[1], r[1])
		VBROADCASTSS(Mem{Base: c, Disp: 32}, r[4])
		VFMSUB213PS(r[1], r[4], r[3])
		VBROADCASTSS(Mem{Base: c, Disp: 36}, r[4])
		VMULPS(r[4], r[3], r[3])
		l.store(r[3], at(w), m)
	})
	end()
}

// squares sums in float64; n must be a multiple of the doubles in a register.
func (l level) squares() {
	l.text("squares", "func(x []float32) float64")
	n, x := length("x"), base("x")
	l.zero(0)
	TESTQ(n, n)
	JZ(LabelRef("none"))
	Label("more")
	if l.wide() {
		VCVTPS2PD(at(x), Z1)
	} else {
		VCVTPS2PD(at(x), Y1)
	}
	VFMADD231PD(l.reg[1], l.reg[1], l.reg[0])
	ADDQ(Imm(uint64(l.bytes/2)), x)
	SUBQ(Imm(uint64(l.lanes()/2)), n)
	JNZ(LabelRef("more"))
	Label("none")
	if l.wide() {
		VEXTRACTF64X4(U8(1), Z0, Y1)
		VADDPD(Y1, Y0, Y0)
	}
	VEXTRACTF128(U8(1), Y0, X1)
	VADDPD(X1, X0, X0)
	VPERMILPD(U8(1), X0, X1)
	VADDPD(X1, X0, X0)
	Store(X0, ReturnIndex(0))
	end()
}

// round rounds x to bf16 in place, ties to even: it adds half of the last kept
// bit, less one where that bit is even, and cuts. NaN is made quiet instead, for
// the addition could carry it away.
func (l level) round() {
	l.text("round", "func(x []float32)")
	n, x := length("x"), base("x")
	r := l.reg
	l.loop(n, []Register{x}, func(m bool) {
		l.load(at(x), r[0], m)
		VPSRLD(U8(16), r[0], r[1])
		VANDPS(val("bit0"), r[1], r[1])
		VPADDD(val("half"), r[1], r[1])
		VPADDD(r[0], r[1], r[1])
		VORPS(val("quiet"), r[0], r[2])
		if l.wide() {
			VCMPPS(U8(3), r[0], r[0], K2) // unordered
			VBLENDMPS(r[2], r[1], K2, r[1])
		} else {
			VCMPPS(U8(3), r[0], r[0], r[3])
			VBLENDVPS(r[3], r[2], r[1], r[1])
		}
		VANDPS(val("upper"), r[1], r[1])
		l.store(r[1], at(x), m)
	})
	end()
}
