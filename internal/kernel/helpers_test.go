package kernel_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"promptgen/internal/kernel"
)

// eachISA runs f as a subtest at every level this machine has.
func eachISA(t *testing.T, f func(t *testing.T, cpu *kernel.CPU)) {
	t.Helper()
	for _, isa := range kernel.ISAs() {
		t.Run(isa, func(t *testing.T) {
			f(t, newCPU(t, isa, 2))
		})
	}
}

func newCPU(t testing.TB, isa string, threads int) *kernel.CPU {
	t.Helper()
	cpu, err := kernel.New(kernel.Options{ISA: isa, Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cpu.Close)
	return cpu
}

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// normal returns n normal deviates whose slice begins skew floats into its
// memory, so that it does not lie on a cache line.
func normal(r *rand.Rand, n, skew int) []float32 {
	x := make([]float32, n+skew)[skew:]
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func f64(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

func clone(x []float32) []float32 { return append([]float32(nil), x...) }

// near fails unless got is want within tol, relative to values above 1. NaN and
// infinities must be the same.
func near(t testing.TB, what string, got []float32, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i, w := range want {
		g := float64(got[i])
		if math.IsNaN(w) && math.IsNaN(g) || math.IsInf(w, 0) && g == w {
			continue
		}
		if !(math.Abs(g-w) <= tol*(1+math.Abs(w))) {
			t.Fatalf("%s: element %d is %g, want %g", what, i, g, w)
		}
	}
}

// same fails unless the slices agree to the bit.
func same(t testing.TB, what string, got, want []float32) {
	t.Helper()
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s: element %d is %g, want %g to the bit", what, i, got[i], want[i])
		}
	}
}
