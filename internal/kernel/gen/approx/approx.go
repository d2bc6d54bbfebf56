// Package approx has the approximations that more than one generator uses.
package approx

// Exp2 are the coefficients of 2^f = 1 + Exp2[0]·f + … + Exp2[4]·f⁵ on [0,1), by
// least maximum of the relative error: 8e-8.
var Exp2 = [...]float64{0.6931513118, 0.2401644502, 0.0557999131, 0.009017030322, 0.00186713007}
