package kernel_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"promptgen/internal/kernel"
	"promptgen/internal/kernel/ref"
)

// The moments in bfloat16 are the same to the bit at every level and for every
// number of threads, and so are the weights.
func TestAdamW16SameEverywhere(t *testing.T) {
	for _, n := range append(sizes, 0, 40000) {
		for _, style := range []kernel.AdamStyle{kernel.AdamTorch, kernel.AdamHF} {
			type result struct {
				w    []float32
				m, v []uint16
			}
			run := func(isa string, threads int) result {
				r := rng(uint64(n))
				w, g := normal(r, n, 1), normal(r, n, 2)
				m, v := make([]uint16, n), make([]uint16, n)
				cpu := newCPU(t, isa, threads)
				for step := 1; step <= 3; step++ {
					cpu.AdamW16(&kernel.AdamW{LR: 1e-2, Beta1: 0.9, Beta2: 0.999, Eps: 1e-6, WeightDecay: 0.1, GradScale: 0.5, Step: step, Style: style},
						w, g, m, v, uint64(step)<<40)
				}
				return result{w, m, v}
			}
			want := run("go", 1)
			for _, isa := range kernel.ISAs() {
				for _, threads := range []int{1, 3} {
					got, what := run(isa, threads), fmt.Sprintf("%s, %d threads, %d elements", isa, threads, n)
					same(t, what+": w", got.w, want.w)
					if !slices.Equal(got.m, want.m) || !slices.Equal(got.v, want.v) {
						t.Fatalf("%s: other moments", what)
					}
				}
			}
		}
	}
}

// The first step is that of moments in float32, for it is taken before they are
// rounded; the moments then are one of the two neighbours among the bfloat16,
// and right on the average.
func TestAdamW16RoundsAtRandom(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		const n = 1 << 16
		o := kernel.AdamW{LR: 1e-2, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, GradScale: 1, Step: 1}
		w, g := make([]float32, n), make([]float32, n)
		m, v := make([]uint16, n), make([]uint16, n)
		for i := range g {
			g[i] = -1.2345678
		}
		cpu.AdamW16(&o, w, g, m, v, 99)
		wide := []float64{0}
		rm, rv := []float64{0}, []float64{0}
		r := ref.AdamW{LR: 1e-2, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, GradScale: 1, Step: 1}
		r.Torch(wide, f64(g[:1]), rm, rv)
		near(t, "w", w[:1], wide, 1e-6)
		mean := func(x []uint16, want float64) {
			t.Helper()
			sum, seen := 0.0, map[uint16]int{}
			for _, h := range x {
				seen[h]++
				sum += float64(math.Float32frombits(uint32(h) << 16))
			}
			if len(seen) != 2 {
				t.Errorf("%d different values", len(seen))
			}
			// A bfloat16 is 2^-7 of its value from the next; the mean of n random
			// roundings is within a few of 2^-8/√n.
			if got := sum / n; math.Abs(got-want) > math.Abs(want)*5*0x1p-8/math.Sqrt(n) {
				t.Errorf("the mean is %g, want %g", got, want)
			}
		}
		mean(m, rm[0])
		mean(v, rv[0])
		// A second moment that is to go down by a thousandth does so on the average.
		clear(g)
		o.Step = 2
		for step := range 100 {
			cpu.AdamW16(&o, w, g, m, v, uint64(100+step))
		}
		sum := 0.0
		for _, h := range v {
			sum += float64(math.Float32frombits(uint32(h) << 16))
		}
		if want := rv[0] * math.Pow(0.999, 100); math.Abs(sum/n-want) > 0.002*want {
			t.Errorf("the second moment after 100 steps without gradient is %g, want %g", sum/n, want)
		}
	})
}

// What is not finite stays so.
func TestAdamW16Infinite(t *testing.T) {
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		inf := float32(math.Inf(1))
		w, g := make([]float32, 17), make([]float32, 17)
		m, v := make([]uint16, 17), make([]uint16, 17)
		g[3], g[16] = inf, float32(math.NaN())
		cpu.AdamW16(&kernel.AdamW{LR: 1, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, GradScale: 1, Step: 1}, w, g, m, v, 5)
		if m[3] != 0x7f80 || v[3] != 0x7f80 || m[16]&0x7fff <= 0x7f80 || v[16]&0x7fff <= 0x7f80 {
			t.Errorf("%x %x", m, v)
		}
		if m[0] != 0 || v[0] != 0 || w[0] != 0 {
			t.Error("zero does not stay zero")
		}
	})
}
