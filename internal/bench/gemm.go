package bench

import (
	"context"
	"math/rand/v2"
	"time"

	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model"
)

// GemmOptions say which products to measure.
type GemmOptions struct {
	Config  model.Config
	Batch   int // sequences
	DType   kernel.DType
	Threads int
	ISA     string
	Seed    uint64
	Steps   int // products of each kind; 0: as many as take gemmTime
}

const gemmTime = 300 * time.Millisecond

// GemmResult is the speed of one product.
type GemmResult struct {
	Name   string  `json:"name"`
	M      int     `json:"m"`
	N      int     `json:"n"`
	K      int     `json:"k"`
	GFlops float64 `json:"gflops"`
	MFU    float64 `json:"mfu"` // as a share of the limit
}

// GemmReport is the JSON of `bench gemm --json`.
type GemmReport struct {
	Products    []GemmResult `json:"products"`
	GFlops      float64      `json:"gflops"` // over all products, each as often as a training step computes it
	LimitGFlops float64      `json:"limit_gflops"`
	MFU         float64      `json:"mfu"`
	DType       string       `json:"dtype"`
	ISA         string       `json:"isa"`
	Threads     int          `json:"threads"`
	Machine     Machine      `json:"limits"`
}

// product is one of a step's matrix products, and how often it occurs.
type product struct {
	name  string
	times float64
	gemm  kernel.Gemm
}

// products lists a training step's: each linear layer forward (y = x·W), the
// gradient of its input (dy·Wᵀ) and that of its weights (xᵀ·dy), and the head's
// for a chunk of rows. The head's are plain products of their sizes: a step turns
// logits into their exponentials where they arise, and never stores them.
func products(c model.Config, batch int) []product {
	rows, e, in, layers := batch*c.NCtx, c.NEmbd, c.Inner(), float64(c.NLayer)
	var all []product
	linear := func(name string, from, to int) {
		all = append(all,
			product{name, layers, kernel.Gemm{M: rows, N: to, K: from}},
			product{name + " dx", layers, kernel.Gemm{M: rows, N: from, K: to, TransB: true}},
			product{name + " dw", layers, kernel.Gemm{M: from, N: to, K: rows, TransA: true, Accumulate: true, KBlock: c.NCtx}})
	}
	linear("qkv", e, 3*e)
	linear("attn out", e, e)
	linear("mlp in", e, in)
	linear("mlp out", in, e)
	chunk := min(rows, headChunk)
	chunks := float64(rows) / float64(chunk)
	return append(all,
		product{"head", chunks, kernel.Gemm{M: chunk, N: c.VocabSize, K: e, TransB: true}},
		product{"head dx", chunks, kernel.Gemm{M: chunk, N: e, K: c.VocabSize}},
		product{"head dw", chunks, kernel.Gemm{M: c.VocabSize, N: e, K: chunk, TransA: true, Accumulate: true, KBlock: c.NCtx}})
}

// headChunk is about the rows that the head is computed for at a time.
const headChunk = 512

// Gemm measures the matrix products of a training step, one kind after another,
// and the machine's limits.
func Gemm(ctx context.Context, o GemmOptions) (*GemmReport, error) {
	cpu, err := kernel.New(kernel.Options{Threads: o.Threads, ISA: o.ISA})
	if err != nil {
		return nil, fault.With(fault.CodeUsage, err)
	}
	defer cpu.Close()
	r := &GemmReport{DType: o.DType.String(), ISA: cpu.ISA(), Threads: cpu.Threads()}
	rng := rand.New(rand.NewPCG(o.Seed, 0))
	var work, elapsed, fastest float64
	for _, p := range products(o.Config, o.Batch) {
		g := p.gemm
		g.BF16 = o.DType == kernel.BF16
		g.A, g.B, g.C = normal(rng, g.M*g.K), normal(rng, g.K*g.N), make([]float32, g.M*g.N)
		flops := 2e-9 * float64(g.M) * float64(g.N) * float64(g.K)
		seconds, err := timeOf(ctx, o.Steps, func() { cpu.Gemm(&g) })
		if err != nil {
			return nil, err
		}
		work += p.times * flops
		elapsed += p.times * seconds
		rate := flops / seconds
		fastest = max(fastest, rate)
		r.Products = append(r.Products, GemmResult{Name: p.name, M: g.M, N: g.N, K: g.K, GFlops: rate})
	}
	r.GFlops = work / elapsed
	r.Machine = MeasureMachine(cpu, o.DType, fastest)
	r.LimitGFlops = r.Machine.Limit(o.DType)
	for i := range r.Products {
		p := &r.Products[i]
		p.MFU = p.GFlops / r.LimitGFlops
	}
	r.MFU = r.GFlops / r.LimitGFlops
	return r, nil
}

// timeOf is the median duration of f, in seconds, after one to warm up.
func timeOf(ctx context.Context, steps int, f func()) (float64, error) {
	f()
	var times []time.Duration
	for begin := time.Now(); steps > 0 && len(times) < steps || steps == 0 && (len(times) < 3 || time.Since(begin) < gemmTime); {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		start := time.Now()
		f()
		times = append(times, time.Since(start))
	}
	return median(times).Seconds(), nil
}

func normal(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}
