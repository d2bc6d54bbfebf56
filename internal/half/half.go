// Package half converts between float32 and the two 16-bit formats, IEEE 754's
// binary16 (FP16) and bfloat16 (BF16), one number at a time. It is the clear
// form of what the assembly does with vectors, and what files are read and
// written with.
package half

import "math"

// FromBF16 widens a bfloat16.
func FromBF16(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// ToBF16 rounds to the nearest bfloat16, ties to even; NaN stays NaN.
func ToBF16(f float32) uint16 {
	u := math.Float32bits(f)
	if f != f {
		return uint16(u>>16) | 0x40 // quiet: rounding could carry its mantissa away
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

// RoundBF16 is f rounded to bfloat16.
func RoundBF16(f float32) float32 { return FromBF16(ToBF16(f)) }

// FromFP16 widens an IEEE half.
func FromFP16(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp, frac := uint32(h>>10&31), uint32(h&0x3ff)
	switch exp {
	case 0: // zero, subnormal: a multiple of 2^-24
		return math.Float32frombits(sign | math.Float32bits(float32(frac)*(1.0/(1<<24))))
	case 31: // infinity, NaN
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// ToFP16 rounds to the nearest IEEE half, ties to even; what is too large
// becomes infinity, NaN stays NaN.
func ToFP16(f float32) uint16 {
	u := math.Float32bits(f)
	sign := uint16(u >> 16 & 0x8000)
	u &= 0x7fffffff
	switch {
	case u > 0x7f800000: // NaN
		return sign | 0x7e00 | uint16(u>>13&0x3ff)
	case u >= 0x47800000: // 65536 and above
		return sign | 0x7c00
	case u < 0x38800000: // below 2^-14: a multiple of 2^-24
		// Adding 0.5 pushes the bits that do not fit out at the bottom,
		// rounded by the machine; 0.5's own bits are then taken off.
		r := math.Float32frombits(u) + 0.5
		return sign | uint16(math.Float32bits(r)-math.Float32bits(0.5))
	}
	return sign | uint16((u-0x38000000+0xfff+u>>13&1)>>13)
}
