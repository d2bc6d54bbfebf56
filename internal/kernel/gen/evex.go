package main

import "promptgen/internal/kernel/gen/evex"

func dpBF16(acc, a, b int)    { evex.DPBF16(acc, a, b) }
func cvtBF16(dst, hi, lo int) { evex.CvtBF16(dst, hi, lo) }
