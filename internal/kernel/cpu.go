package kernel

import (
	"runtime"
	"time"
)

// Options of a CPU. The zero value is right for nearly everyone.
type Options struct {
	Threads int           // threads that compute; 0: GOMAXPROCS
	ISA     string        // "go", "avx2", "avx512", "avx512bf16"; empty: the best there is
	Spin    time.Duration // how long idle threads poll before they sleep; 0: a fifth of a millisecond; negative: not at all
}

// defaultSpin bridges the gaps between the operations of a training step.
const defaultSpin = 200 * time.Microsecond

// CPU computes. One caller uses it at a time; what it needs in memory it keeps
// for the next call.
type CPU struct {
	pool *pool
	isa  *isa
	jobs // one of each kind, reused, so that a steady step allocates nothing

	packedB buf // the packed block of B all workers read
	parts   buf // partial sums over rows
	chunk   buf // what the head keeps of one chunk of rows
	sums    []float64
}

// jobs holds the state of each operation while its parts run.
type jobs struct {
	rangeJob  rangeJob
	eachJob   eachJob
	gemmJob   gemmJob
	vecJob    vecJob
	normJob   normJob
	colJob    colJob
	embedJob  embedJob
	attnJob   attnJob
	headJob   headJob
	adamJob   adamJob
	adam16Job adam16Job
	squareJob squareJob
}

// worker is the memory of one thread.
type worker struct {
	id      int // its place among the workers
	packedA buf // its block of A
	packed  packedRows
	tile    buf // one tile of C at a ragged edge
	attn    attnHead
	row     buf
	soft    buf // its tiles of a soft product
	later   laterReads
}

// MultipliesBF16 tells whether products of bf16 operands are computed as such.
// Otherwise operands are rounded to bf16 and multiplied in fp32, no faster than
// others.
func (c *CPU) MultipliesBF16() bool { return c.isa.bf16.pairs }

// New starts a CPU. It fails when the machine lacks the instruction set asked
// for; the error names those it has.
func New(o Options) (*CPU, error) {
	set, err := findISA(o.ISA)
	if err != nil {
		return nil, err
	}
	threads := o.Threads
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	spin := o.Spin
	if spin == 0 {
		spin = defaultSpin
	}
	if threads > runtime.GOMAXPROCS(0) {
		spin = 0 // a thread that spins would keep another from running
	}
	return &CPU{pool: newPool(threads, spin), isa: set}, nil
}

// Close ends the worker threads. The CPU must not be used afterwards.
func (c *CPU) Close() { c.pool.close() }

// Threads is the number of threads that compute.
func (c *CPU) Threads() int { return len(c.pool.workers) }

// ISA names the instruction set in use.
func (c *CPU) ISA() string { return c.isa.name }

// Parallel splits [0,n) into one range for each thread and runs f on them.
func (c *CPU) Parallel(n int, f func(lo, hi int)) {
	if n <= 0 {
		return
	}
	parts := min(n, c.Threads())
	c.rangeJob = rangeJob{n, parts, f}
	c.pool.run(parts, &c.rangeJob)
	c.rangeJob.f = nil
}

type rangeJob struct {
	n, parts int
	f        func(lo, hi int)
}

func (j *rangeJob) part(_ *worker, i int) { j.f(j.n*i/j.parts, j.n*(i+1)/j.parts) }
