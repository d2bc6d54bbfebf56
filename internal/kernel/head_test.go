package kernel_test

import (
	"math"
	"testing"

	"promptgen/internal/half"
	"promptgen/internal/kernel"
	"promptgen/internal/kernel/ref"
)

func TestHead(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, s := range [][4]int{{6, 8, 50, 3}, {40, 33, 301, 20}, {530, 5, 37, 530}, {600, 4, 20, 100}} {
			h := kernel.Head{Rows: s[0], Width: s[1], Vocab: s[2], SeqLen: s[3], Scale: 0.7}
			r := rng(uint64(s[2]))
			h.H, h.W, h.Targets = normal(r, h.Rows*h.Width, 1), normal(r, h.Vocab*h.Width, 2), make([]int32, h.Rows)
			for i := range h.Targets {
				h.Targets[i] = int32(r.IntN(h.Vocab+1)) - 1
			}
			for _, smooth := range []float32{0, 0.125} {
				h.Smooth = smooth
				losses, wdh, wdw := ref.HeadLoss(f64(h.H), f64(h.W), h.Targets, h.Width, h.Vocab, 0.7, float64(smooth))
				got, dh, dw := make([]float32, h.Rows), normal(r, len(h.H), 0), make([]float32, len(h.W))
				cpu.HeadLoss(&h, got)
				near(t, "losses", got, losses, 1e-5)
				cpu.HeadLossGrad(&h, got, dh, nil)
				near(t, "dh alone", dh, wdh, 2e-5)
				cpu.HeadLossGrad(&h, got, dh, dw)
				near(t, "losses", got, losses, 1e-5)
				near(t, "dh", dh, wdh, 2e-5)
				near(t, "dw", dw, wdw, 2e-5)
				clear(dw)
				h.H = clone(h.H)
				cpu.HeadLossGrad(&h, got, h.H, dw)
				near(t, "dh in place", h.H, wdh, 2e-5)
				near(t, "dw beside", dw, wdw, 2e-5)
			}
		}
	})
}

// In bf16 the head's gradients are those of operands rounded once; each token's
// and each row's, for the small ones of tokens that are no target count as well.
func TestHeadBF16(t *testing.T) {
	rounded := func(x []float32) []float32 {
		for i, v := range x {
			x[i] = half.RoundBF16(v)
		}
		return x
	}
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, s := range [][4]int{{6, 8, 50, 3}, {8, 9, 50, 2}, {41, 33, 301, 41}, {42, 33, 301, 14}, {70, 64, 467, 10}, {1100, 20, 70, 1100}, {36, 48, 12345, 36}} {
			h := kernel.Head{Rows: s[0], Width: s[1], Vocab: s[2], SeqLen: s[3], Scale: 0.7, BF16: true}
			r := rng(uint64(s[2]))
			h.H, h.W, h.Targets = rounded(normal(r, h.Rows*h.Width, 0)), rounded(normal(r, h.Vocab*h.Width, 0)), make([]int32, h.Rows)
			for i := range h.W {
				h.W[i] /= 4
			}
			for i := range h.Targets {
				h.Targets[i] = int32(r.IntN(h.Vocab+1)) - 1
			}
			for _, h.Smooth = range []float32{0, 0.125} {
				losses, wdh, wdw := ref.HeadLoss(f64(h.H), f64(h.W), h.Targets, h.Width, h.Vocab, 0.7, float64(h.Smooth))
				got, dh, dw := make([]float32, h.Rows), make([]float32, len(h.H)), make([]float32, len(h.W))
				cpu.HeadLossGrad(&h, got, dh, dw)
				near(t, "losses", got, losses, 1e-5)
				nearRows(t, "dh", dh, wdh, h.Width, 4e-3)
				nearRows(t, "dw", dw, wdw, h.Width, 6e-3) // H too is rounded, times its factor
			}
		}
	})
}

// nearRows compares rows by the length of their difference, in parts of theirs.
func nearRows(t *testing.T, what string, got []float32, want []float64, width int, tol float64) {
	t.Helper()
	for r := range len(want) / width {
		var diff, all float64
		for i, w := range want[r*width:][:width] {
			d := float64(got[r*width+i]) - w
			diff, all = diff+d*d, all+w*w
		}
		if !(math.Sqrt(diff) <= tol*math.Sqrt(all)) {
			t.Fatalf("%s: row %d is %g of its length off", what, r, math.Sqrt(diff/all))
		}
	}
}

// newHead is a head with random values and targets, one row in ten without.
func newHead(rows, width, vocab, seqLen int, bf16 bool) kernel.Head {
	r := rng(uint64(vocab))
	h := kernel.Head{Rows: rows, Width: width, Vocab: vocab, SeqLen: seqLen, Scale: 0.5, BF16: bf16}
	h.H, h.W, h.Targets = normal(r, rows*width, 0), normal(r, vocab*width, 0), make([]int32, rows)
	for i := range h.W {
		h.W[i] /= 4
	}
	for i := range h.Targets {
		if h.Targets[i] = int32(r.IntN(vocab)); r.IntN(10) == 0 {
			h.Targets[i] = -1
		}
	}
	return h
}

// Sums of several blocks, for which fewer rows and columns are packed at a time.
func TestHeadWide(t *testing.T) {
	if testing.Short() {
		t.Skip("wide")
	}
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, bf16 := range []bool{false, true} {
			h := newHead(21, 1600, 421, 7, bf16)
			losses, wdh, wdw := ref.HeadLoss(f64(h.H), f64(h.W), h.Targets, h.Width, h.Vocab, 0.5, 0)
			got, dh, dw := make([]float32, h.Rows), make([]float32, len(h.H)), make([]float32, len(h.W))
			cpu.HeadLossGrad(&h, got, dh, dw)
			if bf16 {
				near(t, "losses", got, losses, 1e-2)
				nearRows(t, "dh", dh, wdh, h.Width, 0.1)
				continue
			}
			near(t, "losses", got, losses, 1e-5)
			near(t, "dh", dh, wdh, 2e-5)
			near(t, "dw", dw, wdw, 2e-5)
		}
	})
}

// A row whose target lies so far below another logit that its exponential would
// be infinite has its loss and gradients all the same.
func TestHeadLargeLosses(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, bf16 := range []bool{false, true} {
			h := newHead(12, 32, 300, 6, bf16)
			for i := range h.H {
				h.H[i] = half.RoundBF16(h.H[i])
			}
			for i := range h.W {
				h.W[i] = half.RoundBF16(h.W[i])
			}
			for r, far := range []float32{20, 60, 100, 300, 3000} { // logits of a token that is no target
				h.Targets[2*r] = int32(r)
				copy(h.W[(100+r)*h.Width:][:h.Width], h.H[2*r*h.Width:][:h.Width])
				squares := float32(0)
				for _, x := range h.H[2*r*h.Width:][:h.Width] {
					squares += x * x
				}
				for k := range h.Width {
					w := &h.W[(100+r)*h.Width+k]
					*w = half.RoundBF16(*w * far / squares)
				}
			}
			losses, wdh, wdw := ref.HeadLoss(f64(h.H), f64(h.W), h.Targets, h.Width, h.Vocab, 0.5, 0)
			got, dh, dw := make([]float32, h.Rows), make([]float32, len(h.H)), make([]float32, len(h.W))
			cpu.HeadLoss(&h, got)
			near(t, "losses", got, losses, 1e-5)
			cpu.HeadLossGrad(&h, got, dh, dw)
			near(t, "losses", got, losses, 1e-5)
			tol := 1e-4
			if bf16 {
				tol = 6e-3
			}
			nearRows(t, "dh", dh, wdh, h.Width, tol)
			nearRows(t, "dw", dw, wdw, h.Width, tol)
			if losses[8] < 2000 {
				t.Fatalf("a loss of %g tries nothing", losses[8])
			}
		}
	})
}

// Logits so large that rounding their operands moves them further than an
// exponential reaches: a row that is predicted almost surely still has a gradient.
func TestHeadLargeLogits(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		const rows, width, vocab = 80, 64, 100
		r := rng(11)
		h := kernel.Head{Rows: rows, Width: width, Vocab: vocab, SeqLen: rows, Scale: 0.25, BF16: true, Fresh: true}
		h.H, h.W, h.Targets = normal(r, rows*width, 0), normal(r, vocab*width, 0), make([]int32, rows)
		for i := range rows { // the target's token points where the row does
			h.Targets[i] = int32(i)
			copy(h.W[i*width:], h.H[i*width:][:width])
			for k := range width {
				h.H[i*width+k] *= 3000
			}
		}
		losses, dh, dw := make([]float32, rows), make([]float32, rows*width), make([]float32, vocab*width)
		cpu.HeadLossGrad(&h, losses, dh, dw)
		want, _, _ := ref.HeadLoss(ref.RoundBF16(f64(h.H)), ref.RoundBF16(f64(h.W)), h.Targets, width, vocab, 0.25, 0)
		near(t, "losses", losses, want, 0.05) // logits are some 2e5, and 1/64 apart
		for what, x := range map[string][]float32{"dh": dh, "dw": dw} {
			for i, v := range x {
				if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
					t.Fatalf("%s[%d] is %g", what, i, v)
				}
			}
		}
	})
}

// NaN and infinities reach the losses and gradients of their rows and no others.
func TestHeadNotFinite(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, bf16 := range []bool{false, true} {
			h := newHead(9, 16, 250, 3, bf16)
			for i := range h.Targets {
				h.Targets[i] = int32(i)
			}
			h.H[2*h.Width] = float32(math.NaN())
			h.H[5*h.Width+3] = float32(math.Inf(1))
			got, dh := make([]float32, h.Rows), make([]float32, len(h.H))
			cpu.HeadLossGrad(&h, got, dh, nil)
			for r, loss := range got {
				bad := r == 2 || r == 5
				for what, x := range map[string]float32{"loss": loss, "gradient": dh[r*h.Width]} {
					if finite := !math.IsNaN(float64(x)) && !math.IsInf(float64(x), 0); finite == bad {
						t.Errorf("bf16 %v: the %s of row %d is %g", bf16, what, r, x)
					}
				}
			}
		}
	})
}

// The same bits with any number of threads, with sequences together or one by
// one, and in the caller's memory, of which no more is used than was asked for.
func TestHeadAlone(t *testing.T) {
	const sequences, seqLen, width, vocab = 8, 150, 24, 1000
	for _, isa := range kernel.ISAs() {
		for _, bf16 := range []bool{false, true} {
			all := newHead(sequences*seqLen, width, vocab, seqLen, bf16)
			for k := range width { // a row that is shifted by its largest logit, whatever is beside it
				all.H[(3*seqLen+7)*width+k] = 300 * all.W[k]
			}
			all.Targets[3*seqLen+7] = 1
			run := func(threads, together int, own bool) (r []float32) {
				cpu := newCPU(t, isa, threads)
				losses, dh, dw := make([]float32, all.Rows), make([]float32, len(all.H)), make([]float32, len(all.W))
				for at := 0; at < all.Rows; at += together * seqLen {
					h := all
					h.Rows, h.Fresh = together*seqLen, at == 0
					h.H, h.Targets = all.H[at*width:][:h.Rows*width], all.Targets[at:][:h.Rows]
					var guard []float32
					if own {
						n := h.Floats(true)
						mem := make([]float32, n+8)
						h.Mem, guard = mem[3:][:n:n], mem[3+n:]
					}
					cpu.HeadLossGrad(&h, losses[at:], dh[at*width:], dw)
					for _, x := range guard {
						if x != 0 {
							t.Fatal("more memory is used than was asked for")
						}
					}
				}
				return append(append(losses, dh...), dw...)
			}
			want := run(1, sequences, false)
			for _, c := range []struct {
				threads, together int
				own               bool
			}{{2, sequences, false}, {5, sequences, true}, {1, 1, false}, {3, 2, true}} {
				got := run(c.threads, c.together, c.own)
				for i := range want {
					if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
						t.Fatalf("%s, bf16 %v, %+v: value %d is %g, not %g", isa, bf16, c, i, got[i], want[i])
					}
				}
			}
		}
	}
}
