package decode

import (
	"encoding/binary"
	"math"
	"unsafe"

	"promptgen/internal/half"
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
				factor *= half.FromFP16(le.Uint16(y[2*j:]))
			}
			sums[j] += float32(dot) * factor
		}
	}
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
			scaled[j] = x[i*BlockLen+j] * half.FromFP16(s)
		}
		quantizeGo(1, &scaled[0], (*byte)(unsafe.Add(unsafe.Pointer(to), i*blockBytes)), zero)
	}
}

// roundGo rounds n values to bf16.
func roundGo(n int, px *float32, pto *byte) {
	x, to := unsafe.Slice(px, n), unsafe.Slice(pto, 2*n)
	for i, v := range x {
		le.PutUint16(to[2*i:], uint16(math.Float32bits(half.RoundBF16(v))>>16))
	}
}
