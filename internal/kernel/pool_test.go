package kernel_test

import (
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"promptgen/internal/kernel"
)

// Parallel covers every index once, for few and many, at any number of threads
// and with helpers that sleep between tasks.
func TestParallelCoversOnce(t *testing.T) {
	for _, spin := range []time.Duration{-1, time.Microsecond, 0} {
		for _, threads := range []int{1, 2, 3, 8} {
			cpu, err := kernel.New(kernel.Options{Threads: threads, Spin: spin})
			if err != nil {
				t.Fatal(err)
			}
			for round := range 300 {
				n := round % 17
				seen := make([]atomic.Int32, n)
				cpu.Parallel(n, func(lo, hi int) {
					for i := lo; i < hi; i++ {
						seen[i].Add(1)
					}
				})
				for i := range seen {
					if seen[i].Load() != 1 {
						t.Fatalf("threads %d, n %d: index %d was seen %d times", threads, n, i, seen[i].Load())
					}
				}
				if round%100 == 50 {
					time.Sleep(time.Millisecond)
				}
			}
			cpu.Close()
			cpu.Close() // twice is harmless
		}
	}
}

// One processor for several threads is slow, not stuck.
func TestOneProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	cpu := newCPU(t, "", 4)
	var sum atomic.Int64
	for range 1000 {
		cpu.Parallel(100, func(lo, hi int) { sum.Add(int64(hi - lo)) })
	}
	if sum.Load() != 100000 {
		t.Fatal(sum.Load())
	}
}

// Close ends the helpers.
func TestCloseEndsHelpers(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 10 {
		cpu, err := kernel.New(kernel.Options{Threads: 4})
		if err != nil {
			t.Fatal(err)
		}
		cpu.Close()
	}
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

func TestUnknownISA(t *testing.T) {
	_, err := kernel.New(kernel.Options{ISA: "mmx"})
	if err == nil {
		t.Fatal("mmx was accepted")
	}
	for _, isa := range kernel.ISAs() {
		if !strings.Contains(err.Error(), isa) {
			t.Errorf("%q does not name %s", err, isa)
		}
	}
}

// A steady step allocates nothing.
func TestNoAllocation(t *testing.T) {
	cpu := newCPU(t, "", 2)
	a, b, c := make([]float32, 100*100), make([]float32, 100*100), make([]float32, 100*100)
	step := func() {
		cpu.Gemm(&kernel.Gemm{M: 100, N: 100, K: 100, A: a, B: b, C: c})
		cpu.ActBackward(a, b, kernel.ActGELUNew)
		cpu.SumSquares(a)
	}
	step()
	if n := testing.AllocsPerRun(50, step); n > 0 {
		t.Errorf("%g allocations", n)
	}
}

func TestDTypeNames(t *testing.T) {
	for _, d := range []kernel.DType{kernel.FP32, kernel.FP16, kernel.BF16, kernel.Q8_0, kernel.Q4_0} {
		if got, err := kernel.ParseDType(d.String()); err != nil || got != d {
			t.Errorf("%v: %v %v", d, got, err)
		}
	}
	if _, err := kernel.ParseDType("fp8"); err == nil {
		t.Error("fp8 was accepted")
	}
}

// A panic on any thread reaches the caller, and the pool goes on working.
func TestPanicReachesCaller(t *testing.T) {
	cpu := newCPU(t, "", 3)
	for bad := range 3 {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			cpu.Parallel(3, func(lo, _ int) {
				if lo == bad {
					panic("bad part")
				}
			})
		}()
		var n atomic.Int32
		cpu.Parallel(7, func(lo, hi int) { n.Add(int32(hi - lo)) })
		if n.Load() != 7 {
			t.Errorf("%d of 7 done afterwards", n.Load())
		}
	}
}

func TestMeasureLimits(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 256 MB")
	}
	l := kernel.MeasureLimits(newCPU(t, "", 1), time.Millisecond)
	if l.FP32GFlops <= 0 || l.BF16GFlops <= 0 || l.ReadGBs <= 0 {
		t.Errorf("%+v", l)
	}
}
