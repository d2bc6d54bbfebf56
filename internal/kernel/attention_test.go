package kernel_test

import (
	"fmt"
	"math"
	"testing"

	"promptgen/internal/kernel"
	"promptgen/internal/kernel/ref"
)

// attnCase is attention over random numbers, its slices skewed against cache
// lines, and room for its results.
type attnCase struct {
	kernel.Attention
	dout, dqkv []float32
}

func newAttn(seed uint64, batch, seqLen, heads, dim int, drop float32) *attnCase {
	r := rng(seed)
	rows, width := batch*seqLen, heads*dim
	return &attnCase{
		Attention: kernel.Attention{
			Batch: batch, SeqLen: seqLen, Heads: heads, HeadDim: dim,
			QKV: normal(r, rows*3*width, 1), Out: normal(r, rows*width, 3), LSE: normal(r, rows*heads, 5),
			Dropout: kernel.Dropout{P: drop, Key: 5, Row0: 3 * seqLen},
		},
		dout: normal(r, rows*width, 1), dqkv: normal(r, rows*3*width, 7),
	}
}

func (a *attnCase) run(cpu *kernel.CPU) {
	cpu.AttentionForward(&a.Attention)
	cpu.AttentionBackward(&a.Attention, a.dqkv, a.dout)
}

// check runs a and holds it against the reference.
func (a *attnCase) check(t testing.TB, cpu *kernel.CPU, tol float64) {
	t.Helper()
	want := ref.Attention{Batch: a.Batch, SeqLen: a.SeqLen, Heads: a.Heads, HeadDim: a.HeadDim, QKV: f64(a.QKV)}
	if a.Dropout.P > 0 {
		want.Mask = ref.Mask(a.Dropout.P, a.Dropout.Key, a.Dropout.Row0*a.Heads, a.Batch*a.Heads*a.SeqLen, a.SeqLen)
	}
	out, lse := want.Forward()
	a.run(cpu)
	what := fmt.Sprint([]int{a.Batch, a.SeqLen, a.Heads, a.HeadDim}, a.Dropout.P, a.BF16)
	near(t, "out "+what, a.Out, out, tol)
	near(t, "lse "+what, a.LSE, lse, tol)
	near(t, "dqkv "+what, a.dqkv, want.Backward(f64(a.dout)), 3*tol)
}

func TestAttention(t *testing.T) {
	shapes := [][4]int{{1, 1, 1, 1}, {2, 5, 3, 7}, {1, 97, 2, 16}, {2, 130, 1, 64}, {2, 130, 2, 48}, {1, 200, 2, 24}, {1, 64, 2, 64}, {1, 257, 1, 80}}
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, s := range shapes {
			for _, drop := range []float32{0, 0.2} {
				newAttn(uint64(s[1]), s[0], s[1], s[2], s[3], drop).check(t, cpu, 2e-5)
			}
		}
	})
}

// Every length up to beyond a block, and every head size up to beyond a panel,
// come out right: what fills up tiles, panels and pairs reaches no result.
func TestAttentionRagged(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for n := 1; n <= 70; n++ {
			a := newAttn(uint64(n), 1, n, 2, 1+n*7%37, 0.1*float32(n%2))
			a.check(t, cpu, 2e-5)
			a.BF16 = true
			a.check(t, cpu, 4e-2)
		}
	})
}

// What fills up tiles, panels and pairs is not what an earlier call left there, for
// any sizes: NaN would stay NaN however little it counts.
func TestAttentionForgets(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, bf16 := range []bool{false, true} {
			spoilt := newAttn(1, 2, 130, 2, 70, 0)
			spoilt.BF16 = bf16
			for _, x := range [][]float32{spoilt.QKV, spoilt.dout} {
				for i := range x {
					x[i] = float32(math.NaN())
				}
			}
			tol := 2e-5
			if bf16 {
				tol = 4e-2
			}
			for n := 1; n <= 70; n++ {
				spoilt.run(cpu)
				a := newAttn(uint64(n), 1, n, 2, 1+n*7%37, 0)
				a.BF16 = bf16
				a.check(t, cpu, tol)
			}
		}
	})
}

// bf16 attention differs from fp32 by the rounding of its operands.
func TestAttentionBF16(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, s := range [][4]int{{1, 150, 2, 32}, {2, 65, 2, 64}, {1, 129, 1, 33}} {
			for _, drop := range []float32{0, 0.2} {
				a := newAttn(2, s[0], s[1], s[2], s[3], drop)
				a.BF16 = true
				a.check(t, cpu, 4e-2)
			}
		}
	})
}

func FuzzAttention(f *testing.F) {
	f.Add(uint64(1), uint16(70), uint8(2), uint8(64), false, uint8(10))
	f.Add(uint64(2), uint16(131), uint8(1), uint8(5), true, uint8(0))
	var cpus []*kernel.CPU
	for _, isa := range kernel.ISAs() {
		cpus = append(cpus, newCPU(f, isa, 2))
	}
	f.Fuzz(func(t *testing.T, seed uint64, seqLen uint16, heads, dim uint8, bf16 bool, drop uint8) {
		for _, cpu := range cpus {
			a := newAttn(seed, 1+int(seed%2), 1+int(seqLen)%300, 1+int(heads)%3, 1+int(dim)%100, float32(drop%90)/100)
			tol := 5e-5
			if a.BF16 = bf16; bf16 {
				tol = 0.2
			}
			a.check(t, cpu, tol)
		}
	})
}

// NaN and infinities come out where they belong: in their own head, and in no
// query before their block.
func TestAttentionCarriesNaN(t *testing.T) {
	const n, heads, dim, at = 150, 2, 20, 100
	const width = heads * dim
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for part, name := range []string{"query", "key", "value"} {
			for _, bad := range []float64{math.NaN(), math.Inf(1)} {
				for _, bf16 := range []bool{false, true} {
					a := newAttn(7, 1, n, heads, dim, 0)
					a.BF16 = bf16
					a.run(cpu)
					clean := clone(a.Out)
					a.QKV[at*3*width+part*width+dim+3] = float32(bad) // of the second head
					a.run(cpu)
					finite := func(x float32) bool { return !math.IsNaN(float64(x)) && !math.IsInf(float64(x), 0) }
					for i := range n {
						for c := range width {
							got := a.Out[i*width+c]
							if c < dim || i < at-8 {
								same(t, name+" elsewhere", []float32{got}, clean[i*width+c:][:1])
							}
						}
						wrong := part == 0 && i == at || part == 2 && i >= at || part == 1 && i >= at && math.IsNaN(bad)
						if wrong && finite(a.Out[i*width+dim+3]) {
							t.Fatalf("%g in a %s is lost at query %d", bad, name, i)
						}
					}
					for i := range 3 * width * n {
						if i%width < dim && !finite(a.dqkv[i]) {
							t.Fatalf("%g in a %s reached the gradient of another head", bad, name)
						}
					}
					if part != 2 && finite(a.dqkv[at*3*width+dim+3]) && math.IsNaN(bad) {
						t.Fatalf("%g in a %s is lost in the gradient", bad, name)
					}
				}
			}
		}
	})
}

// Scores far apart, and maxima that move from block to block, neither overflow
// nor vanish.
func TestAttentionLargeScores(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		a := newAttn(9, 1, 200, 1, 16, 0)
		for i := range a.QKV {
			a.QKV[i] *= float32(1 + i/(3*16)%7)
		}
		a.check(t, cpu, 3e-3)
	})
}

// Results do not depend on the number of threads nor on how sequences are
// grouped into batches.
func TestAttentionSame(t *testing.T) {
	for _, isa := range kernel.ISAs() {
		for _, bf16 := range []bool{false, true} {
			all := func(threads, batch int) (r []float32) {
				a := newAttn(3, 4, 77, 3, 24, 0.1)
				a.BF16, a.Dropout.Row0 = bf16, 0
				cpu := newCPU(t, isa, threads)
				for first := 0; first < 4; first += batch {
					b := *a
					b.Batch = batch
					rows := func(x []float32, width int) []float32 { return x[first*77*width:][:batch*77*width] }
					b.QKV, b.Out, b.LSE = rows(a.QKV, 3*3*24), rows(a.Out, 3*24), rows(a.LSE, 3)
					b.dqkv, b.dout = rows(a.dqkv, 3*3*24), rows(a.dout, 3*24)
					b.Dropout.Row0 = first * 77
					b.run(cpu)
				}
				return append(append(append(r, a.Out...), a.LSE...), a.dqkv...)
			}
			want := all(1, 4)
			for _, c := range [][2]int{{2, 4}, {5, 4}, {2, 1}, {3, 2}} {
				same(t, fmt.Sprint(isa, bf16, c), all(c[0], c[1]), want)
			}
		}
	}
}

// A steady step allocates nothing.
func TestAttentionNoAllocation(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, bf16 := range []bool{false, true} {
			a := newAttn(1, 1, 100, 2, 20, 0.1)
			a.BF16 = bf16
			a.run(cpu)
			if n := testing.AllocsPerRun(20, func() { a.run(cpu) }); n > 0 {
				t.Errorf("bf16 %v: %g allocations", bf16, n)
			}
		}
	})
}

func BenchmarkAttention(b *testing.B) {
	for _, s := range [][3]int{{1, 1024, 12}, {4, 256, 12}, {8, 256, 6}, {8, 64, 2}} {
		for _, isa := range kernel.ISAs() {
			for _, threads := range []int{1, 2} {
				for _, drop := range []float32{0, 0.1} {
					for _, bf16 := range []bool{false, true} {
						if isa != "go" && (isa == "avx512bf16" || !bf16) {
							benchAttention(b, isa, threads, s, drop, bf16)
						}
					}
				}
			}
		}
	}
}

// benchAttention counts the causal half: two products forward, five backward.
func benchAttention(b *testing.B, isa string, threads int, s [3]int, drop float32, bf16 bool) {
	const dim = 64
	a := newAttn(1, s[0], s[1], s[2], dim, drop)
	a.BF16 = bf16
	cpu := newCPU(b, isa, threads)
	flops := 2 * float64(s[0]*s[2]*dim) * float64(s[1]) * float64(s[1]) / 2
	name := fmt.Sprintf("T=%d/heads=%d/%s/bf16=%v/threads=%d/drop=%g", s[1], s[2], isa, bf16, threads, drop)
	for _, op := range []struct {
		name     string
		products float64
		f        func()
	}{
		{"forward", 2, func() { cpu.AttentionForward(&a.Attention) }},
		{"backward", 5, func() { cpu.AttentionBackward(&a.Attention, a.dqkv, a.dout) }},
	} {
		b.Run(name+"/"+op.name, func(b *testing.B) {
			op.f()
			b.ReportAllocs()
			for b.Loop() {
				op.f()
			}
			b.ReportMetric(op.products*flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}

// A row's bits do not depend on the rows after it: a prompt that was read
// before and one read as part of a longer one give the same.
func TestAttentionPrefix(t *testing.T) {
	const n, heads, dim = 140, 2, 20
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, bf16 := range []bool{false, true} {
			a := newAttn(4, 1, n, heads, dim, 0)
			a.BF16 = bf16
			cpu.AttentionForward(&a.Attention)
			for _, m := range []int{1, 2, 7, 8, 31, 33, 47, 64, 65, 95, 97, 139} {
				b := newAttn(5, 1, m, heads, dim, 0)
				b.BF16 = bf16
				copy(b.QKV, a.QKV)
				cpu.AttentionForward(&b.Attention)
				same(t, fmt.Sprint("out of ", m), b.Out, a.Out[:len(b.Out)])
				for h := range heads {
					same(t, fmt.Sprint("lse of ", m), b.LSE[h*m:(h+1)*m], a.LSE[h*n:][:m])
				}
			}
		}
	})
}
