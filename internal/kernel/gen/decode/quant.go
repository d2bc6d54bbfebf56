package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"

	"promptgen/internal/kernel/gen/approx"
	"promptgen/internal/kernel/gen/evex"
)

// quantFormat is a quantized panel: for each block of 32 values of the sum 32
// fp16 scales, if it has any, then the values, groups of four side by side for
// each column. In 4 bits group g+4 lies in the upper halves of group g's bytes.
type quantFormat struct {
	bytes  int // of a block of a panel
	bits   int
	scales int // bytes of them
}

var (
	q8   = quantFormat{scaleArea + 32*32, 8, scaleArea}
	q4   = quantFormat{scaleArea + 32*16, 4, scaleArea}
	bare = quantFormat{32 * 16, 4, 0} // values of a cache: the tokens have the scales
)

// scaleArea is where the values of a quantized block begin.
const scaleArea = 64

// A block of a row of activations: 32 signed bytes, their scale (float32), and
// what the products start from, minus the weights' zero times the bytes' sum.
const (
	blockBytes  = 40
	blockScale  = 32
	blockOffset = 36
)

// quantTile multiplies by VPDPBUSD, unsigned weights by signed activations: a
// block's sum is exact, is then scaled and added to the float32 sum.
func quantTile(name string, m int, q quantFormat) {
	t := begin(name, zmm, m)
	r := t.regs
	sum, w := 2*m, 4*m // sums of the block; weights (2 or 4), later the scales
	var nibbles VecPhysical
	if q.bits == 4 {
		nibbles = r[31]
		VMOVUPS(lowNibbles, nibbles)
	}
	Label("block")
	if m > alone {
		ask(t.b, q.bytes)
	}
	for i := range m {
		VPBROADCASTD(t.row(i, blockOffset), r[sum+2*i])
		VMOVDQA64(r[sum+2*i], r[sum+2*i+1])
	}
	dot := func(g, wj, j int) { // group g of four values
		for i := range m {
			VPDPBUSD_BCST(t.row(i, 4*g), r[wj], r[sum+2*i+j])
		}
	}
	for g := range q.bits { // of a group in 4 bits there are two in a register
		for j := range 2 {
			VMOVUPS(Mem{Base: t.b, Disp: q.scales + (g*2+j)*64}, r[w+j])
			if q.bits == 4 {
				VPSRLW(U8(4), r[w+j], r[w+2+j])
				VPANDD(nibbles, r[w+2+j], r[w+2+j])
				VPANDD(nibbles, r[w+j], r[w+j])
				dot(g+4, w+2+j, j)
			}
			dot(g, w+j, j)
		}
	}
	for j := range 2 {
		if q.scales > 0 {
			VCVTPH2PS(Mem{Base: t.b, Disp: 32 * j}, r[w+j])
		}
	}
	for i := range m {
		for j := range 2 {
			s := r[sum+2*i+j]
			VCVTDQ2PS(s, s)
			if q.scales > 0 {
				VMULPS_BCST(t.row(i, blockScale), r[w+j], r[w+2])
			} else {
				VBROADCASTSS(t.row(i, blockScale), r[w+2])
			}
			VFMADD231PS(r[w+2], s, r[2*i+j])
		}
	}
	t.advance(blockBytes, q.bytes)
	DECQ(t.k)
	JNZ(LabelRef("block"))
	t.finish()
}

// quantTileAVX2 does one row, or two, for which registers suffice eight columns at
// a time, without VPDPBUSD. Products of pairs are added in 16 bits. For that signed
// weights of 8 bits must give their sign to the activations; those of 4 bits are so
// small that a block's groups fit in 16 bits too.
func quantTileAVX2(name string, m int, q quantFormat) {
	t := begin(name, ymm, m)
	r := t.regs
	across := 4 / (m * m) // registers of columns at a time
	sums, w, a, p := r[4*m:], r[10], r[11], r[12]
	sum := func(i, j int) VecPhysical { return sums[i*across+j%across] }
	ones, bias := r[14], r[15]
	nibbles, signed := r[13], r[13] // in 4 bits, in 8
	VMOVUPS(lowNibbles, nibbles)
	VMOVUPS(wordOnes, ones)
	VMOVUPS(signBits, bias)
	weights := func(g, j int) Mem { return Mem{Base: t.b, Disp: q.scales + g%q.bits*128 + j*32} }
	byHalves := func(i, j int) {
		VPMADDUBSW(a, w, p)
		VPADDW(p, sum(i, j), sum(i, j))
	}
	byBytes := func(i, j int) { // of which w are the magnitudes
		VPSIGNB(signed, a, p)
		VPMADDUBSW(p, w, p)
		VPMADDWD(ones, p, p)
		VPADDD(p, sum(i, j), sum(i, j))
	}
	Label("block")
	for first := 0; first < 4; first += across {
		for j := first; j < first+across; j++ {
			for i := range m {
				VPXOR(sum(i, j), sum(i, j), sum(i, j))
			}
		}
		for g := range 8 {
			if m == 1 {
				VPBROADCASTD(t.row(0, 4*g), a)
			}
			for j := first; j < first+across; j++ {
				multiply := byHalves
				switch {
				case q.bits == 8:
					multiply = byBytes
					VPXOR(weights(g, j), bias, signed)
					VPABSB(signed, w)
				case g < 4:
					VPAND(weights(g, j), nibbles, w)
				default:
					VMOVUPS(weights(g, j), w)
					VPSRLW(U8(4), w, w)
					VPAND(nibbles, w, w)
				}
				for i := range m {
					if m > 1 {
						VPBROADCASTD(t.row(i, 4*g), a)
					}
					multiply(i, j)
				}
			}
		}
		for j := first; j < first+across; j++ {
			if q.scales > 0 {
				VCVTPH2PS(Mem{Base: t.b, Disp: 16 * j}, w)
			}
			for i := range m {
				s := sum(i, j)
				if q.bits == 4 {
					VPMADDWD(ones, s, s)
					VPBROADCASTD(t.row(i, blockOffset), a)
					VPADDD(a, s, s)
				}
				VCVTDQ2PS(s, s)
				VBROADCASTSS(t.row(i, blockScale), a)
				if q.scales > 0 {
					VMULPS(a, w, a)
				}
				VFMADD231PS(a, s, r[4*i+j])
			}
		}
	}
	t.advance(blockBytes, q.bytes)
	DECQ(t.k)
	JNZ(LabelRef("block"))
	t.finish()
}

// quantize makes blocks of activations.
func quantize(name string, regs []VecPhysical) {
	TEXT(name, NOSPLIT, "func(blocks int, x *float32, to *byte, zero int)")
	Pragma("noescape")
	b := newBlock(regs)
	n, x := Load(Param("blocks"), GP64()), Load(Param("x"), GP64())
	Label("block")
	for i := range b.count {
		VMOVUPS(Mem{Base: x, Disp: b.bytes * i}, regs[i])
	}
	b.write()
	ADDQ(U32(128), x)
	DECQ(n)
	JNZ(LabelRef("block"))
	end()
}

// block is one of activations in the making, its values in the first registers.
type block struct {
	regs         []VecPhysical
	count, bytes int // registers, and what one holds
	to, zero     Register
}

// Registers of a block behind its values.
const (
	blockTop, blockFactor, blockRest = 4, 8, 9
	blockSteps, blockScales          = 11, 10
)

// newBlock is of the arguments to and zero.
func newBlock(regs []VecPhysical) *block {
	b := &block{regs: regs, count: 4, bytes: 32, to: Load(Param("to"), GP64()), zero: Load(Param("zero"), GP64())}
	if len(regs) > 16 {
		b.count, b.bytes = 2, 64
	}
	VMOVSS(steps127, xmm[blockSteps])
	return b
}

// scale multiplies the values by fp16 from scales on.
func (b *block) scale(scales Mem) {
	rest := b.regs[blockRest]
	for i := range b.count {
		VCVTPH2PS(scales.Offset(b.bytes/2*i), rest)
		VMULPS(rest, b.regs[i], b.regs[i])
	}
}

// write stores the block and goes on to the next. The largest magnitude is found
// among the bits as integers, so that NaN counts as the largest.
func (b *block) write() {
	r, wide := b.regs, b.count == 2
	for i := range b.count {
		if wide {
			VPANDD(absolute, r[i], r[blockTop+i])
		} else {
			VPAND(absolute, r[i], r[blockTop+i])
		}
	}
	fold(r, blockTop, b.count, func(a, b, dst Op) { VPMAXSD(a, b, dst) })
	VDIVSS(xmm[blockSteps], xmm[blockTop], xmm[blockScales]) // scale = max/127
	VMOVSS(xmm[blockScales], Mem{Base: b.to, Disp: blockScale})
	VDIVSS(xmm[blockTop], xmm[blockSteps], xmm[blockFactor]) // 127/max
	VBROADCASTSS(xmm[blockFactor], r[blockFactor])
	for i := range b.count {
		VMULPS(r[blockFactor], r[i], r[i])
		VCVTPS2DQ(r[i], r[i])
		if wide {
			VPMOVSDB(r[i], Mem{Base: b.to, Disp: 16 * i})
		}
	}
	if !wide {
		VPACKSSDW(Y1, Y0, Y4)
		VPACKSSDW(Y3, Y2, Y5)
		VPACKSSWB(Y5, Y4, Y4)
		VMOVUPS(unpacked, Y5)
		VPERMD(Y4, Y5, Y4)
		VMOVUPS(Y4, Mem{Base: b.to})
	}
	fold(r, 0, b.count, func(a, b, dst Op) { VPADDD(a, b, dst) })
	sum := GP32()
	VMOVD(X0, sum)
	IMULL(b.zero.(GPVirtual).As32(), sum)
	NEGL(sum)
	MOVL(sum, Mem{Base: b.to, Disp: blockOffset})
	ADDQ(U32(blockBytes), b.to)
}

// foldInt joins registers a and the next and reduces them to a's lowest lane.
func foldInt(a int, op func(a, b, dst Op)) { fold(zmm, a, 2, op) }

// fold does so with count registers, of which the second ends in rubble.
func fold(regs []VecPhysical, a, count int, op func(a, b, dst Op)) {
	for i := 1; i < count; i++ {
		op(regs[a+i], regs[a], regs[a])
	}
	b := a + 1
	if len(regs) > 16 {
		VEXTRACTI64X4(U8(1), zmm[a], ymm[b])
		op(ymm[b], ymm[a], ymm[a])
	}
	VEXTRACTI128(U8(1), ymm[a], xmm[b])
	op(xmm[b], xmm[a], xmm[a])
	VPSHUFD(U8(0x4e), xmm[a], xmm[b])
	op(xmm[b], xmm[a], xmm[a])
	VPSHUFD(U8(0xb1), xmm[a], xmm[b])
	op(xmm[b], xmm[a], xmm[a])
}

// storeQ4 makes a token's values nibbles of words of panels.
func storeQ4() {
	TEXT("storeQ4AVX512", NOSPLIT, "func(panels int, x *float32, to *uint32, shift int, scale *uint16)")
	Pragma("noescape")
	n, x, to := Load(Param("panels"), GP64()), Load(Param("x"), GP64()), Load(Param("to"), GP64())
	shift, scale := Load(Param("shift"), GP64()), Load(Param("scale"), GP64())
	left, from := GP64(), GP64()
	each := func(label string, body func()) {
		MOVQ(n, left)
		MOVQ(x, from)
		Label(label)
		body()
		ADDQ(U32(128), from)
		DECQ(left)
		JNZ(LabelRef(label))
	}
	for i := range 2 {
		VPXORD(zmm[i], zmm[i], zmm[i])
	}
	each("far", func() {
		for i := range 2 { // signs last
			VPROLD(U8(1), Mem{Base: from, Disp: 64 * i}, zmm[2])
			VPMAXUD(zmm[2], zmm[i], zmm[i])
		}
	})
	q4Step()
	VCVTPS2PH(Imm(0), X1, X1)
	VPEXTRW(Imm(0), X1, Mem{Base: scale})
	const inv, mask, nibble, word = 3, 4, 5, 8
	VBROADCASTSS(X2, zmm[inv])
	VMOVUPS(fifteen, zmm[nibble])
	VMOVQ(shift, X6)
	VPSLLD(X6, zmm[nibble], zmm[mask])
	each("store", func() {
		for i := range 2 {
			w, at := zmm[word+i], Mem{Base: to, Disp: 64 * i}
			nibbleOf(Mem{Base: from, Disp: 64 * i}, zmm[inv], zmm[nibble], w)
			VPSLLD(X6, w, w)
			VPANDND(at, zmm[mask], zmm[word+2+i])
			VPORD(zmm[word+2+i], w, w)
			VMOVUPS(w, at)
		}
		ADDQ(U32(uint32(bare.bytes)), to)
	})
	end()
}

// storeKeyQ4 makes a token's key a column of a panel of q4_0.
func storeKeyQ4() {
	TEXT("storeKeyQ4AVX512", NOSPLIT, "func(blocks int, x *float32, to *uint32, column int)")
	Pragma("noescape")
	n, x, to := Load(Param("blocks"), GP64()), Load(Param("x"), GP64()), Load(Param("to"), GP64())
	column := Load(Param("column"), GP64())
	const inv, nibble, word = 3, 4, 5
	VMOVUPS(fifteen, zmm[nibble])
	Label("block")
	for i := range 2 {
		VPROLD(U8(1), Mem{Base: x, Disp: 64 * i}, zmm[i])
	}
	q4Step()
	VCVTPS2PH(Imm(0), X1, X1)
	VPEXTRW(Imm(0), X1, Mem{Base: to, Index: column, Scale: 2})
	VBROADCASTSS(X2, zmm[inv])
	for i := range 2 {
		nibbleOf(Mem{Base: x, Disp: 64 * i}, zmm[inv], zmm[nibble], zmm[word+i])
	}
	VPSLLD(U8(4), zmm[word+1], zmm[word+1])
	VPORD(zmm[word+1], zmm[word], zmm[word])
	VPMOVDB(zmm[word], X1)
	for i := range 4 {
		VPEXTRD(Imm(uint64(i)), X1, Mem{Base: to, Index: column, Scale: 4, Disp: scaleArea + 4*32*i})
	}
	ADDQ(U32(128), x)
	ADDQ(U32(uint32(q4.bytes)), to)
	DECQ(n)
	JNZ(LabelRef("block"))
	end()
}

// q4Step sets X1 to the scale of values of which registers 0 and 1 hold the
// largest bits, their signs last, and X2 to its inverse.
func q4Step() {
	foldInt(0, func(a, b, dst Op) { VPMAXUD(a, b, dst) })
	far, value := GP32(), GP32()
	VMOVD(X0, far)
	MOVL(far, value)
	RORL(Imm(1), value)
	VMOVD(value, X1)
	VMULSS(minusEighth, X1, X1)
	VMOVSS(oneFloat, X2)
	VDIVSS(X1, X2, X2)
	CMPL(far, Imm(1))
	JHI(LabelRef("some"))
	VXORPS(X2, X2, X2)
	Label("some")
}

// nibbleOf makes values multiples of a step, 8 added.
func nibbleOf(from, inv, fifteen, to Op) {
	VMULPS(from, inv, to)
	VADDPS(eightAndHalf, to, to)
	VCVTTPS2DQ(to, to)
	VPMINSD(fifteen, to, to)
	VPANDD(fifteen, to, to)
}

// roundBF16 rounds n floats, a multiple of 32, to bf16.
func roundBF16() {
	TEXT("roundBF16AVX512", NOSPLIT, "func(n int, x *float32, to *byte)")
	Pragma("noescape")
	n, x, to := Load(Param("n"), GP64()), Load(Param("x"), GP64()), Load(Param("to"), GP64())
	Label("more")
	VMOVUPS(Mem{Base: x}, Z0)
	VMOVUPS(Mem{Base: x, Disp: 64}, Z1)
	evex.CvtBF16(2, 1, 0)
	VMOVUPS(Z2, Mem{Base: to})
	ADDQ(U32(128), x)
	ADDQ(U32(64), to)
	SUBQ(U32(32), n)
	JNZ(LabelRef("more"))
	end()
}

var (
	upperHalf, lowNibbles, wordOnes, signBits, absolute, steps127    Mem
	roundHalf, lowByte, minusEighth, eightAndHalf, fifteen, oneFloat Mem

	upperBytes, lowerBytes, lowerWords, magnitude, lowThree, bitThree Mem
	unpacked                                                          Mem

	exp2 []Mem // the polynomial's coefficients, the highest first
)

// constants, each filling 64 bytes.
func constants() {
	fill := func(name string, word uint32) Mem {
		m := GLOBL(name, RODATA|NOPTR)
		for i := range 16 {
			DATA(4*i, U32(word))
		}
		return m
	}
	upperHalf = fill("upperHalf", 0xffff0000)
	lowNibbles = fill("lowNibbles", 0x0f0f0f0f)
	wordOnes = fill("wordOnes", 0x00010001)
	signBits = fill("signBits", 0x80808080)
	absolute = fill("absolute", 0x7fffffff)
	steps127 = fill("steps127", 0x42fe0000)
	roundHalf = fill("roundHalf", 0x7fff)
	lowByte = fill("lowByte", 0xff)
	minusEighth = fill("minusEighth", 0xbe000000)
	eightAndHalf = fill("eightAndHalf", 0x41080000)
	fifteen = fill("fifteen", 15)
	oneFloat = fill("oneFloat", 0x3f800000)
	lowerBytes = fill("lowerBytes", 0x00ff00ff)
	lowerWords = fill("lowerWords", 0x0000ffff)
	magnitude = fill("magnitude", 0x7f7f7f7f)
	lowThree = fill("lowThree", 0x07070707)
	bitThree = fill("bitThree", 0x08080808)
	for i := len(approx.Exp2) - 1; i >= 0; i-- {
		exp2 = append(exp2, fill(fmt.Sprintf("power%d", i+1), math.Float32bits(float32(approx.Exp2[i]))))
	}
	exp2 = append(exp2, oneFloat)
	unpacked = GLOBL("unpacked", RODATA|NOPTR) // VPERMD: what packing two lanes apart has mixed
	for i := range 8 {
		DATA(4*i, U32(uint32(i/2+i%2*4)))
	}
	upperBytes = GLOBL("upperBytes", RODATA|NOPTR) // of the sixteen codes, from 0 on
	for i := range 16 {
		DATA(4*i, U32([]uint32{0x03020100, 0x07060504, 0x83828180, 0x87868584}[i%4]))
	}
}
