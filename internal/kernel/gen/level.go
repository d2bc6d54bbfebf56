package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"

	"promptgen/internal/kernel/gen/approx"
)

var (
	zmm = []VecPhysical{Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31}
	ymm = []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15}
	xmm = []VecPhysical{X0, X1, X2, X3, X4, X5, X6, X7, X8, X9, X10, X11, X12, X13, X14, X15}
)

// level is an instruction set as the vector loops see it. Register 15 of AVX2
// and mask K1 of AVX-512 hold the mask of a masked body.
type level struct {
	suffix string
	bytes  int
	reg    []VecPhysical
}

var (
	avx512 = level{"AVX512", 64, zmm}
	avx2   = level{"AVX2", 32, ymm}
)

func (l level) wide() bool { return l.bytes == 64 }
func (l level) lanes() int { return l.bytes / 4 }

// text begins a function of this level.
func (l level) text(name, signature string) {
	TEXT(name+l.suffix, NOSPLIT, signature)
	Pragma("noescape")
}

// base and length load the parts of a slice parameter.
func base(name string) Register   { return Load(Param(name).Base(), GP64()) }
func length(name string) Register { return Load(Param(name).Len(), GP64()) }

var loops int

// loop runs body over n elements, advancing ptrs; the last body is masked if n
// is no multiple of the lanes. n is used up.
func (l level) loop(n Register, ptrs []Register, body func(masked bool)) {
	loops++
	top, tail, done := fmt.Sprintf("loop%d", loops), fmt.Sprintf("tail%d", loops), fmt.Sprintf("done%d", loops)
	CMPQ(n, Imm(uint64(l.lanes())))
	JLT(LabelRef(tail))
	Label(top)
	body(false)
	for _, p := range ptrs {
		ADDQ(Imm(uint64(l.bytes)), p)
	}
	SUBQ(Imm(uint64(l.lanes())), n)
	CMPQ(n, Imm(uint64(l.lanes())))
	JGE(LabelRef(top))
	Label(tail)
	TESTQ(n, n)
	JZ(LabelRef(done))
	l.mask(n)
	body(true)
	Label(done)
}

// mask selects the first n lanes. n is used up.
func (l level) mask(n Register) {
	if l.wide() {
		m := GP64()
		MOVQ(I32(-1), m)
		BZHIQ(n, m, m)
		KMOVW(m.As32(), K1)
		return
	}
	t := GP64()
	LEAQ(laneMask, t)
	NEGQ(n)
	VMOVUPS(Mem{Base: t, Index: n, Scale: 4, Disp: 32}, Y15)
}

func (l level) load(m Mem, r VecPhysical, masked bool) {
	switch {
	case !masked:
		VMOVUPS(m, r)
	case l.wide():
		VMOVUPS_Z(m, K1, r)
	default:
		VMASKMOVPS(m, Y15, r)
	}
}

func (l level) store(r VecPhysical, m Mem, masked bool) {
	switch {
	case !masked:
		VMOVUPS(r, m)
	case l.wide():
		VMOVUPS(r, K1, m)
	default:
		VMASKMOVPS(r, Y15, m)
	}
}

// keep clears the lanes of r that the mask leaves out.
func (l level) keep(r VecPhysical, masked bool) {
	switch {
	case !masked:
	case l.wide():
		VMOVAPS_Z(r, K1, r)
	default:
		VANDPS(Y15, r, r)
	}
}

// zero clears register i.
func (l level) zero(i int) { VXORPS(l.reg[i], l.reg[i], l.reg[i]) }

// fold reduces register i to its lowest lane, using register tmp (both < 16).
func (l level) fold(i, tmp int, op func(a, b, dst Op)) {
	if l.wide() {
		VEXTRACTF64X4(U8(1), zmm[i], ymm[tmp])
		op(ymm[tmp], ymm[i], ymm[i])
	}
	VEXTRACTF128(U8(1), ymm[i], xmm[tmp])
	op(xmm[tmp], xmm[i], xmm[i])
	VPERMILPS(U8(0x4e), xmm[i], xmm[tmp])
	op(xmm[tmp], xmm[i], xmm[i])
	VPERMILPS(U8(0xb1), xmm[i], xmm[tmp])
	op(xmm[tmp], xmm[i], xmm[i])
}

func addPS(a, b, dst Op) { VADDPS(a, b, dst) }
func maxPS(a, b, dst Op) { VMAXPS(a, b, dst) }

// broadcast fills register i with a parameter's value.
func (l level) broadcast(name string, i int) {
	p, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	VBROADCASTSS(p.Addr, l.reg[i])
}

// Constants, each filling 64 bytes.
var (
	laneMask Mem // 8 lanes of ones, 8 of zeros
	lane     Mem // 0, 1, 2…
	zip      Mem // VPERMW: interleaves two halves of 16-bit words
	values   = map[string]Mem{}
)

var floats = map[string]float64{
	"one": 1, "log2e": math.Log2E, "ln2hi": 0.693359375, "ln2lo": -2.12194440e-4,
	"expmin": -104, "expmax": 89,
	// e^f = 1 + f + f²·p(f) on |f| <= ln2/2 (Moshier, Cephes, expf)
	"p0": 1.9875691500e-4, "p1": 1.3981999507e-3, "p2": 8.3334519073e-3,
	"p3": 4.1665795894e-2, "p4": 1.6666665459e-1, "p5": 5.0000001201e-1,
	"e1": approx.Exp2[0], "e2": approx.Exp2[1], "e3": approx.Exp2[2], "e4": approx.Exp2[3], "e5": approx.Exp2[4],
	"h1": approx.Exp2Half[0], "h2": approx.Exp2Half[1], "h3": approx.Exp2Half[2], "h4": approx.Exp2Half[3],
	"e_least": -126, // where 2^x is taken for 0
	// GELU: -2u = x(g1 + g3·x²), 2u' = d1 + d3·x²
	"g1": -2 * geluA, "g3": -2 * geluA * geluB, "g1b": -2 * geluA * math.Log2E, "g3b": -2 * geluA * geluB * math.Log2E,
	"d1": 2 * geluA, "d3": 6 * geluA * geluB,
	"flat": 30, "unflat": -30,
	"minusinf": math.Inf(-1),
	// The normal distribution: see normalCDF; its coefficients are halved here.
	"erfc": 0.3275911 / math.Sqrt2, "erfc1": 0.254829592 / 2, "erfc2": -0.284496736 / 2, "erfc3": 1.421413741 / 2,
	"erfc4": -1.453152027 / 2, "erfc5": 1.061405429 / 2, "minushalf": -0.5, "density": 0.3989422804014327,
}

const (
	geluA = 0.7978845608028654 // √(2/π)
	geluB = 0.044715
)

var ints = map[string]uint32{"mul1": 0x7feb352d, "mul2": 0x846ca68b, "bias127": 127,
	"bit0": 1, "half": 0x7fff, "quiet": 0x400000, "upper": 0xffff0000, "lower": 0xffff, "eight": 8, "sixteen": 16, "absolute": 0x7fffffff}

func constants() {
	fill := func(name string, word func(i int) uint32) Mem {
		m := GLOBL(name, RODATA|NOPTR)
		for i := range 16 {
			DATA(4*i, U32(word(i)))
		}
		return m
	}
	laneMask = fill("laneMask", func(i int) uint32 { return uint32(int32(i-8) >> 31) })
	lane = fill("lane", func(i int) uint32 { return uint32(i) })
	zip = fill("zip", func(i int) uint32 { return uint32(i) | uint32(i+16)<<16 })
	for _, name := range sortedKeys(floats) {
		values[name] = fill("f_"+name, func(int) uint32 { return math.Float32bits(float32(floats[name])) })
	}
	for _, name := range sortedKeys(ints) {
		values[name] = fill("i_"+name, func(int) uint32 { return ints[name] })
	}
}

// val is a constant as an operand of a vector instruction.
func val(name string) Mem {
	m, ok := values[name]
	if !ok {
		panic("no constant " + name)
	}
	return m
}
