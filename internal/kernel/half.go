package kernel

import "math"

// PackBF16 rounds src to bfloat16, as products with BF16 round their operands.
func (c *CPU) PackBF16(dst []uint16, src []float32) {
	dst = dst[:len(src)]
	c.Parallel(len(src), func(lo, hi int) {
		d, s := dst[lo:hi], src[lo:hi]
		for i, v := range s[:len(d)] {
			d[i] = uint16(bf16Bits(v))
		}
	})
}

// UnpackBF16 is the way back, which is exact.
func (c *CPU) UnpackBF16(dst []float32, src []uint16) {
	dst = dst[:len(src)]
	c.Parallel(len(src), func(lo, hi int) {
		d, s := dst[lo:hi], src[lo:hi]
		for i, v := range s[:len(d)] {
			d[i] = math.Float32frombits(uint32(v) << 16)
		}
	})
}
