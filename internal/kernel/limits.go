package kernel

import (
	"sync/atomic"
	"time"
)

// Limits is what a machine can do at most, measured with the threads and the
// instruction set of a CPU.
type Limits struct {
	FP32GFlops float64 // fp32 multiply-adds, two operations each
	BF16GFlops float64 // the same for products of bf16 pairs; that of fp32 where there are none
	ReadGBs    float64 // reading memory, 1e9 bytes a second
}

// peakOf holds an instruction set's measuring loops.
type peakOf struct {
	flops int              // operations of a round of fp32
	fp32  func(rounds int) // multiply-adds on independent registers
	bf16  func(rounds int) // twice the operations a round; nil: none
	read  func(x []float32)
}

func goPeak() peakOf {
	return peakOf{flops: 16, fp32: peakGo, read: readGo}
}

// peakGo is eight independent multiply-adds a round.
func peakGo(rounds int) {
	const m, a = 0.5, 1
	var x0, x1, x2, x3, x4, x5, x6, x7 float32
	for range rounds {
		x0, x1, x2, x3 = x0*m+a, x1*m+a, x2*m+a, x3*m+a
		x4, x5, x6, x7 = x4*m+a, x5*m+a, x6*m+a, x7*m+a
	}
	sink.Store(uint32(x0 + x1 + x2 + x3 + x4 + x5 + x6 + x7))
}

func readGo(x []float32) {
	var a, b, c, d float32
	for ; len(x) >= 4; x = x[4:] {
		a, b, c, d = max(a, x[0]), max(b, x[1]), max(c, x[2]), max(d, x[3])
	}
	sink.Store(uint32(a + b + c + d))
}

// sink keeps the compiler from dropping what is only measured.
var sink atomic.Uint32

const (
	peakRounds = 10_000   // a few tens of microseconds
	readFloats = 64 << 20 // 256 MB: more than the caches hold that are not shared
	readPiece  = 64 << 10 // floats of a part
)

// MeasureLimits runs each loop for about the given time on all threads of c and
// keeps the best of its rounds.
func MeasureLimits(c *CPU, each time.Duration) Limits {
	p := &c.isa.peak
	var l Limits
	l.FP32GFlops = c.rate(each, 64*c.Threads(), func(int) { p.fp32(peakRounds) }, float64(p.flops)*peakRounds)
	l.BF16GFlops = l.FP32GFlops
	if p.bf16 != nil {
		l.BF16GFlops = c.rate(each, 64*c.Threads(), func(int) { p.bf16(peakRounds) }, 2*float64(p.flops)*peakRounds)
	}
	x := make([]float32, readFloats)
	for i := range x {
		x[i] = 1 // else all pages are the one page of zeros
	}
	l.ReadGBs = c.rate(each, readFloats/readPiece, func(i int) { p.read(x[i*readPiece:][:readPiece]) }, 4*readPiece)
	return l
}

// rate is the best rate, in 1e9 a second, of rounds of n parts worth work each.
func (c *CPU) rate(each time.Duration, n int, f func(i int), work float64) float64 {
	best := 0.0
	job := &partFunc{f}
	for begin := time.Now(); time.Since(begin) < each; {
		start := time.Now()
		c.pool.run(n, job)
		best = max(best, work*float64(n)/time.Since(start).Seconds()/1e9)
	}
	return best
}

// partFunc is a task that is a function.
type partFunc struct{ f func(i int) }

func (j *partFunc) part(_ *worker, i int) { j.f(i) }
