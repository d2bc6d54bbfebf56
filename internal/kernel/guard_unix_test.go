//go:build unix

package kernel_test

import (
	"math/rand/v2"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"promptgen/internal/kernel"
)

// guarded makes slices that end where no memory is, or begin behind it: whatever
// is read or written beside them ends the test with a fault.
type guarded struct {
	t      testing.TB
	r      *rand.Rand
	begin  bool // no memory before the slices; else behind them
	mapped [][]byte
}

func (g *guarded) bytes(n int) unsafe.Pointer {
	page := os.Getpagesize()
	room := (n + page - 1) / page * page
	b, err := unix.Mmap(-1, 0, room+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		g.t.Fatal(err)
	}
	g.mapped = append(g.mapped, b)
	for _, at := range []int{0, page + room} {
		if err := unix.Mprotect(b[at:][:page], unix.PROT_NONE); err != nil {
			g.t.Fatal(err)
		}
	}
	if g.begin {
		return unsafe.Pointer(&b[page])
	}
	return unsafe.Pointer(&b[page+room-n])
}

// floats are n normal deviates.
func (g *guarded) floats(n int) []float32 {
	x := unsafe.Slice((*float32)(g.bytes(4*n)), n)
	for i := range x {
		x[i] = float32(g.r.NormFloat64())
	}
	return x
}

// maybe are n floats or none.
func (g *guarded) maybe(n int) []float32 {
	if g.coin() {
		return nil
	}
	return g.floats(n)
}

// ids are n numbers below limit, and at least least.
func (g *guarded) ids(n, least, limit int) []int32 {
	x := unsafe.Slice((*int32)(g.bytes(4*n)), n)
	for i := range x {
		x[i] = int32(least + g.r.IntN(limit-least))
	}
	return x
}

func (g *guarded) halves(n int) []uint16 { return unsafe.Slice((*uint16)(g.bytes(2*n)), n) }

func (g *guarded) size(limit int) int { return 1 + g.r.IntN(limit) }
func (g *guarded) coin() bool         { return g.r.IntN(2) == 0 }
func (g *guarded) act() kernel.Act    { return kernel.Act(g.r.IntN(4)) }

func (g *guarded) dropout() kernel.Dropout {
	return kernel.Dropout{P: []float32{0, 0.2}[g.r.IntN(2)], Key: 3}
}

func (g *guarded) release() {
	for _, b := range g.mapped {
		if err := unix.Munmap(b); err != nil {
			g.t.Fatal(err)
		}
	}
	g.mapped = nil
}

// No operation reads or writes beside the slices that it is given, whatever their
// sizes.
func TestNothingBesideTheSlices(t *testing.T) {
	rounds := 150
	if testing.Short() {
		rounds = 15
	}
	eachISA(t, func(t *testing.T, cpu *kernel.CPU) {
		for _, begin := range []bool{false, true} {
			g := &guarded{t: t, r: rng(11), begin: begin}
			for range rounds {
				for _, op := range []func(*guarded, *kernel.CPU){guardGemm, guardAttention, guardNorm, guardHead, guardRows, guardUpdate} {
					op(g, cpu)
					g.release()
				}
			}
		}
	})
}

func guardGemm(g *guarded, cpu *kernel.CPU) {
	m, n, k := g.size(130), g.size(130), g.size(130)
	if g.r.IntN(8) == 0 {
		*[]*int{&m, &n, &k}[g.r.IntN(3)] = 500 + g.size(100)
	}
	p := kernel.Gemm{M: m, N: n, K: k, TransA: g.coin(), TransB: g.coin(), BF16: g.coin(),
		A: g.floats(m * k), B: g.floats(k * n), C: g.floats(m * n)}
	switch g.r.IntN(4) {
	case 0:
		p.Accumulate, p.KBlock = true, g.size(k)
	case 1:
		p.Bias, p.PreAct, p.Act = g.maybe(n), g.maybe(m*n), g.act()
		p.Dropout, p.Residual = g.dropout(), g.maybe(m*n)
	case 2:
		p.Through, p.Act = g.floats(m*n), g.act()
	}
	cpu.Gemm(&p)
}

func guardAttention(g *guarded, cpu *kernel.CPU) {
	batch, seqLen, heads, dim := g.size(2), g.size(140), g.size(3), g.size(80)
	rows, width := batch*seqLen, heads*dim
	a := kernel.Attention{Batch: batch, SeqLen: seqLen, Heads: heads, HeadDim: dim, BF16: g.coin(), Dropout: g.dropout(),
		QKV: g.floats(rows * 3 * width), Out: g.floats(rows * width), LSE: g.floats(rows * heads)}
	cpu.AttentionForward(&a)
	cpu.AttentionBackward(&a, g.floats(rows*3*width), g.floats(rows*width))
}

func guardNorm(g *guarded, cpu *kernel.CPU) {
	rows, width := g.size(70), g.size(200)
	x, gain, bias, mean, rstd := g.floats(rows*width), g.floats(width), g.floats(width), g.floats(rows), g.floats(rows)
	y, seqLen := g.floats(rows*width), g.size(rows)
	cpu.LayerNormForward(y, mean, rstd, x, gain, bias, rows, width, 1e-5)
	cpu.LayerNormAgain(y, mean, rstd, x, gain, bias, rows, width)
	cpu.LayerNormBackward(g.floats(rows*width), g.floats(width), g.floats(width), y, x, mean, rstd, gain, rows, width, seqLen)
	cpu.BiasBackward(g.floats(width), y, rows, width, seqLen)
	cpu.RowNorm(y[:width], x[:width], gain, bias, 1e-5)
}

func guardHead(g *guarded, cpu *kernel.CPU) {
	seqLen, width, vocab := g.size(40), g.size(100), g.size(500)
	rows := seqLen * g.size(3)
	h := kernel.Head{Rows: rows, Width: width, Vocab: vocab, SeqLen: seqLen, Scale: 1, Fresh: g.coin(), BF16: g.coin(),
		H: g.floats(rows * width), W: g.floats(vocab * width), Targets: g.ids(rows, -1, vocab)}
	if g.coin() {
		h.Smooth = 0.1
	}
	h.Mem = g.floats(h.Floats(true))
	losses := g.floats(rows)
	cpu.HeadLoss(&h, losses)
	cpu.HeadLossGrad(&h, losses, g.floats(rows*width), g.floats(vocab*width))
}

func guardRows(g *guarded, cpu *kernel.CPU) {
	seqLen, width, vocab := g.size(20), g.size(150), g.size(50)
	rows := seqLen * g.size(3)
	n := rows * width
	y, d := g.floats(n), g.dropout()
	ids := g.ids(rows, 0, vocab)
	cpu.EmbedForward(y, ids, g.floats(vocab*width), g.floats(seqLen*width), seqLen, width, d)
	cpu.EmbedBackward(g.floats(vocab*width), g.floats(seqLen*width), y, ids, seqLen, width, d)
	x := g.floats(n)
	cpu.ActBackward(x, y, g.act())
	cpu.DropoutBackward(x, y, rows, width, d)
	cpu.RowAdd(y, x)
	cpu.RowRound(y)
	cpu.RowScale(y, x, 2)
	cpu.RowAct(y, x, g.act())
	cpu.RowFetch(x)
	cpu.RowExp(y, x, 1)
	cpu.RowMax(y)
	blocks := g.floats(kernel.LogitBlocks(n))
	cpu.BlockMaxima(blocks, x)
	cpu.BlockExp(y, blocks, x, 1, 0)
	for _, pairs := range []bool{false, true} {
		slots := width
		if pairs {
			slots = (width + 1) / 2
		}
		cpu.Turn(g.floats(slots*rows), x, width, rows, width, pairs)
	}
	h := g.halves(n)
	cpu.PackBF16(h, x)
	cpu.UnpackBF16(x, h)
}

func guardUpdate(g *guarded, cpu *kernel.CPU) {
	n := g.size(10_000)
	o := kernel.AdamW{LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01, GradScale: 1, Step: 1}
	w, grad := g.floats(n), g.floats(n)
	cpu.AdamW(&o, w, grad, g.floats(n), g.floats(n))
	cpu.AdamW16(&o, w, grad, g.halves(n), g.halves(n), 1)
	cpu.SumSquares(grad)
	cpu.Add(w, grad)
}
