// Package approx has the approximations that more than one generator uses.
package approx

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// Exp2 are the coefficients of 2^f = 1 + Exp2[0]·f + … + Exp2[4]·f⁵ on [0,1), by
// least maximum of the relative error: 8e-8.
var Exp2 = [...]float64{0.6931513118, 0.2401644502, 0.0557999131, 0.009017030322, 0.00186713007}

// Exp2Half are those of a polynomial of degree 4, for results that are rounded to
// bf16: 2.9e-6, and 1e-8 on average, which is what counts for a sum.
var Exp2Half = [...]float64{0.6930448449, 0.2412802048, 0.05224247419, 0.01342668429}

// Polynomial sets register y to the polynomial in register f whose coefficients are
// given, the highest first.
func Polynomial(coefficients []Op, f, y Op) {
	VMOVUPS(coefficients[0], y)
	for _, c := range coefficients[1:] {
		VFMADD213PS(c, f, y)
	}
}
