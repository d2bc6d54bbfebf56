package kernel

import (
	"math"

	"promptgen/internal/half"
)

// PackBF16 rounds src to bfloat16, as products with BF16 round their operands.
func (c *CPU) PackBF16(dst []uint16, src []float32) {
	dst = dst[:len(src)]
	c.Parallel(len(src), func(lo, hi int) {
		d, s := dst[lo:hi], src[lo:hi]
		for i, v := range s[:len(d)] {
			d[i] = half.ToBF16(v)
		}
	})
}

// UnpackBF16 is the way back, which is exact.
func (c *CPU) UnpackBF16(dst []float32, src []uint16) {
	dst = dst[:len(src)]
	c.Parallel(len(src), func(lo, hi int) {
		d, s := dst[lo:hi], src[lo:hi]
		for i, v := range s[:len(d)] {
			d[i] = half.FromBF16(v)
		}
	})
}

// cutBF16 rounds to a bfloat16, away from zero where the cut bits and random,
// which is below 1<<16, carry. Infinity stays, and so does the NaN that
// arithmetic gives.
func cutBF16(f float32, random uint32) uint16 {
	return uint16((math.Float32bits(f) + random) >> 16)
}
