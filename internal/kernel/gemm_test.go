package kernel_test

import (
	"fmt"
	"math"
	"testing"

	"promptgen/internal/kernel"
	"promptgen/internal/kernel/ref"
)

// checkGemm holds one product against the reference.
func checkGemm(t testing.TB, cpu *kernel.CPU, m, n, k int, transA, transB, acc, bf16 bool, skew int) {
	t.Helper()
	r := rng(uint64(m*10007 + n*101 + k))
	a, b, c := normal(r, m*k, skew), normal(r, k*n, skew+1), normal(r, m*n, skew)
	var c0 []float64
	if acc {
		c0 = f64(c)
	}
	ra, rb := f64(a), f64(b)
	if bf16 {
		ra, rb = ref.RoundBF16(ra), ref.RoundBF16(rb)
	}
	want := ref.Gemm(m, n, k, transA, transB, ra, rb, c0)
	cpu.Gemm(&kernel.Gemm{M: m, N: n, K: k, TransA: transA, TransB: transB, Accumulate: acc, BF16: bf16, A: a, B: b, C: c})
	near(t, fmt.Sprintf("%s %dx%dx%d transA=%v transB=%v acc=%v bf16=%v", cpu.ISA(), m, n, k, transA, transB, acc, bf16),
		c, want, 2e-6*math.Sqrt(float64(k+16)))
}

func eachVariant(f func(transA, transB, acc, bf16 bool)) {
	for v := range 16 {
		f(v&1 != 0, v&2 != 0, v&4 != 0, v&8 != 0)
	}
}

// Every ragged size up to 70 in each dimension, over all variants.
func TestGemmRaggedSizes(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		step := 1
		if testing.Short() {
			step = 9
		}
		for s := 1; s <= 70; s += step {
			eachVariant(func(ta, tb, acc, bf bool) {
				checkGemm(t, cpu, s, 71-s, 37, ta, tb, acc, bf, s%5)
				checkGemm(t, cpu, 13, s, 71-s, ta, tb, acc, bf, s%3)
				checkGemm(t, cpu, 71-s, 35, s, ta, tb, acc, bf, s%7)
			})
		}
	})
}

// Few rows, as in decoding, take ways of their own.
func TestGemmFewRows(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, m := range []int{1, 3, 4, 5, 8, 9} {
			for _, n := range []int{24, 64, 65, 130} {
				eachVariant(func(ta, tb, acc, bf bool) { checkGemm(t, cpu, m, n, 270, ta, tb, acc, bf, m%3) })
			}
		}
	})
}

// Sizes that cross every blocking boundary.
func TestGemmBlocks(t *testing.T) {
	if testing.Short() {
		t.Skip("slow reference")
	}
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, s := range [][3]int{{200, 65, 300}, {3, 3100, 40}, {401, 50, 530}, {65, 12300, 7}} {
			eachVariant(func(ta, tb, acc, bf bool) {
				checkGemm(t, cpu, s[0], s[1], s[2], ta, tb, acc, bf, 1)
			})
		}
	})
}

func FuzzGemm(f *testing.F) {
	f.Add(uint8(5), uint8(9), uint16(33), uint8(3))
	f.Fuzz(func(t *testing.T, m, n uint8, k uint16, v uint8) {
		for _, isa := range kernel.ISAs() {
			cpu := newCPU(t, isa, 1+int(v>>6))
			checkGemm(t, cpu, int(m), int(n), int(k%600), v&1 != 0, v&2 != 0, v&4 != 0, v&8 != 0, int(v>>4&3))
		}
	})
}

// A row stride larger than the row leaves what lies between untouched.
func TestGemmStrides(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		const m, n, k, gap = 29, 39, 45, 3
		r := rng(4)
		a, b, c := normal(r, m*(k+gap), 0), normal(r, k*(n+gap), 0), normal(r, m*(n+gap), 0)
		tight := func(x []float32, rows, cols int) []float64 {
			var y []float64
			for i := range rows {
				y = append(y, f64(x[i*(cols+gap):][:cols])...)
			}
			return y
		}
		before := clone(c)
		want := ref.Gemm(m, n, k, false, false, tight(a, m, k), tight(b, k, n), nil)
		cpu.Gemm(&kernel.Gemm{M: m, N: n, K: k, A: a, B: b, C: c, LDA: k + gap, LDB: n + gap, LDC: n + gap})
		for i := range m {
			near(t, "row", c[i*(n+gap):][:n], want[i*n:][:n], 1e-5)
			same(t, "gap", c[i*(n+gap)+n:][:gap], before[i*(n+gap)+n:][:gap])
		}
	})
}

// NaN and infinity reach exactly the rows and columns that they belong to.
func TestGemmNotFinite(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, bf16 := range []bool{false, true} {
			for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
				const m, n, k = 31, 50, 41
				r := rng(8)
				a, b, c := normal(r, m*k, 1), normal(r, k*n, 2), make([]float32, m*n)
				a[7*k+40], b[3*n+49] = float32(bad), float32(bad)
				ra, rb := f64(a), f64(b)
				if bf16 {
					ra, rb = ref.RoundBF16(ra), ref.RoundBF16(rb)
				}
				cpu.Gemm(&kernel.Gemm{M: m, N: n, K: k, A: a, B: b, C: c, BF16: bf16})
				near(t, "C", c, ref.Gemm(m, n, k, false, false, ra, rb, nil), 1e-5)
			}
		}
	})
}

// The epilogue's parts come in their documented order.
func TestGemmEpilogue(t *testing.T) {
	acts := map[kernel.Act]func(float64) float64{
		kernel.ActNone: func(x float64) float64 { return x }, kernel.ActGELUNew: ref.GELUNew, kernel.ActGELU: ref.GELU, kernel.ActReLU: ref.ReLU,
	}
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, s := range [][3]int{{1, 1, 1}, {30, 70, 20}, {65, 600, 17}, {14, 33, 300}, {5, 40, 0}} {
			m, n, k := s[0], s[1], s[2]
			for act, f := range acts {
				r := rng(uint64(n))
				a, b, bias, residual := normal(r, m*k, 1), normal(r, k*n, 1), normal(r, n, 1), normal(r, m*n, 1)
				drop := kernel.Dropout{P: 0.3, Key: 77, Row0: 5}
				c, pre := make([]float32, m*n), make([]float32, m*n)
				cpu.Gemm(&kernel.Gemm{M: m, N: n, K: k, A: a, B: b, C: c, Bias: bias, PreAct: pre, Act: act, Dropout: drop, Residual: residual})
				want := ref.Gemm(m, n, k, false, false, f64(a), f64(b), nil)
				mask := ref.Mask(drop.P, drop.Key, drop.Row0, m, n)
				for i := range want {
					want[i] += float64(bias[i%n])
				}
				near(t, "PreAct", pre, want, 2e-5)
				for i := range want {
					want[i] = f(want[i])*mask[i] + float64(residual[i])
				}
				near(t, fmt.Sprintf("C %v act %d", s, act), c, want, 5e-5)
			}
		}
	})
}

// A product is the same to the bit for any number of threads, and for a batch
// that is cut into pieces: rows for activations, K for weight gradients.
func TestGemmSameForThreadsAndBatches(t *testing.T) {
	for _, isa := range kernel.ISAs() {
		t.Run(isa, func(t *testing.T) {
			for _, bf16 := range []bool{false, true} {
				const seqs, seqLen, n, k = 6, 40, 150, 290
				r := rng(3)
				x, w, dy := normal(r, seqs*seqLen*k, 0), normal(r, k*n, 0), normal(r, seqs*seqLen*n, 0)
				run := func(cpu *kernel.CPU, batch int) (y, dw []float32) {
					y, dw = make([]float32, seqs*seqLen*n), make([]float32, k*n)
					for s := 0; s < seqs; s += batch {
						rows := batch * seqLen
						cpu.Gemm(&kernel.Gemm{M: rows, N: n, K: k, A: x[s*seqLen*k:], B: w, C: y[s*seqLen*n:], BF16: bf16})
						cpu.Gemm(&kernel.Gemm{M: k, N: n, K: rows, TransA: true, Accumulate: true, KBlock: seqLen, A: x[s*seqLen*k:], B: dy[s*seqLen*n:], C: dw, BF16: bf16})
					}
					return y, dw
				}
				y, dw := run(newCPU(t, isa, 1), seqs)
				for threads := 1; threads <= 5; threads++ {
					for _, batch := range []int{1, 2, 3, 6} {
						y2, dw2 := run(newCPU(t, isa, threads), batch)
						what := fmt.Sprintf("threads %d batch %d", threads, batch)
						same(t, what+" y", y2, y)
						same(t, what+" dw", dw2, dw)
					}
				}
			}
		})
	}
}

// A row is the same to the bit however few are multiplied with it, forward and
// upstream, also in products that would be faster in another order of adding.
func TestGemmSameForFewRows(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		const rows, n, k = 16, 300, 900
		r := rng(5)
		x, w := normal(r, rows*k, 0), normal(r, k*n, 0)
		for _, bf16 := range []bool{false, true} {
			for _, transposed := range []bool{false, true} {
				run := func(at int) []float32 {
					c := make([]float32, rows*n)
					for lo := 0; lo < rows; lo += at {
						cpu.Gemm(&kernel.Gemm{M: at, N: n, K: k, A: x[lo*k:], B: w, TransB: transposed, C: c[lo*n:], BF16: bf16})
					}
					return c
				}
				want := run(rows)
				for _, at := range []int{1, 2, 4, 8} {
					same(t, fmt.Sprintf("bf16 %v, transposed %v, %d rows", bf16, transposed, at), run(at), want)
				}
			}
		}
	})
}
