package kernel

// copyRowsBy packs an operand stored [k][r] by copying, lanes floats at a time.
func copyRowsBy(lanes int, f func(k int, src *float32, stride int, dst *float32, width, get, put int)) func([]float32, int, operand, int, int, int, int, *tile) int {
	return func(dst []float32, width int, o operand, r, rows, k, kc int, t *tile) int {
		n, run, stride := kc, f, o.ld*4
		if t.pairs {
			n, run = kc/2, packCopyBF16
			if o.halves {
				run = packCopyHalves
			}
		}
		if n == 0 {
			return 0
		}
		for c := 0; c < width; c += lanes {
			put := min(lanes, width-c)
			get := max(0, min(put, rows-c))
			// past the last row there is nothing to read: take its lane, write zeros
			run(n, o.at(k, r+min(c, rows-1)), stride, ptr(dst, c), width*4, get, put)
		}
		if t.pairs {
			return 2 * n
		}
		return n
	}
}

// turn16 packs an operand stored [r][k] by transposing blocks of 16 rows by 16
// values (32 to be rounded to bf16).
func turn16(dst []float32, width int, o operand, r, rows, k, kc int, t *tile) int {
	if o.halves { // whose pairs lie side by side
		o.halves = false
		return 2 * turn16(dst, width, o, r, rows, k/2, kc/2, &tile{})
	}
	step := 16
	if t.pairs {
		step = 32
	}
	blocks := kc / step
	if blocks == 0 {
		return 0
	}
	for c := 0; c < width; c += 16 {
		first := min(c, rows-1)
		var offsets [16]int
		for i := range offsets {
			offsets[i] = min(i, rows-1-first) * o.ld * 4 // past the last row: that row again
		}
		src, to, put, stream := ptr(o.x, (r+first)*o.ld+k), ptr(dst, c), min(16, width-c), 0
		if o.shared && width%lineFloats == 0 {
			stream = 1
		}
		if t.pairs { // called by name, for offsets to stay on the stack
			packTurnBF16(blocks, src, &offsets, to, width*4, put, stream)
		} else {
			packTurn(blocks, src, &offsets, to, width*4, put, stream)
		}
	}
	return blocks * step
}
