package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"

	"promptgen/internal/kernel/gen/evex"
)

// A walk multiplies one row by the panels that a head has in one page of the
// cache after another. It does what a tile of one row would do in each, in the
// same order, but is called once, and asks for a page while it works on the one
// before: pages lie far apart, and the processor cannot know which follows. It
// asks for them in the second cache (PREFETCHT2): lines on their way to the first
// are so few that memory would be half idle (measured: 28 GB/s against 19).

// sliceBytes is the size of a Go slice, whose first word is its data's address.
const sliceBytes = 24

// walkFormat is how a format's step is multiplied: bytes a step of the row has,
// bytes a step of a panel has, and the code that adds step u to the sums (registers
// 2*p and 2*p+1 for panel p, whose data begins p*apart bytes on).
type walkFormat struct {
	suffix       string
	aStep, bStep int
	page         int // steps that the tokens of a page take
	unroll       int
	step         func(w *walk, u, panels, apart int)
	trailer      int // bytes behind a page's keys that will be wanted next

	aheadKeys, aheadValues int // pages; 0: it is not for those
}

var (
	walkF32  = walkFormat{"F32x512", 4, panelBytes, 32, 8, (*walk).fma, 0, 2, 2}
	walkBF16 = walkFormat{"BF16x512", 4, panelBytes, 16, 8, (*walk).dot, 0, 2, 2}
	walkWide = walkFormat{"Widen512", 8, panelBytes, 16, 4, (*walk).widen, 0, 2, 2}
	walkQ8   = walkFormat{"Q8x512", blockBytes, q8.bytes, 1, 1, (*walk).block, 64, 2, 0}
	walkQ4   = walkFormat{"Q4x512", blockBytes, q4.bytes, 1, 1, (*walk).nibbleBlock, 64, 4, 0}
	walkBare = walkFormat{"Bare512", blockBytes, bare.bytes, 1, 1, (*walk).nibbles, 0, 0, 8}
)

type walk struct {
	walkFormat
	a, b, next Register // the row; this page's panels; those of a later page
}

// scores is the row's product with each page's keys, 32 columns of C a page.
func scores(f walkFormat) {
	TEXT("scores"+f.suffix, NOSPLIT, "func(k int, a *byte, pages *[]uint32, n, at, next int, c *float32)")
	Pragma("noescape")
	w := &walk{walkFormat: f, a: GP64(), b: GP64(), next: GP64()}
	k, a0, c := Load(Param("k"), GP64()), Load(Param("a"), GP64()), Load(Param("c"), GP64())
	w.pages(f.aheadKeys, func() {
		left := GP64()
		MOVQ(k, left)
		MOVQ(a0, w.a)
		w.clear(1)
		w.steps(left, 1, 0)
		for i := 0; i < w.trailer; i += 64 {
			PREFETCHT2(Mem{Base: w.next, Disp: i})
		}
		w.store(c, 1)
		ADDQ(Imm(panelBytes), c)
	})
	end()
}

// values is the row's product with the values of all pages, of which the last
// has so many steps, for one or two panels of columns.
func values(f walkFormat, panels int) {
	TEXT(fmt.Sprintf("values%s_%d", f.suffix, panels), NOSPLIT, "func(last int, a *byte, pages *[]uint32, n, at, next int, c *float32)")
	Pragma("noescape")
	w := &walk{walkFormat: f, a: Load(Param("a"), GP64()), b: GP64(), next: GP64()}
	last, c := Load(Param("last"), GP64()), Load(Param("c"), GP64())
	w.clear(panels)
	w.pages(f.aheadValues, func() {
		left, n := GP64(), GP64()
		Load(Param("n"), n)
		MOVQ(U32(uint32(f.page)), left)
		CMPQ(n, Imm(1))
		CMOVQEQ(last, left)
		w.steps(left, panels, f.page*f.bStep)
	})
	w.store(c, panels)
	end()
}

// pages runs body with b at each page's panels, and next at those of the page
// that comes so many pages later; after the last those are the first ones where
// the row after this one begins. The argument n counts down.
func (w *walk) pages(ahead int, body func()) {
	list, at := Load(Param("pages"), GP64()), Load(Param("at"), GP64())
	later, laterAt, end := GP64(), GP64(), GP64()
	Load(Param("n"), end)
	LEAQ(Mem{Base: end, Index: end, Scale: 2}, end)
	LEAQ(Mem{Base: list, Index: end, Scale: sliceBytes / 3}, end)
	LEAQ(Mem{Base: list, Disp: ahead * sliceBytes}, later)
	MOVQ(at, laterAt)
	w.wrap(later, laterAt, end)
	Label("page")
	MOVQ(Mem{Base: list}, w.b)
	ADDQ(at, w.b)
	ADDQ(Imm(sliceBytes), list)
	MOVQ(Mem{Base: later}, w.next)
	ADDQ(laterAt, w.next)
	ADDQ(Imm(sliceBytes), later)
	w.wrap(later, laterAt, end)
	body()
	DECQ(argument("n"))
	JNZ(LabelRef("page"))
}

// wrap has later go on with the first page where the list ends.
func (w *walk) wrap(later, laterAt, end Register) {
	CMPQ(later, end)
	CMOVQCC(argument("pages"), later)
	CMOVQCC(argument("next"), laterAt)
}

// argument is where an argument lies.
func argument(name string) Mem {
	b, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

// steps adds left of them.
func (w *walk) steps(left Register, panels, apart int) {
	if w.unroll > 1 {
		CMPQ(left, Imm(uint64(w.unroll)))
		JLT(LabelRef("tail"))
		Label("loop")
		w.some(w.unroll, panels, apart)
		SUBQ(Imm(uint64(w.unroll)), left)
		CMPQ(left, Imm(uint64(w.unroll)))
		JGE(LabelRef("loop"))
		Label("tail")
		TESTQ(left, left)
		JZ(LabelRef("done"))
	}
	Label("single")
	w.some(1, panels, apart)
	DECQ(left)
	JNZ(LabelRef("single"))
	Label("done")
}

// some adds n steps.
func (w *walk) some(n, panels, apart int) {
	for p := range panels {
		for line := 0; line < n*w.bStep; line += 64 {
			PREFETCHT2(Mem{Base: w.next, Disp: p*apart + line})
		}
	}
	for u := range n {
		w.step(w, u, panels, apart)
	}
	ADDQ(U32(uint32(n*w.aStep)), w.a)
	ADDQ(U32(uint32(n*w.bStep)), w.b)
	ADDQ(U32(uint32(n*w.bStep)), w.next)
}

func (w *walk) clear(panels int) {
	for i := range 2 * panels {
		VXORPS(zmm[i], zmm[i], zmm[i])
	}
}

func (w *walk) store(c Register, panels int) {
	for i := range 2 * panels {
		VMOVUPS(zmm[i], Mem{Base: c, Disp: 64 * i})
	}
}

// fma is a step of fp32.
func (w *walk) fma(u, panels, apart int) {
	a := zmm[8+u%8]
	VBROADCASTSS(Mem{Base: w.a, Disp: 4 * u}, a)
	for p := range panels {
		for j := range 2 {
			VFMADD231PS(Mem{Base: w.b, Disp: p*apart + u*panelBytes + 64*j}, a, zmm[2*p+j])
		}
	}
}

// dot is a step of pairs of bf16.
func (w *walk) dot(u, panels, apart int) {
	const a, b = 8, 16
	VBROADCASTSS(Mem{Base: w.a, Disp: 4 * u}, zmm[a+u%8])
	for p := range panels {
		for j := range 2 {
			i := 2*p + j
			to := b + (u%4)*4 + i
			VMOVUPS(Mem{Base: w.b, Disp: p*apart + u*panelBytes + 64*j}, zmm[to])
			evex.DPBF16(i, a+u%8, to)
		}
	}
}

// widen is one where there is no instruction for them, of a row of floats.
func (w *walk) widen(u, panels, apart int) {
	const a, b = 8, 16
	alo, ahi := zmm[a+2*u], zmm[a+2*u+1]
	VBROADCASTSS(Mem{Base: w.a, Disp: 8 * u}, alo)
	VBROADCASTSS(Mem{Base: w.a, Disp: 8*u + 4}, ahi)
	for p := range panels {
		for j := range 2 {
			i := 2*p + j
			lo, hi := zmm[b+2*i], zmm[b+2*i+1]
			VMOVUPS(Mem{Base: w.b, Disp: p*apart + u*panelBytes + 64*j}, hi)
			halves(hi, lo)
			VFMADD231PS(lo, alo, zmm[i])
			VFMADD231PS(hi, ahi, zmm[i])
		}
	}
}

// block is a step of q8_0.
func (w *walk) block(_, panels, apart int) {
	const sum, weight, scale = 8, 16, 24
	for p := range panels {
		for j := range 2 {
			s := zmm[sum+2*p+j]
			VPBROADCASTD(Mem{Base: w.a, Disp: blockOffset}, s)
			for g := range 8 {
				VMOVUPS(Mem{Base: w.b, Disp: p*apart + scaleArea + (g*2+j)*64}, zmm[weight+g])
				VPDPBUSD_BCST(Mem{Base: w.a, Disp: 4 * g}, zmm[weight+g], s)
			}
			VCVTPH2PS(Mem{Base: w.b, Disp: p*apart + 32*j}, zmm[scale+2*p+j])
			VCVTDQ2PS(s, s)
			VMULPS_BCST(Mem{Base: w.a, Disp: blockScale}, zmm[scale+2*p+j], zmm[scale+2*p+j])
			VFMADD231PS(zmm[scale+2*p+j], s, zmm[2*p+j])
		}
	}
}

// nibbleBlock is a step of q4_0.
func (w *walk) nibbleBlock(_, panels, apart int) { w.halfBytes(panels, apart, true) }

// nibbles is one without scales.
func (w *walk) nibbles(_, panels, apart int) { w.halfBytes(panels, apart, false) }

// halfBytes is a step of q4_0. Upper halves of bytes count sixteenfold until
// their sum is complete.
func (w *walk) halfBytes(panels, apart int, scaled bool) {
	const sum, upper, low, high, mask = 8, 12, 16, 20, 30
	area := bare.scales
	if scaled {
		area = q4.scales
	}
	VMOVUPS(lowNibbles, zmm[mask])
	VPSLLD(Imm(4), zmm[mask], zmm[mask+1])
	for p := range panels {
		for j := range 2 {
			i := 2*p + j
			s, t := zmm[sum+i], zmm[upper+i]
			VPBROADCASTD(Mem{Base: w.a, Disp: blockOffset}, s)
			VPXORD(t, t, t)
			for g := range 4 {
				lo, hi := zmm[low+g], zmm[high+g]
				from := Mem{Base: w.b, Disp: p*apart + area + (g*2+j)*64}
				VMOVUPS(from, lo)
				VPANDD(lo, zmm[mask+1], hi)
				VPANDD(lo, zmm[mask], lo)
				VPDPBUSD_BCST(Mem{Base: w.a, Disp: 4 * g}, lo, s)
				VPDPBUSD_BCST(Mem{Base: w.a, Disp: 16 + 4*g}, hi, t)
			}
			VPSRAD(Imm(4), t, t)
			VPADDD(t, s, s)
			VCVTDQ2PS(s, s)
			if scaled {
				VCVTPH2PS(Mem{Base: w.b, Disp: p*apart + 32*j}, t)
				VMULPS_BCST(Mem{Base: w.a, Disp: blockScale}, t, t)
			} else {
				VBROADCASTSS(Mem{Base: w.a, Disp: blockScale}, t)
			}
			VFMADD231PS(t, s, zmm[i])
		}
	}
}
