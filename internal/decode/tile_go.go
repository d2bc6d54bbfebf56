package decode

import (
	"encoding/binary"
	"math"
	"unsafe"

	"promptgen/internal/kernel"
)

// The micro-kernels in Go, one row each.

var le = binary.LittleEndian

// operands makes slices of a micro-kernel's arguments, and its sums what they
// begin with.
func operands(k int, a *byte, aStep int, b *byte, bStep int, c, from *float32) (x, y []byte, sums []float32) {
	sums = unsafe.Slice(c, panelCols)
	copy(sums, unsafe.Slice(from, panelCols))
	return unsafe.Slice(a, k*aStep), unsafe.Slice(b, k*bStep), sums
}

func tileF32Go(k int, a *byte, _ int, b *byte, c *float32, _ int, from *float32, _ int) {
	x, y, sums := operands(k, a, 4, b, 4*panelCols, c, from)
	for ; len(x) > 0; x, y = x[4:], y[4*panelCols:] {
		v := math.Float32frombits(le.Uint32(x))
		for j := range sums {
			sums[j] += v * math.Float32frombits(le.Uint32(y[4*j:]))
		}
	}
}

func tileBF16Go(k int, a *byte, _ int, b *byte, c *float32, _ int, from *float32, _ int) {
	x, y, sums := operands(k, a, 4, b, 4*panelCols, c, from)
	for ; len(x) > 0; x, y = x[4:], y[4*panelCols:] {
		v0, v1 := pair(le.Uint32(x))
		for j := range sums {
			w0, w1 := pair(le.Uint32(y[4*j:]))
			sums[j] += v0 * w0
			sums[j] += v1 * w1
		}
	}
}

// pair widens two bf16.
func pair(w uint32) (float32, float32) {
	return math.Float32frombits(w << 16), math.Float32frombits(w &^ 0xffff)
}

func tileQ8Go(k int, a *byte, _ int, b *byte, c *float32, _ int, from *float32, _ int) {
	quantTile(k, a, b, q8Bytes, c, from, true, func(y []byte, j, i int) int32 {
		return int32(y[scaleBytes+(i/4*panelCols+j)*4+i%4])
	})
}

func tileQ4Go(k int, a *byte, _ int, b *byte, c *float32, _ int, from *float32, _ int) {
	quantTile(k, a, b, q4Bytes, c, from, true, func(y []byte, j, i int) int32 { return halfByte(y[scaleBytes:], j, i) })
}

func tileBareGo(k int, a *byte, _ int, b *byte, c *float32, _ int, from *float32, _ int) {
	quantTile(k, a, b, bareBytes, c, from, false, halfByte)
}

// halfByte is value i of column j of a block in 4 bits.
func halfByte(y []byte, j, i int) int32 {
	return int32(y[(i%16/4*panelCols+j)*4+i%4] >> (i / 16 * 4) & 15)
}

// quantTile multiplies quantized rows; weight is value i of column j of a block,
// its zero added; columns may have scales.
func quantTile(k int, a, b *byte, bStep int, c, from *float32, scales bool, weight func(y []byte, j, i int) int32) {
	x, y, sums := operands(k, a, blockBytes, b, bStep, c, from)
	for ; len(x) > 0; x, y = x[blockBytes:], y[bStep:] {
		scale := math.Float32frombits(le.Uint32(x[blockScale:]))
		offset := int32(le.Uint32(x[blockOffset:]))
		for j := range sums {
			dot := offset
			for i := range BlockLen {
				dot += int32(int8(x[i])) * weight(y, j, i)
			}
			factor := scale
			if scales {
				factor *= half(le.Uint16(y[2*j:]))
			}
			sums[j] += float32(dot) * factor
		}
	}
}

// half widens an fp16.
func half(h uint16) float32 {
	sign, exp, frac := uint32(h&0x8000)<<16, uint32(h>>10&31), uint32(h&0x3ff)
	switch exp {
	case 0:
		return math.Float32frombits(sign | math.Float32bits(float32(frac)/(1<<24)))
	case 31:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// toHalf rounds to fp16, ties to even; what is too large becomes infinity, NaN
// stays NaN.
func toHalf(f float32) uint16 {
	u := math.Float32bits(f)
	sign := uint16(u >> 16 & 0x8000)
	u &= 0x7fffffff
	switch {
	case u > 0x7f800000:
		return sign | 0x7e00
	case u >= 0x477ff000: // from the middle between the largest and the next on
		return sign | 0x7c00
	case u < 0x38800000: // a multiple of 2^-24
		return sign | uint16(math.RoundToEven(float64(math.Float32frombits(u))*(1<<24)))
	}
	return sign | uint16((u-0x38000000+0xfff+u>>13&1)>>13)
}

// quantizeGo makes blocks of an operand: 32 values as multiples of their largest
// magnitude's 127th part, and -zero times the sum of the multiples. NaN and
// infinity make the scale so, and with it every product.
func quantizeGo(blocks int, px *float32, pto *byte, zero int) {
	x, to := unsafe.Slice(px, blocks*BlockLen), unsafe.Slice(pto, blocks*blockBytes)
	for ; len(x) > 0; x, to = x[BlockLen:], to[blockBytes:] {
		var top uint32 // among the bits as integers NaN is the largest
		for _, v := range x[:BlockLen] {
			top = max(top, math.Float32bits(v)&0x7fffffff)
		}
		largest := math.Float32frombits(top)
		inv := 127 / largest
		sum := 0
		for i, v := range x[:BlockLen] {
			q := 0
			if p := v * inv; p == p {
				q = int(max(-128, min(127, math.RoundToEven(float64(p)))))
			}
			to[i] = byte(int8(q))
			sum += q
		}
		le.PutUint32(to[blockScale:], math.Float32bits(largest/127))
		le.PutUint32(to[blockOffset:], uint32(int32(-zero*sum)))
	}
}

func quantizeScaledGo(blocks int, px *float32, to *byte, zero int, pages *[]uint32, at int) {
	x := unsafe.Slice(px, blocks*BlockLen)
	for i, page := range unsafe.Slice(pages, blocks) {
		var scaled [BlockLen]float32
		for j, s := range halvesOf(page[at/4:])[:BlockLen] {
			scaled[j] = x[i*BlockLen+j] * half(s)
		}
		quantizeGo(1, &scaled[0], (*byte)(unsafe.Add(unsafe.Pointer(to), i*blockBytes)), zero)
	}
}

// roundGo rounds n values to bf16.
func roundGo(n int, px *float32, pto *byte) {
	x, to := unsafe.Slice(px, n), unsafe.Slice(pto, 2*n)
	for i, v := range x {
		le.PutUint16(to[2*i:], uint16(math.Float32bits(kernel.RoundBF16(v))>>16))
	}
}
