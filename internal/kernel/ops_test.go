package kernel_test

import (
	"fmt"
	"math"
	"testing"

	"promptgen/internal/half"
	"promptgen/internal/kernel"
	"promptgen/internal/kernel/ref"
)

var sizes = []int{1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 70, 100, 1500}

func TestActBackward(t *testing.T) {
	acts := map[kernel.Act][2]func(float64) float64{
		kernel.ActNone:    {func(x float64) float64 { return x }, func(float64) float64 { return 1 }},
		kernel.ActGELUNew: {ref.GELUNew, ref.GELUNewGrad}, kernel.ActGELU: {ref.GELU, ref.GELUGrad}, kernel.ActReLU: {ref.ReLU, ref.ReLUGrad},
	}
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, n := range sizes {
			for act, f := range acts {
				r := rng(uint64(n))
				x, d := normal(r, n, 1), normal(r, n, 2)
				for i := range x {
					x[i] *= 4
				}
				y, dx := f64(x), f64(d)
				for i, v := range y {
					y[i], dx[i] = f[0](v), dx[i]*f[1](v)
				}
				d2, x2 := clone(d), clone(x)
				cpu.ActBackward(d, x, act)
				near(t, fmt.Sprintf("gradient of act %d of %d", act, n), d, dx, 1e-5)
				near(t, fmt.Sprintf("act %d of %d", act, n), x, y, 1e-5)
				if n == 1500 { // an epilogue of a product with 1 does the same to the bit
					cpu.Gemm(&kernel.Gemm{M: 3, N: 500, K: 1, A: []float32{1, 1, 1}, B: make([]float32, 500), C: d2, Accumulate: true, Act: act, Through: x2})
					same(t, "Gemm's gradient", d2, d)
					same(t, "Gemm's Through", x2, x)
				}
			}
		}
	})
}

// Far from zero the activations and their gradients end where they should.
func TestActivationsAtTheEnds(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		x := []float32{-1e30, -200, -20, -12, -1e-30, 0, 1e-30, 12, 20, 200, 1e12}
		ones := make([]float32, len(x))
		for i := range ones {
			ones[i] = 1
		}
		for act, f := range map[kernel.Act][2]func(float64) float64{
			kernel.ActGELUNew: {ref.GELUNew, ref.GELUNewGrad}, kernel.ActGELU: {ref.GELU, ref.GELUGrad}, kernel.ActReLU: {ref.ReLU, ref.ReLUGrad},
		} {
			y, dx := make([]float32, len(x)), make([]float32, len(x))
			cpu.Gemm(&kernel.Gemm{M: 1, N: len(x), K: 1, A: []float32{1}, B: x, C: y, Act: act})
			copy(dx, ones)
			through := clone(x)
			cpu.ActBackward(dx, through, act)
			for i, v := range x {
				want, grad := f[0](float64(v)), f[1](float64(v))
				if math.IsNaN(grad) {
					grad = math.Max(0, math.Copysign(1, float64(v)))
				}
				near(t, fmt.Sprintf("act %d at %g", act, v), y[i:i+1], []float64{want}, 1e-6)
				near(t, fmt.Sprintf("act %d at %g, going back", act, v), through[i:i+1], []float64{want}, 1e-6)
				near(t, fmt.Sprintf("gradient of act %d at %g", act, v), dx[i:i+1], []float64{grad}, 1e-5)
			}
		}
	})
}

func TestLayerNorm(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, width := range sizes {
			const rows, seqLen, eps = 75, 37, 1e-5
			r := rng(uint64(width))
			x, gain, bias, dy := normal(r, rows*width, 1), normal(r, width, 2), normal(r, width, 3), normal(r, rows*width, 0)
			for i := range x {
				x[i] = 3*x[i] + 10
			}
			y, mean, rstd := make([]float32, rows*width), make([]float32, rows), make([]float32, rows)
			cpu.LayerNormForward(y, mean, rstd, x, gain, bias, rows, width, eps)
			wy, wmean, wrstd := ref.LayerNormForward(f64(x), f64(gain), f64(bias), rows, width, eps)
			tol := 2e-5
			if width < 4 {
				tol = 2e-3 // two equal numbers make rstd very large
			}
			near(t, "y", y, wy, tol)
			near(t, "mean", mean, wmean, 1e-6)
			near(t, "rstd", rstd, wrstd, tol)
			dx, dgain, dbias := normal(r, rows*width, 1), normal(r, width, 1), normal(r, width, 1)
			wdx, wdgain, wdbias := ref.LayerNormBackward(f64(dy), f64(x), f64(mean), f64(rstd), f64(gain), rows, width)
			for _, g := range []struct {
				got  []float32
				want []float64
			}{{dx, wdx}, {dgain, wdgain}, {dbias, wdbias}} {
				for i := range g.got {
					g.want[i] += float64(g.got[i])
				}
			}
			cpu.LayerNormBackward(dx, dgain, dbias, dy, x, mean, rstd, gain, rows, width, seqLen)
			near(t, "dx", dx, wdx, 10*tol)
			near(t, "dgain", dgain, wdgain, 2e-5)
			near(t, "dbias", dbias, wdbias, 2e-5)
		}
	})
}

func TestBiasBackward(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, width := range sizes {
			r := rng(uint64(width))
			dy, db := normal(r, 70*width, 1), make([]float32, width)
			cpu.BiasBackward(db, dy, 70, width, 35)
			near(t, "db", db, ref.ColumnSums(f64(dy), 70, width), 1e-5)
		}
	})
}

func TestDropoutAndEmbedding(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, width := range sizes {
			const vocab, seqLen, rows = 11, 10, 30
			r := rng(uint64(width))
			d := kernel.Dropout{P: 0.25, Key: 1 << 60, Row0: 20}
			ids := make([]int32, rows)
			for i := range ids {
				ids[i] = int32(r.IntN(vocab))
			}
			mask := ref.Mask(d.P, d.Key, d.Row0, rows, width)
			wte, wpe, dy := normal(r, vocab*width, 1), normal(r, seqLen*width, 2), normal(r, rows*width, 3)
			y := make([]float32, rows*width)
			cpu.EmbedForward(y, ids, wte, wpe, seqLen, width, d)
			near(t, "y", y, ref.EmbedForward(ids, f64(wte), f64(wpe), mask, seqLen, width), 1e-6)
			dwte, dwpe := make([]float32, vocab*width), make([]float32, seqLen*width)
			cpu.EmbedBackward(dwte, dwpe, dy, ids, seqLen, width, d)
			wantE, wantP := ref.EmbedBackward(f64(dy), ids, mask, vocab, seqLen, width)
			near(t, "dwte", dwte, wantE, 1e-5)
			near(t, "dwpe", dwpe, wantP, 1e-5)
			want := f64(dy)
			for i := range want {
				want[i] *= mask[i]
			}
			cpu.DropoutBackward(dy, dy, rows, width, d)
			near(t, "dx", dy, want, 1e-6)
		}
	})
}

func TestAdamW(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, n := range append(sizes, 40000) {
			for _, style := range []kernel.AdamStyle{kernel.AdamTorch, kernel.AdamHF} {
				r := rng(uint64(n))
				w, g, m, v := normal(r, n, 1), normal(r, n, 2), make([]float32, n), make([]float32, n)
				rw, rm, rv := f64(w), make([]float64, n), make([]float64, n)
				for step := 1; step <= 3; step++ {
					cpu.AdamW(&kernel.AdamW{LR: 1e-2, Beta1: 0.9, Beta2: 0.999, Eps: 1e-6, WeightDecay: 0.1, GradScale: 0.5, Step: step, Style: style}, w, g, m, v)
					o := ref.AdamW{LR: 1e-2, Beta1: 0.9, Beta2: 0.999, Eps: 1e-6, WeightDecay: 0.1, GradScale: 0.5, Step: step}
					if style == kernel.AdamHF {
						o.HF(rw, f64(g), rm, rv)
					} else {
						o.Torch(rw, f64(g), rm, rv)
					}
				}
				near(t, "w", w, rw, 1e-5)
				near(t, "m", m, rm, 1e-6)
				near(t, "v", v, rv, 1e-6)
			}
		}
	})
}

func TestSumSquares(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, n := range append(sizes, 0, 100003) {
			x := normal(rng(uint64(n)), n, 1)
			got, want := cpu.SumSquares(x), ref.SumSquares(f64(x))
			if math.Abs(got-want) > 1e-9*(1+want) {
				t.Fatalf("%d: %g, want %g", n, got, want)
			}
		}
	})
}

// All that is not Gemm is the same to the bit for any number of threads.
func TestSameForThreads(t *testing.T) {
	for _, isa := range kernel.ISAs() {
		t.Run(isa, func(t *testing.T) {
			want := everything(newCPU(t, isa, 1))
			for threads := 2; threads <= 5; threads++ {
				same(t, fmt.Sprint(threads, " threads"), everything(newCPU(t, isa, threads)), want)
			}
		})
	}
}

// everything runs one of each and returns all results.
func everything(cpu *kernel.CPU) []float32 {
	const batch, seqLen, heads, dim, vocab = 3, 50, 2, 20, 90
	const rows, width = batch * seqLen, heads * dim
	r := rng(11)
	x, gain, bias := normal(r, rows*width, 0), normal(r, width, 0), normal(r, width, 0)
	y, mean, rstd := make([]float32, rows*width), make([]float32, rows), make([]float32, rows)
	cpu.LayerNormForward(y, mean, rstd, x, gain, bias, rows, width, 1e-5)
	dx, dgain, dbias := make([]float32, rows*width), make([]float32, width), make([]float32, width)
	cpu.LayerNormBackward(dx, dgain, dbias, y, x, mean, rstd, gain, rows, width, seqLen)
	cpu.BiasBackward(dbias, dx, rows, width, seqLen)
	drop := kernel.Dropout{P: 0.1, Key: 3}
	a := kernel.Attention{Batch: batch, SeqLen: seqLen, Heads: heads, HeadDim: dim, QKV: normal(r, 3*rows*width, 0), Out: make([]float32, rows*width), LSE: make([]float32, batch*heads*seqLen), Dropout: drop}
	cpu.AttentionForward(&a)
	dqkv := make([]float32, 3*rows*width)
	cpu.AttentionBackward(&a, dqkv, dx)
	h := kernel.Head{Rows: rows, Width: width, Vocab: vocab, SeqLen: seqLen, H: a.Out, W: normal(r, vocab*width, 0), Targets: make([]int32, rows), Scale: 1}
	losses, dh, dw := make([]float32, rows), make([]float32, rows*width), make([]float32, vocab*width)
	cpu.HeadLossGrad(&h, losses, dh, dw)
	dwpe := make([]float32, seqLen*width)
	cpu.EmbedBackward(dw, dwpe, dh, h.Targets, seqLen, width, drop)
	squares := float32(cpu.SumSquares(dw))
	cpu.AdamW(&kernel.AdamW{LR: 1e-3, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, GradScale: 1, Step: 1}, h.W, dw, make([]float32, len(dw)), make([]float32, len(dw)))
	var all []float32
	for _, s := range [][]float32{y, mean, rstd, dx, dgain, dbias, a.Out, a.LSE, dqkv, losses, dh, dw, dwpe, {squares}, h.W} {
		all = append(all, s...)
	}
	return all
}

// Turn moves every value, or its rounded half, to where its column says.
func TestTurn(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, k := range sizes[:13] {
			const n, ld = 32, 160
			x := normal(rng(uint64(k)), n*ld, 1)
			x[ld+k/2] = float32(math.Inf(1))
			floats, pairs := make([]float32, k*n), make([]float32, (k+1)/2*n)
			cpu.Turn(floats, x, ld, n, k, false)
			cpu.Turn(pairs, x, ld, n, k, true)
			for i := range n {
				for j := range k {
					v := x[i*ld+j]
					if floats[j*n+i] != v {
						t.Fatalf("%d columns: value %d of row %d is %g, want %g", k, j, i, floats[j*n+i], v)
					}
					word := math.Float32bits(pairs[j/2*n+i])
					if got := math.Float32frombits(word >> (16 * (j % 2)) << 16); got != half.RoundBF16(v) {
						t.Fatalf("%d columns: half %d of row %d is %g, want %g", k, j, i, got, half.RoundBF16(v))
					}
				}
			}
		}
	})
}
