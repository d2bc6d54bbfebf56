package model

import "promptgen/internal/kernel"

// The low-rank branch of a product, forward and backward. It is computed beside
// the product instead of being merged into the matrix at every step: a merged
// matrix would need memory for itself and for its gradient, a product for that
// gradient, as large as the two others of the backward pass, and it could not be
// added up sequence by sequence without a further copy. The branch takes a few
// columns beside thousands.

// adapter is the branch of one matrix.
type adapter struct {
	LowRank
	layer int
	site  dropSite
}

// mask is the dropout of what goes into the branch.
func (g *Graph) mask(low *adapter) kernel.Dropout {
	return g.dropout(g.p.LoRA.Dropout, low.layer, low.site)
}

// adapterInput is x [rows, in] under the branch's dropout.
func (g *Graph) adapterInput(low *adapter, x []float32, in int) []float32 {
	d := g.mask(low)
	if d.P == 0 {
		return x
	}
	g.cpu.DropoutBackward(g.buf.lowIn, x, g.run.rows, in, d)
	return g.buf.lowIn
}

// lowRank is u = s·x·Aᵀ [rows, rank].
func (g *Graph) lowRank(low *adapter, x []float32, in int) []float32 {
	u := g.rows(g.buf.low, g.p.LoRA.Rank)
	g.product(kernel.Gemm{M: g.run.rows, N: g.p.LoRA.Rank, K: in, TransB: true, A: x, B: low.A, C: u})
	g.scale(u)
	return u
}

// adapterDown sets du = s·dy·B, which the two that follow need.
func (g *Graph) adapterDown(low *adapter, dy []float32, out int) {
	if low.A == nil {
		return
	}
	rank := g.p.LoRA.Rank
	du := g.rows(g.buf.dlow, rank)
	g.product(kernel.Gemm{M: g.run.rows, N: rank, K: out, A: dy, B: low.B, C: du})
	g.scale(du)
}

// adapterWeights adds dyᵀ·u to dB and duᵀ·x to dA, u being computed again.
func (g *Graph) adapterWeights(low *adapter, d LowRank, x, dy []float32, in, out int) {
	rows, seq, rank := g.run.rows, g.opt.SeqLen, g.p.LoRA.Rank
	x = g.adapterInput(low, x, in)
	u, du := g.lowRank(low, x, in), g.rows(g.buf.dlow, rank)
	g.product(kernel.Gemm{M: out, N: rank, K: rows, TransA: true, Accumulate: true, KBlock: seq, A: dy, B: u, C: d.B})
	g.product(kernel.Gemm{M: rank, N: in, K: rows, TransA: true, Accumulate: true, KBlock: seq, A: du, B: x, C: d.A})
}

// adapterUpstream adds du·A, through the dropout, to dx [rows, in].
func (g *Graph) adapterUpstream(low *adapter, dx []float32, in int) {
	rows, du := g.run.rows, g.rows(g.buf.dlow, g.p.LoRA.Rank)
	d := g.mask(low)
	if d.P == 0 {
		g.product(kernel.Gemm{M: rows, N: in, K: g.p.LoRA.Rank, Accumulate: true, A: du, B: low.A, C: dx})
		return
	}
	part := g.rows(g.buf.lowIn, in)
	g.product(kernel.Gemm{M: rows, N: in, K: g.p.LoRA.Rank, A: du, B: low.A, C: part})
	g.cpu.DropoutBackward(part, part, rows, in, d)
	g.cpu.Parallel(len(part), func(lo, hi int) { g.cpu.Add(dx[lo:hi], part[lo:hi]) })
}

// scale multiplies by the adapters' scale.
func (g *Graph) scale(u []float32) {
	s := g.p.LoRA.Scale()
	g.cpu.Parallel(len(u), func(lo, hi int) { g.cpu.RowScale(u[lo:hi], u[lo:hi], s) })
}
