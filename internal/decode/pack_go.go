package decode

import (
	"math"
	"unsafe"

	"promptgen/internal/half"
)

// Packing in Go. The rounding of the quantized dtypes is that of ggml's
// quantize_row_q8_0 and _q4_0, which files have too: a model is the same whether
// it was quantized when it was exported or when it was loaded.

// panelRows calls f for each step of a panel with its rows of 32 weights, and
// finds the largest magnitude's bits.
func panelRows(steps, unit int, x *float32, ld int, to *byte, bytes int, f func(to []byte, row func(i int) []float32)) (top uint32) {
	for s := range steps {
		row := func(i int) []float32 {
			return unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(x), (s*unit+i)*ld)), panelCols)
		}
		for i := range unit {
			for _, v := range row(i) {
				top = max(top, math.Float32bits(v)&0x7fffffff)
			}
		}
		f(unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(to), s*bytes)), bytes), row)
	}
	return top
}

func packF32Go(steps int, x *float32, ld int, to *byte) uint32 {
	return panelRows(steps, 1, x, ld, to, 4*panelCols, func(to []byte, row func(int) []float32) {
		for j, v := range row(0) {
			le.PutUint32(to[4*j:], math.Float32bits(v))
		}
	})
}

func packBF16Go(steps int, x *float32, ld int, to *byte) uint32 {
	return panelRows(steps, 2, x, ld, to, 4*panelCols, func(to []byte, row func(int) []float32) {
		for j, v := range row(0) {
			le.PutUint32(to[4*j:], uint32(half.ToBF16(v))|uint32(half.ToBF16(row(1)[j]))<<16)
		}
	})
}

func packQ8Go(steps int, x *float32, ld int, to *byte) uint32 {
	return panelRows(steps, BlockLen, x, ld, to, q8Bytes, func(to []byte, row func(int) []float32) {
		for j := range panelCols {
			var largest float32
			for i := range BlockLen {
				largest = max(largest, float32(math.Abs(float64(row(i)[j]))))
			}
			inv := putScale(to, j, largest/127)
			for i := range BlockLen {
				q := int32(math.Round(float64(row(i)[j] * inv)))
				to[scaleBytes+(i/4*panelCols+j)*4+i%4] = byte(q + q8Zero)
			}
		}
	})
}

func packQ4Go(steps int, x *float32, ld int, to *byte) uint32 {
	return panelRows(steps, BlockLen, x, ld, to, q4Bytes, func(to []byte, row func(int) []float32) {
		for j := range panelCols {
			var far float32
			for i := range BlockLen {
				if v := row(i)[j]; math.Abs(float64(v)) > math.Abs(float64(far)) {
					far = v
				}
			}
			inv := putScale(to, j, far/-8)
			nibble := func(i int) byte { return byte(max(0, min(15, int32(float32(row(i)[j]*inv)+8.5)))) }
			for i := range BlockLen / 2 {
				to[scaleBytes+(i/4*panelCols+j)*4+i%4] = nibble(i) | nibble(i+BlockLen/2)<<4
			}
		}
	})
}

// putScale stores the scale of column j of a block and returns its inverse, 0
// for 0.
func putScale(to []byte, j int, scale float32) (inv float32) {
	le.PutUint16(to[2*j:], half.ToFP16(scale))
	if scale == 0 {
		return 0
	}
	return 1 / scale
}
