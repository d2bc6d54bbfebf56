package kernel_test

import (
	"fmt"
	"testing"
	"time"

	"promptgen/internal/kernel"
)

// The products of a training step: a layer's forward pass, its two gradients,
// the head's, and attention's.
var benchShapes = []struct {
	name           string
	m, n, k        int
	transA, transB bool
	kBlock         int
}{
	{"square2048", 2048, 2048, 2048, false, false, 0},
	{"qkv", 1024, 2304, 768, false, false, 0},
	{"qkv_dX", 1024, 768, 2304, false, true, 0},
	{"qkv_dW", 768, 2304, 1024, true, false, 1024},
	{"mlp_mini", 2048, 1536, 384, false, false, 0},
	{"head", 512, 21128, 768, false, true, 0},
	{"head_dH", 512, 768, 21128, false, false, 0},
	{"head_dW", 21128, 768, 512, true, false, 512},
	{"scores", 1024, 1024, 64, false, true, 0},
	{"decode", 1, 3072, 768, false, false, 0},
	{"decode5", 5, 3072, 768, false, false, 0},
	{"decode_head", 1, 21128, 768, false, true, 0},
	{"small", 512, 384, 128, false, false, 0},
}

func BenchmarkGemm(b *testing.B) {
	for _, s := range benchShapes {
		for _, isa := range kernel.ISAs() {
			for _, threads := range []int{1, 2} {
				if isa == "go" && s.m*s.n*s.k > 1<<30 || isa == "go" && threads > 1 {
					continue
				}
				b.Run(fmt.Sprintf("%s/%s/threads=%d", s.name, isa, threads), func(b *testing.B) {
					cpu := newCPU(b, isa, threads)
					r := rng(1)
					g := kernel.Gemm{M: s.m, N: s.n, K: s.k, TransA: s.transA, TransB: s.transB, KBlock: s.kBlock,
						Accumulate: s.kBlock > 0, BF16: isa == "avx512bf16"}
					g.A, g.B, g.C = normal(r, s.m*s.k, 0), normal(r, s.k*s.n, 0), make([]float32, s.m*s.n)
					cpu.Gemm(&g)
					b.ReportAllocs()
					for b.Loop() {
						cpu.Gemm(&g)
					}
					flops := 2 * float64(s.m) * float64(s.n) * float64(s.k)
					b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				})
			}
		}
	}
}

// Operations bound by memory report the bytes that they must touch.
func BenchmarkRows(b *testing.B) {
	const rows, width = 1024, 3072
	r := rng(1)
	x, y, z, m := normal(r, rows*width, 0), normal(r, rows*width, 0), make([]float32, rows*width), make([]float32, rows*width)
	gain, mean := normal(r, width, 0), make([]float32, rows)
	h1, h2 := make([]uint16, rows*width), make([]uint16, rows*width)
	for _, isa := range kernel.ISAs()[len(kernel.ISAs())-3:] {
		cpu := newCPU(b, isa, 1)
		for _, op := range []struct {
			name    string
			streams int64
			f       func()
		}{
			{"GELU", 2, func() { cpu.Gemm(&kernel.Gemm{M: rows, N: width, K: 0, C: z, Act: kernel.ActGELUNew}) }},
			{"GELUBackward", 4, func() { cpu.ActBackward(z, y, kernel.ActGELUNew) }},
			{"Dropout", 2, func() { cpu.DropoutBackward(z, y, rows, width, kernel.Dropout{P: 0.1}) }},
			{"LayerNorm", 2, func() { cpu.LayerNormForward(z, mean, mean, x, gain, gain, rows, width, 1e-5) }},
			{"LayerNormBackward", 4, func() {
				cpu.LayerNormBackward(z, gain, gain, y, x, mean, mean, gain, rows, width, rows)
			}},
			{"AdamW", 7, func() {
				cpu.AdamW(&kernel.AdamW{LR: 1e-9, Beta1: 0.9, Beta2: 0.99, GradScale: 1, Eps: 1, Step: 1}, x, y, z, m)
			}},
			{"AdamW16", 5, func() {
				cpu.AdamW16(&kernel.AdamW{LR: 1e-9, Beta1: 0.9, Beta2: 0.99, GradScale: 1, Eps: 1, Step: 1}, x, y, h1, h2, 1)
			}},
			{"SumSquares", 1, func() { cpu.SumSquares(x) }},
		} {
			b.Run(op.name+"/"+isa, func(b *testing.B) {
				clear(z)
				clear(m)
				b.SetBytes(op.streams * 4 * rows * width)
				for b.Loop() {
					op.f()
				}
			})
		}
	}
}

// BenchmarkLimits reports the machine's own limits.
func BenchmarkLimits(b *testing.B) {
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprintf("threads=%d", threads), func(b *testing.B) {
			var l kernel.Limits
			for b.Loop() {
				l = kernel.MeasureLimits(newCPU(b, "", threads), 200*time.Millisecond)
			}
			b.ReportMetric(l.FP32GFlops, "fp32-GFLOP/s")
			b.ReportMetric(l.BF16GFlops, "bf16-GFLOP/s")
			b.ReportMetric(l.ReadGBs, "read-GB/s")
		})
	}
}
