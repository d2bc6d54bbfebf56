package model

import (
	"slices"

	"gorgonia.org/gorgonia"

	"promptgen/internal/autodiff"
	"promptgen/internal/kernel"
)

// The fused operations, forward and backward side by side. Rows are the
// sequences given to this run times the sequence length; C is n_embd, I n_inner,
// V vocab_size. x is the residual stream [rows, C].
//
// The gradient of the residual stream lives in one buffer, dx, that every
// backward operation updates in place: the sublayers have the form x + f(x), so
// what reaches x is what reached the result, plus what comes through f.
// Gradients of parameters are added to, so that micro-batches sum up. Those that
// are not trained have none (nil), and what only they would need is not
// computed: a backward operation goes as far down as something wants it to.

// embedding adds x = drop(wte[id] + wpe[position]).
//
// The tied head owns the gradient of wte in the graph, since a node may have
// only one gradient. What the lookups contribute is added up by itself, in the
// compact buffer of rows that were looked up, and joins in foldLookups: the
// order of additions then is all of the head's, then all of the lookups', in
// whatever portions the effective batch is computed. In the graph that buffer is
// the gradient of a node of its own, which stands for those rows.
func (b *builder) embedding() *gorgonia.Node {
	g := b.g
	c := g.cfg
	forward := func() error {
		g.cpu.EmbedForward(g.rows(g.buf.embd, c.NEmbd), g.run.ids, g.p.WTE, g.p.WPE,
			g.opt.SeqLen, c.NEmbd, g.dropout(c.EmbdDrop, 0, dropEmbedding))
		return nil
	}
	backward := func() {
		ids := g.run.slots
		if ids == nil { // of no use: only positions are trained
			ids = g.run.ids
		}
		g.cpu.EmbedBackward(g.buf.lookup, g.grads.WPE, g.rows(g.buf.dx, c.NEmbd), ids,
			g.opt.SeqLen, c.NEmbd, g.dropout(c.EmbdDrop, 0, dropEmbedding))
	}
	in := []edge{{b.ids, nil}, b.edge(g.p.WTE), b.edge(g.p.WPE)}
	if g.p.HeadTied {
		in[1].grad = nil
	}
	if b.lookups != nil {
		in = append(in, edge{b.lookups, dense(g.buf.lookup, b.lookups.Shape()...)})
	}
	return b.apply("embedding", b.stream(g.buf.embd), forward, backward, in...)
}

// attention adds y = x + drop(heads·Wo + bo), where heads is the causal
// self-attention of LN(x).
func (b *builder) attention(l int, x *gorgonia.Node, xs []float32) *gorgonia.Node {
	g := b.g
	c, p, a := g.cfg, &g.p.Blocks[l], &g.buf.attn[l]
	width := c.NEmbd
	attnLow, projLow := adapter{p.AttnLow, l, dropLowAttn}, adapter{p.ProjLow, l, dropLowProj}

	// inside is what a recomputing backward pass does again.
	inside := func() {
		rows := g.run.rows
		g.cpu.LayerNormForward(g.buf.norm, a.mean, a.rstd, g.rows(xs, width), p.LN1Gain, p.LN1Bias,
			rows, width, float32(c.LayerNormEpsilon))
		g.linear(kernel.Gemm{M: rows, N: 3 * width, K: width, A: g.buf.norm, B: p.AttnW, C: a.qkv, Bias: p.AttnB}, &attnLow)
		g.cpu.AttentionForward(g.attention(l))
	}
	whole := func() {
		inside()
		g.linear(kernel.Gemm{M: g.run.rows, N: width, K: width, A: a.heads, B: p.ProjW, C: a.y,
			Bias: p.ProjB, Residual: g.rows(xs, width), Dropout: g.dropout(c.ResidDrop, l, dropAttnResidual)}, &projLow)
	}
	if b.train {
		g.again[l] = whole
	}
	forward := func() error {
		whole()
		g.keep(a.qkv16, a.qkv, 3*width)
		return nil
	}
	in := b.upstream(x)
	dnorm := in.grad != nil || b.trains(p.LN1Gain, p.LN1Bias) // the gradient of norm is wanted
	dqkv := dnorm || b.trains(p.AttnW, p.AttnB, p.AttnLow.A)
	norm := b.trains(p.AttnW, p.AttnLow.A)
	backward := func() {
		switch g.opt.recompute(l) {
		case RecomputeOff:
			g.fetch(a.qkv, a.qkv16, 3*width)
		case RecomputeSublayers:
			inside()
		case RecomputeLayers: // the MLP's backward pass did
		}
		d, rows := &g.grads.Blocks[l], g.run.rows
		dy := g.undrop(c.ResidDrop, l, dropAttnResidual)
		g.linearBackward(a.heads, dy, p.ProjW, d.ProjW, d.ProjB, wanted(dqkv, g.buf.dheads), width, width, &projLow, d.ProjLow)
		if !dqkv {
			return
		}
		g.cpu.AttentionBackward(g.attention(l), g.rows(g.buf.dqkv, 3*width), g.rows(g.buf.dheads, width))
		if norm {
			g.cpu.LayerNormAgain(g.buf.norm, a.mean, a.rstd, g.rows(xs, width), p.LN1Gain, p.LN1Bias, rows, width)
		}
		g.linearBackward(g.buf.norm, g.rows(g.buf.dqkv, 3*width), p.AttnW, d.AttnW, d.AttnB, wanted(dnorm, g.buf.norm), width, 3*width, &attnLow, d.AttnLow)
		if dnorm {
			g.cpu.LayerNormBackward(g.rows(g.buf.dx, width), d.LN1Gain, d.LN1Bias, g.rows(g.buf.norm, width),
				g.rows(xs, width), a.mean, a.rstd, p.LN1Gain, rows, width, g.opt.SeqLen)
		}
	}
	return b.apply("attention", b.stream(a.y), forward, backward,
		b.edges(in, p.LN1Gain, p.LN1Bias, p.AttnW, p.AttnB, p.ProjW, p.ProjB, p.AttnLow.A, p.AttnLow.B, p.ProjLow.A, p.ProjLow.B)...)
}

// mlp adds y = x + drop(act(LN(x)·Wfc + bfc)·Wout + bout).
func (b *builder) mlp(l int, x *gorgonia.Node, xs []float32) *gorgonia.Node {
	g := b.g
	c, p, m := g.cfg, &g.p.Blocks[l], &g.buf.mlp[l]
	width, inner := c.NEmbd, c.Inner()
	fcLow, outLow := adapter{p.FcLow, l, dropLowFc}, adapter{p.OutLow, l, dropLowOut}

	// inside computes pre, and act unless it is for a backward pass, which makes it
	// out of pre.
	inside := func(again bool) {
		rows := g.run.rows
		g.cpu.LayerNormForward(g.buf.norm, m.mean, m.rstd, g.rows(xs, width), p.LN2Gain, p.LN2Bias,
			rows, width, float32(c.LayerNormEpsilon))
		o := kernel.Gemm{M: rows, N: inner, K: width, A: g.buf.norm, B: p.FcW, C: m.act,
			Bias: p.FcB, PreAct: m.pre, Act: g.act}
		if again {
			o.C, o.PreAct, o.Act = m.pre, nil, kernel.ActNone
		}
		g.linear(o, &fcLow)
	}
	forward := func() error {
		inside(false)
		g.linear(kernel.Gemm{M: g.run.rows, N: width, K: inner, A: m.act, B: p.OutW, C: m.y,
			Bias: p.OutB, Residual: g.rows(xs, width), Dropout: g.dropout(c.ResidDrop, l, dropMLPResidual)}, &outLow)
		return nil
	}
	in := b.upstream(x)
	dnorm := in.grad != nil || b.trains(p.LN2Gain, p.LN2Bias)
	dpre := dnorm || b.trains(p.FcW, p.FcB, p.FcLow.A)
	norm := b.trains(p.FcW, p.FcLow.A)
	backward := func() {
		switch g.opt.recompute(l) {
		case RecomputeOff:
		case RecomputeSublayers:
			inside(true)
		case RecomputeLayers:
			g.again[l]()
			inside(true)
		}
		d, rows := &g.grads.Blocks[l], g.run.rows
		dy := g.undrop(c.ResidDrop, l, dropMLPResidual)
		// Going back through the activation leaves its values where those before
		// it were, for the gradient of the weights that they were multiplied by.
		act, dp := g.rows(m.pre, inner), g.rows(m.act, inner)
		g.adapterDown(&outLow, dy, width)
		if dpre {
			g.linearUpstream(dy, p.OutW, dp, inner, width, &outLow, act)
		} else {
			g.cpu.ActBackward(dp, act, g.act) // for act: nobody reads dp
		}
		g.linearWeights(act, dy, d.OutW, d.OutB, inner, width, &outLow, d.OutLow)
		if !dpre {
			return
		}
		if norm {
			g.cpu.LayerNormAgain(g.buf.norm, m.mean, m.rstd, g.rows(xs, width), p.LN2Gain, p.LN2Bias, rows, width)
		}
		g.linearBackward(g.buf.norm, dp, p.FcW, d.FcW, d.FcB, wanted(dnorm, g.buf.norm), width, inner, &fcLow, d.FcLow)
		if dnorm {
			g.cpu.LayerNormBackward(g.rows(g.buf.dx, width), d.LN2Gain, d.LN2Bias, g.rows(g.buf.norm, width),
				g.rows(xs, width), m.mean, m.rstd, p.LN2Gain, rows, width, g.opt.SeqLen)
		}
	}
	return b.apply("mlp", b.stream(m.y), forward, backward,
		b.edges(in, p.LN2Gain, p.LN2Bias, p.FcW, p.FcB, p.OutW, p.OutB, p.FcLow.A, p.FcLow.B, p.OutLow.A, p.OutLow.B)...)
}

// head adds the loss: the final LayerNorm, the logits LN(x)·W^T and their
// cross-entropy with the targets, over chunks so that [rows, V] logits never
// exist at once.
//
// In training the forward pass computes the gradients of the logits' product
// along with the losses, while the logits are at hand; the backward pass only
// has the LayerNorm left to do. The upstream gradient of the loss therefore
// must be 1, which it is for the node that the graph is differentiated from;
// scaling is the run's scale.
func (b *builder) head(x *gorgonia.Node, xs []float32) *gorgonia.Node {
	g := b.g
	c, p := g.cfg, g.p
	width := c.NEmbd
	in := b.upstream(x)
	dnorm := in.grad != nil || b.trains(p.LNFGain, p.LNFBias)
	forward := func() error {
		rows := g.run.rows
		g.cpu.LayerNormForward(g.buf.norm, g.buf.mean, g.buf.rstd, g.rows(xs, width), p.LNFGain, p.LNFBias,
			rows, width, float32(c.LayerNormEpsilon))
		g.headArgs = kernel.Head{Rows: rows, Width: width, Vocab: c.VocabSize, SeqLen: g.opt.SeqLen,
			H: g.rows(g.buf.norm, width), W: p.Head, Targets: g.run.targets, Scale: g.run.scale, Mem: g.buf.head, BF16: g.opt.BF16}
		if b.train {
			g.headArgs.Smooth, g.headArgs.Fresh = g.opt.LabelSmoothing, g.fresh
			g.cpu.HeadLossGrad(&g.headArgs, g.rows(g.buf.losses, 1), wanted(dnorm, g.buf.norm), g.grads.Head)
		} else {
			g.cpu.HeadLoss(&g.headArgs, g.rows(g.buf.losses, 1))
		}
		g.run.loss = sumLosses(g.rows(g.buf.losses, 1))
		*g.loss = gorgonia.F32(g.run.loss)
		return nil
	}
	backward := func() {
		if !dnorm {
			return
		}
		dx := g.rows(g.buf.dx, width)
		g.cpu.Parallel(len(dx), func(lo, hi int) { clear(dx[lo:hi]) })
		g.cpu.LayerNormBackward(dx, g.grads.LNFGain, g.grads.LNFBias, g.rows(g.buf.norm, width),
			g.rows(xs, width), g.buf.mean, g.buf.rstd, p.LNFGain, g.run.rows, width, g.opt.SeqLen)
	}
	return b.apply("head", g.loss, forward, backward, in,
		b.edge(p.LNFGain), b.edge(p.LNFBias), b.edge(p.Head), edge{b.targets, nil})
}

// linear is product, of the form x·W and what follows it; with an adapter,
// x·W + s·drop(x)·Aᵀ·Bᵀ.
func (g *Graph) linear(o kernel.Gemm, low *adapter) {
	if low.A != nil {
		g.product(kernel.Gemm{M: o.M, N: o.N, K: o.K, A: o.A, B: o.B, C: o.C})
		u := g.lowRank(low, g.adapterInput(low, o.A, o.K), o.K)
		o.A, o.B, o.TransB, o.K, o.Accumulate = u, low.B, true, g.p.LoRA.Rank, true
	}
	g.product(o)
}

// product computes a matrix product of dense operands in the graph's precision.
func (g *Graph) product(o kernel.Gemm) {
	o.BF16 = g.opt.BF16
	g.gemmArgs = o
	g.cpu.Gemm(&g.gemmArgs)
}

// keep stores an operand of bf16 products until the backward pass, where there
// is room for it; evaluation needs none of it.
func (g *Graph) keep(dst []uint16, src []float32, width int) {
	if dst != nil && g.run.training {
		g.cpu.PackBF16(dst[:g.run.rows*width], g.rows(src, width))
	}
}

// fetch brings back what keep stored.
func (g *Graph) fetch(dst []float32, src []uint16, width int) {
	if src != nil {
		g.cpu.UnpackBF16(g.rows(dst, width), src[:g.run.rows*width])
	}
}

// linearBackward is the backward pass of y = x·W + b with W [in, out]: adds to
// dW and db, and to the gradients dlow of an adapter, overwrites dx [rows, in],
// which may be x; what is nil is not wanted.
func (g *Graph) linearBackward(x, dy, w, dw, db, dx []float32, in, out int, low *adapter, dlow LowRank) {
	g.adapterDown(low, dy, out)
	g.linearWeights(x, dy, dw, db, in, out, low, dlow)
	if dx != nil {
		g.linearUpstream(dy, w, dx, in, out, low, nil)
	}
}

// linearWeights adds to the gradients of the weights. Sums over rows restart at
// every sequence.
func (g *Graph) linearWeights(x, dy, dw, db []float32, in, out int, low *adapter, dlow LowRank) {
	rows, seq := g.run.rows, g.opt.SeqLen
	if db != nil {
		g.cpu.BiasBackward(db, g.rows(dy, out), rows, out, seq)
	}
	if dw != nil {
		g.product(kernel.Gemm{M: in, N: out, K: rows, TransA: true, Accumulate: !g.fresh, KBlock: seq, A: x, B: dy, C: dw})
	}
	if low.A != nil {
		g.adapterWeights(low, dlow, x, dy, in, out)
	}
}

// linearUpstream sets dx to the gradient of x. Where x is the activation of
// pre, it is the gradient of pre instead, and pre becomes its activation.
func (g *Graph) linearUpstream(dy, w, dx []float32, in, out int, low *adapter, pre []float32) {
	o := kernel.Gemm{M: g.run.rows, N: in, K: out, TransB: true, A: dy, B: w, C: dx}
	joined := pre != nil && low.A == nil
	if joined {
		o.Through, o.Act = pre, g.act
	}
	g.product(o)
	if low.A != nil {
		g.adapterUpstream(low, dx, in)
	}
	if pre != nil && !joined {
		g.cpu.ActBackward(dx, pre, g.act)
	}
}

// wanted is buf, or nil where nothing wants it filled.
func wanted(is bool, buf []float32) []float32 {
	if !is {
		return nil
	}
	return buf
}

// undrop is the gradient of the residual stream under a sublayer's dropout: dx
// itself without dropout, else masked in a buffer of its own.
func (g *Graph) undrop(p float64, layer int, site dropSite) []float32 {
	dx := g.rows(g.buf.dx, g.cfg.NEmbd)
	d := g.dropout(p, layer, site)
	if d.P == 0 {
		return dx
	}
	s := g.rows(g.buf.norm, g.cfg.NEmbd)
	g.cpu.DropoutBackward(s, dx, g.run.rows, g.cfg.NEmbd, d)
	return s
}

// attention describes a layer's attention to the kernel.
func (g *Graph) attention(l int) *kernel.Attention {
	c, a := g.cfg, &g.buf.attn[l]
	g.attnArgs = kernel.Attention{
		Batch: g.run.rows / g.opt.SeqLen, SeqLen: g.opt.SeqLen, Heads: c.NHead, HeadDim: c.HeadDim(),
		QKV: g.rows(a.qkv, 3*c.NEmbd), Out: g.rows(a.heads, c.NEmbd), LSE: g.rows(a.lse, c.NHead),
		Dropout: g.dropout(c.AttnDrop, l, dropAttention), BF16: g.opt.BF16,
	}
	return &g.attnArgs
}

// rows cuts a buffer to the rows of the current run.
func (g *Graph) rows(buf []float32, width int) []float32 { return buf[:g.run.rows*width] }

// edges are the upstream input and the parameters that an operation reads; those
// that are not there (adapters) are left out.
func (b *builder) edges(x edge, weights ...[]float32) []edge {
	in := []edge{x}
	for _, w := range weights {
		if w != nil {
			in = append(in, b.edge(w))
		}
	}
	return in
}

// edge is an input of an operation and the buffer of its gradient.
type edge struct {
	node *gorgonia.Node
	grad gorgonia.Value // nil: none
}

// upstream is the residual stream as an input: without a gradient where nothing
// below is trained.
func (b *builder) upstream(x *gorgonia.Node) edge {
	if !b.reached {
		return edge{x, nil}
	}
	return edge{x, b.dx}
}

// trains says whether any of the weights has a gradient.
func (b *builder) trains(weights ...[]float32) bool {
	return slices.ContainsFunc(weights, func(w []float32) bool { return w != nil && b.grad(w) != nil })
}

// apply adds an operation that reads from edges.
func (b *builder) apply(name string, out gorgonia.Value, forward func() error, backward func(), in ...edge) *gorgonia.Node {
	if b.err != nil {
		return nil
	}
	op := autodiff.Op{Name: name, Out: out, Forward: forward}
	nodes := make([]*gorgonia.Node, len(in))
	for i, e := range in {
		nodes[i] = e.node
		if b.train {
			op.Grads = append(op.Grads, e.grad)
			b.reached = b.reached || e.grad != nil
		}
	}
	last, from := out == gorgonia.Value(b.g.loss), b.finalFrom(in)
	op.Backward = func(dy gorgonia.Value) error {
		if !last && dy != b.dx {
			return errUpstream
		}
		backward()
		if b.g.onFinal != nil {
			b.g.onFinal(from)
		}
		return nil
	}
	n, err := autodiff.Apply(op, nodes...)
	if err != nil {
		b.err = err
	}
	return n
}
