package kernel

import "unsafe"

func tilesGo(tiles, k int, a *float32, da int, b, c *float32, ldc, acc int, _ *int) {
	for i := range tiles {
		tileGo(k, off(a, 4*i*da), b, off(c, 4*i*2*ldc), ldc, acc)
	}
}

// tileGo is the micro-kernel in Go: a tile of 2x4, which is what a compiler
// keeps in sixteen registers.
func tileGo(k int, pa, pb, pc *float32, ldc, acc int) {
	a, b := unsafe.Slice(pa, 2*k), unsafe.Slice(pb, 4*k)
	var c00, c01, c02, c03, c10, c11, c12, c13 float32
	for len(a) >= 2 && len(b) >= 4 {
		a0, a1 := a[0], a[1]
		b0, b1, b2, b3 := b[0], b[1], b[2], b[3]
		c00 += a0 * b0
		c01 += a0 * b1
		c02 += a0 * b2
		c03 += a0 * b3
		c10 += a1 * b0
		c11 += a1 * b1
		c12 += a1 * b2
		c13 += a1 * b3
		a, b = a[2:], b[4:]
	}
	c := unsafe.Slice(pc, ldc+4)
	r0, r1 := c[:4], c[ldc:ldc+4]
	if acc != 0 {
		c00, c01, c02, c03 = c00+r0[0], c01+r0[1], c02+r0[2], c03+r0[3]
		c10, c11, c12, c13 = c10+r1[0], c11+r1[1], c12+r1[2], c13+r1[3]
	}
	r0[0], r0[1], r0[2], r0[3] = c00, c01, c02, c03
	r1[0], r1[1], r1[2], r1[3] = c10, c11, c12, c13
}
