package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// A packing kernel makes a panel of 32 columns of float32 weights, rows ld bytes
// apart: a register is sixteen columns throughout, so that nothing is turned
// round. It returns the largest magnitude's bits.
type packing struct {
	x, row, ld, to Register
	top            [2]VecPhysical
}

const packSignature = "func(steps int, x *float32, ld int, to *byte) uint32"

// packer declares one: body packs a step of rows rows into bytes of the panel.
func packer(name string, rows, bytes int, body func(p *packing)) {
	TEXT(name, NOSPLIT, packSignature)
	Pragma("noescape")
	n := Load(Param("steps"), GP64())
	p := &packing{
		x: Load(Param("x"), GP64()), row: GP64(), ld: Load(Param("ld"), GP64()), to: Load(Param("to"), GP64()),
		top: [2]VecPhysical{Z0, Z1},
	}
	for _, t := range p.top {
		VPXORD(t, t, t)
	}
	VMOVUPS(absolute, Z31)
	Label("step")
	body(p)
	for range rows {
		ADDQ(p.ld, p.x)
	}
	ADDQ(U32(uint32(bytes)), p.to)
	DECQ(n)
	JNZ(LabelRef("step"))
	foldInt(0, func(a, b, dst Op) { VPMAXSD(a, b, dst) })
	top := GP32()
	VMOVD(X0, top)
	Store(top, ReturnIndex(0))
	end()
}

// rows runs f for n rows from the step's first on.
func (p *packing) rows(n int, f func(r int, cols [2]Mem)) {
	MOVQ(p.x, p.row)
	for r := range n {
		f(r, [2]Mem{{Base: p.row}, {Base: p.row, Disp: 64}})
		if r < n-1 {
			ADDQ(p.ld, p.row)
		}
	}
}

func (p *packing) note(j int, value, scratch VecPhysical) {
	VPANDD(Z31, value, scratch)
	VPMAXSD(scratch, p.top[j], p.top[j])
}

func packF32() {
	packer("packF32AVX512", 1, panelBytes, func(p *packing) {
		p.rows(1, func(_ int, cols [2]Mem) {
			for j, c := range cols {
				VMOVUPS(c, zmm[2+j])
				p.note(j, zmm[2+j], zmm[4+j])
				VMOVUPS(zmm[2+j], Mem{Base: p.to, Disp: 64 * j})
			}
		})
	})
}

// packBF16 rounds to even; what is not finite is refused by its magnitude.
func packBF16() {
	packer("packBF16AVX512", 2, panelBytes, func(p *packing) {
		half := zmm[30]
		VMOVUPS(roundHalf, half)
		p.rows(2, func(r int, cols [2]Mem) {
			for j, c := range cols {
				v, odd := zmm[2+2*r+j], zmm[8+2*r+j]
				VMOVUPS(c, v)
				p.note(j, v, odd)
				VPSLLD(Imm(15), v, odd)
				VPSRLD(Imm(31), odd, odd)
				VPADDD(half, v, v)
				VPADDD(odd, v, v)
				if r == 0 {
					VPSRLD(Imm(16), v, v)
				} else {
					VPANDD(upperHalf, v, v)
					VPORD(zmm[2+j], v, v)
					VMOVUPS(v, Mem{Base: p.to, Disp: 64 * j})
				}
			}
		})
	})
}

// packQ8 is ggml's rounding: a block's scale is its largest magnitude's 127th
// part, values go to the nearest multiple, from the middle away from 0.
func packQ8() {
	packer("packQ8AVX512", 32, q8.bytes, func(p *packing) {
		const largest, inv, word, val, whole = 2, 4, 6, 8, 10
		for j := range 2 {
			VPXORD(zmm[largest+j], zmm[largest+j], zmm[largest+j])
		}
		p.rows(32, func(_ int, cols [2]Mem) {
			for j, c := range cols {
				VPANDD(c, Z31, zmm[val+j])
				VPMAXSD(zmm[val+j], zmm[largest+j], zmm[largest+j])
			}
		})
		for j := range 2 {
			VPMAXSD(zmm[largest+j], p.top[j], p.top[j])
			VDIVPS(steps127, zmm[largest+j], zmm[val+j])
			p.scale(j, zmm[val+j], zmm[inv+j])
		}
		p.rows(32, func(r int, cols [2]Mem) {
			for j, c := range cols {
				v, w := zmm[val+j], zmm[whole+j]
				VMULPS(c, zmm[inv+j], v)
				VCVTTPS2DQ(v, w)
				VCVTDQ2PS(w, zmm[12+j])
				VSUBPS(zmm[12+j], v, v)
				VADDPS(v, v, v)
				VCVTTPS2DQ(v, v)
				VPADDD(v, w, w)
				VPANDD(lowByte, w, w)
				join(r%4, 8*(r%4), w, zmm[word+j])
				if r%4 == 3 {
					VPXORD(signBits, zmm[word+j], zmm[word+j])
					VMOVUPS(zmm[word+j], Mem{Base: p.to, Disp: scaleArea + r/4*128 + 64*j})
				}
			}
		})
	})
}

// packQ4 is ggml's too: the value furthest from 0 becomes -8.
func packQ4() {
	packer("packQ4AVX512", 32, q4.bytes, func(p *packing) {
		const far, largest, inv, word, val, mag = 2, 4, 6, 8, 16, 18
		for i := range 4 {
			VPXORD(zmm[far+i], zmm[far+i], zmm[far+i])
		}
		p.rows(32, func(_ int, cols [2]Mem) {
			for j, c := range cols {
				VMOVUPS(c, zmm[val+j])
				VPANDD(Z31, zmm[val+j], zmm[mag+j])
				VPCMPGTD(zmm[largest+j], zmm[mag+j], K1)
				VMOVDQA32(zmm[val+j], K1, zmm[far+j])
				VPMAXSD(zmm[mag+j], zmm[largest+j], zmm[largest+j])
			}
		})
		for j := range 2 {
			VPMAXSD(zmm[largest+j], p.top[j], p.top[j])
			VMULPS(minusEighth, zmm[far+j], zmm[val+j])
			p.scale(j, zmm[val+j], zmm[inv+j])
		}
		VPXORD(Z30, Z30, Z30)
		p.rows(32, func(r int, cols [2]Mem) {
			for j, c := range cols {
				v, w := zmm[val+j], zmm[word+2*(r%16/4)+j] // words 4g… live until 16+4g…
				VMULPS(c, zmm[inv+j], v)
				VADDPS(eightAndHalf, v, v)
				VCVTTPS2DQ(v, v)
				VPMAXSD(Z30, v, v)
				VPMINSD(fifteen, v, v)
				join(r%4+r/16*4, 8*(r%4)+4*(r/16), v, w)
				if r >= 16 && r%4 == 3 {
					VMOVUPS(w, Mem{Base: p.to, Disp: scaleArea + (r-16)/4*128 + 64*j})
				}
			}
		})
	})
}

// scale stores sixteen scales as fp16 and sets inv to 1/scale, or 0 for 0.
func (p *packing) scale(j int, scale, inv VecPhysical) {
	y := []VecPhysical{Y14, Y15}[j]
	VCVTPS2PH(Imm(0), scale, y)
	VMOVUPS(y, Mem{Base: p.to, Disp: 32 * j})
	VPXORD(inv, inv, inv)
	VCMPPS(Imm(4), inv, scale, K1) // not equal
	VMOVUPS(oneFloat, zmm[14+j])
	VDIVPS_Z(scale, zmm[14+j], K1, inv)
}

// join puts v, shifted by so many bits, into word, whose first it may be.
func join(i, bits int, v, word VecPhysical) {
	if bits > 0 {
		VPSLLD(Imm(uint64(bits)), v, v)
	}
	if i == 0 {
		VMOVDQA64(v, word)
	} else {
		VPORD(v, word, word)
	}
}
