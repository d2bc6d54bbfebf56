package kernel

// copyRowsBy packs an operand stored [k][r] by copying, lanes floats at a time.
func copyRowsBy(lanes int, f func(k int, src *float32, stride int, dst *float32, width, get, put int)) func([]float32, int, operand, int, int, int, int, *tile) int {
	return func(dst []float32, width int, o operand, r, rows, k, kc int, t *tile) int {
		n, run, stride := kc, f, o.ld*4
		if t.pairs {
			n, run = kc/2, packCopyBF16
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
// values (32 to be rounded to bf16). What no block is left for lies in a last one
// that begins within the one before.
func turn16(dst []float32, width int, o operand, r, rows, k, kc int, t *tile) int {
	if o.panels {
		return turnOfPanels(dst, width, o, r, k, kc)
	}
	step, values := 16, 1 // of a slot
	if t.pairs {
		step, values = 32, 2
	}
	done := kc - kc%values
	if done < step {
		return 0
	}
	past := o.shared && width%lineFloats == 0
	for c := 0; c < width; c += 16 {
		first := min(c, rows-1)
		var offsets [16]int
		for i := range offsets {
			offsets[i] = min(i, rows-1-first) * o.ld * 4 // past the last row: that row again
		}
		src, put := ptr(o.x, (r+first)*o.ld+k), min(16, width-c)
		turnBlocks(t.pairs, past, done/step, src, &offsets, ptr(dst, c), width*4, put)
		if last := done - step; done%step > 0 {
			src = ptr(o.x, (r+first)*o.ld+k+last)
			turnBlocks(t.pairs, past, 1, src, &offsets, ptr(dst, last/values*width+c), width*4, put)
		}
	}
	return done
}

// turnOfPanels does so with an operand in panels of pairs of rows.
func turnOfPanels(dst []float32, width int, o operand, r, k, kc int) int {
	n := kc / panelWidth
	if width != turnWidth || r%2 > 0 || k%panelWidth > 0 || n == 0 {
		return 0
	}
	done := n * panelWidth
	_ = dst[done/2*width-1]
	turnPanels(n, o.panelOf(r, k), 4*o.ld*panelWidth, &dst[0])
	return done
}

// turnBlocks transposes blocks, past the caches or not. It names the routines, for
// through a variable offsets would go to the heap.
func turnBlocks(pairs, past bool, blocks int, src *float32, offsets *[16]int, dst *float32, width, put int) {
	switch {
	case pairs && past:
		packTurnPastBF16(blocks, src, offsets, dst, width)
	case pairs:
		packTurnBF16(blocks, src, offsets, dst, width, put)
	case past:
		packTurnPast(blocks, src, offsets, dst, width)
	default:
		packTurn(blocks, src, offsets, dst, width, put)
	}
}
