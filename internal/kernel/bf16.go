package kernel

import "math"

// bf16Bits rounds x to the nearest bfloat16 (ties to even) and returns its 16
// bits. NaN stays NaN.
func bf16Bits(x float32) uint32 {
	u := math.Float32bits(x)
	if x != x {
		return u>>16 | 0x40 // quiet: rounding could carry its mantissa away
	}
	return (u + 0x7fff + u>>16&1) >> 16
}

// RoundBF16 is x rounded to bfloat16.
func RoundBF16(x float32) float32 { return math.Float32frombits(bf16Bits(x) << 16) }

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
			d[i] = fromBF16(v)
		}
	})
}

// fromBF16 widens a bfloat16.
func fromBF16(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// cutBF16 rounds to a bfloat16, away from zero where the cut bits and random,
// which is below 1<<16, carry. Infinity stays, and so does the NaN that
// arithmetic gives.
func cutBF16(f float32, random uint32) uint16 {
	return uint16((math.Float32bits(f) + random) >> 16)
}
