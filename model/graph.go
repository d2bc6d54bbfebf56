package model

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"promptgen/internal/fault"
	"promptgen/internal/kernel"
)

// GraphOptions are what a graph's memory depends on besides the Config.
type GraphOptions struct {
	Batch  int // most sequences in one call of Step or Eval (a micro-batch)
	SeqLen int // tokens of a sequence, at most n_positions
	// Sequences is the most sequences whose gradients are added up before
	// ZeroGrads (the effective batch). 0: Batch.
	Sequences   int
	BF16        bool // operands of matrix products rounded to bfloat16
	Recompute   Recompute
	ForwardOnly bool      // Eval and Logits only: no gradients, least memory
	Trainable   Trainable // its LoRA is that of the parameters
	// LabelSmoothing is the share of each target that Step divides among all
	// tokens; Eval's losses are not smoothed.
	LabelSmoothing float32

	// RecomputeLast limits Recompute to the last so many layers; 0: all of them.
	RecomputeLast int
	// StoreBF16 keeps what only products of bfloat16 read in that format, which
	// changes no number. It takes BF16.
	StoreBF16 bool
	// Memory is what the buffers are laid over, Bytes(Buffers(…))/4 floats that
	// are zero; nil: memory of the graph's own.
	Memory []float32

	layers int // of the config
}

// recompute is what layer l does.
func (o GraphOptions) recompute(l int) Recompute {
	if o.RecomputeLast > 0 && l < o.layers-o.RecomputeLast {
		return RecomputeOff
	}
	return o.Recompute
}

func (o GraphOptions) withDefaults(c Config) GraphOptions {
	o.layers = c.NLayer
	o.StoreBF16 = o.StoreBF16 && o.BF16 && !o.ForwardOnly

	if o.Sequences == 0 {
		o.Sequences = o.Batch
	}
	return o
}

// Graph is GPT-2's forward and backward pass over a Params: an expression graph
// of fused operations (sublayers.go) that Gorgonia differentiates and runs, in
// memory that is allocated once (buffers.go). It is used by one caller at a
// time.
//
//	g.ZeroGrads()
//	for each micro-batch {
//		loss, err := g.Step(ids, targets, 1/targetsInTheEffectiveBatch, key)
//	}
//	solver.Step(g.ValueGrads())
//
// The gradients do not depend, to the last bit, on how the effective batch is
// cut into micro-batches, nor on the number of threads.
type Graph struct {
	cpu *kernel.CPU
	cfg Config
	opt GraphOptions
	act kernel.Act

	p     *Params
	grads *Params // where Step adds to
	own   *Params // the graph's own, which valueGrads are of
	buf   *buffers
	loss  *gorgonia.F32

	train, eval gorgonia.VM // train is nil for ForwardOnly
	valueGrads  []gorgonia.ValueGrad
	slots       int // rows of buf.lookup in use

	// The first micro-batch after ZeroGrads overwrites the gradients of matrices
	// that are multiplied by: clearing and reading them would be two passes over
	// most of the model.
	fresh  bool   // nothing was added up yet
	matrix []bool // of each tensor in Params.Tensors: it is one of those

	again []func() // [layers] the forward pass of a layer's attention, for RecomputeLayers

	run     run       // what the operations are computing now
	onFinal func(int) // see OnFinal

	// Arguments of the kernels, kept here so that a step allocates none.
	gemmArgs kernel.Gemm
	attnArgs kernel.Attention
	headArgs kernel.Head
}

// run is the state of one call.
type run struct {
	training            bool
	rows                int
	ids, targets, slots []int32
	scale               float32
	drop                DropKey
	loss                float64
}

// builder makes one expression graph over the Graph's buffers.
type builder struct {
	g            *Graph
	expr         *gorgonia.ExprGraph
	train        bool
	ids, targets *gorgonia.Node
	nodes        gorgonia.Nodes // of the parameters, in the order of Params.Tensors
	lookups      *gorgonia.Node // the looked-up rows of a tied token embedding; nil where it is not trained
	dx           gorgonia.Value
	reached      bool // something that was built so far is trained
	err          error
}

var errUpstream = errors.New("the gradient that arrives is not the residual stream's")

// NewGraph allocates the buffers and builds the graph of p.
func NewGraph(cpu *kernel.CPU, p *Params, o GraphOptions) (*Graph, error) {
	o = o.withDefaults(p.Config)
	o.Trainable.LoRA = p.LoRA
	l := p.Config.Faults()
	if p.Config.VocabSize == 0 {
		l.Addf("vocab_size is not set")
	}
	if o.Batch < 1 || o.Sequences < o.Batch {
		l.Addf("batch must be at least 1 and at most the effective batch (%d), not %d", o.Sequences, o.Batch)
	}
	if o.SeqLen < 1 || o.SeqLen > p.Config.NPositions {
		l.Addf("sequence length must be between 1 and n_positions (%d), not %d", p.Config.NPositions, o.SeqLen)
	}
	if err := l.Err("graph"); err != nil {
		return nil, err
	}
	if _, err := o.Trainable.Trained(p.Config, !p.HeadTied); err != nil {
		return nil, err
	}
	g := &Graph{cpu: cpu, cfg: p.Config, opt: o, p: p, loss: gorgonia.NewF32(0), again: make([]func(), p.Config.NLayer)}
	g.act = map[Activation]kernel.Act{GELUNew: kernel.ActGELUNew, GELU: kernel.ActGELU, ReLU: kernel.ActReLU}[p.Config.Act()]
	var err error
	if g.buf, err = newBuffers(p.Config, !p.HeadTied, o); err != nil {
		return nil, err
	}
	if !o.ForwardOnly {
		g.matrix = matrices(p)
		g.own = o.Trainable.Over(p.Config, !p.HeadTied, g.buf.grads)
		g.grads = g.own
		if g.train, err = g.build(true); err != nil {
			return nil, err
		}
	}
	if g.eval, err = g.build(false); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// build makes the expression graph, for training with its gradients, and the
// machine that runs it.
func (g *Graph) build(train bool) (gorgonia.VM, error) {
	rows := g.opt.Batch * g.opt.SeqLen
	b := &builder{g: g, expr: gorgonia.NewGraph(), train: train}
	b.ids = gorgonia.NewVector(b.expr, tensor.Int32, gorgonia.WithName("ids"), gorgonia.WithShape(rows),
		gorgonia.WithValue(tensor.New(tensor.WithShape(rows), tensor.WithBacking(g.buf.ids))))
	b.targets = gorgonia.NewVector(b.expr, tensor.Int32, gorgonia.WithName("targets"), gorgonia.WithShape(rows),
		gorgonia.WithValue(tensor.New(tensor.WithShape(rows), tensor.WithBacking(g.buf.targets))))
	for _, t := range g.p.Tensors {
		b.nodes = append(b.nodes, gorgonia.NewTensor(b.expr, tensor.Float32, len(t.Shape),
			gorgonia.WithName(t.Name), gorgonia.WithShape(t.Shape...), gorgonia.WithValue(dense(t.Data, t.Shape...))))
	}
	if train {
		b.dx = b.stream(g.buf.dx)
		if g.own.WTE != nil && g.p.HeadTied {
			// Its value is of no use: the buffer of its gradient stands for it.
			rows := dense(g.buf.lookup, len(g.buf.slotID), g.cfg.NEmbd)
			b.lookups = gorgonia.NewMatrix(b.expr, tensor.Float32, gorgonia.WithName("looked-up rows"),
				gorgonia.WithShape(rows.Shape()...), gorgonia.WithValue(rows))
		}
	}
	x, xs := b.embedding(), g.buf.embd
	for l := range g.cfg.NLayer {
		x, xs = b.attention(l, x, xs), g.buf.attn[l].y
		x, xs = b.mlp(l, x, xs), g.buf.mlp[l].y
	}
	cost := b.head(x, xs)
	if b.err != nil {
		return nil, b.err
	}
	if train {
		trained := b.trained()
		wrt := trained
		if b.lookups != nil {
			wrt = append(slices.Clip(trained), b.lookups)
		}
		if _, err := gorgonia.Grad(cost, wrt...); err != nil {
			return nil, fmt.Errorf("differentiating the graph: %w", err)
		}
		g.valueGrads = gorgonia.NodesToValueGrads(trained)
	}
	return gorgonia.NewTapeMachine(b.expr), nil
}

// dense wraps memory of ours.
func dense(data []float32, shape ...int) *tensor.Dense {
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(data))
}

// stream is a value of the residual stream's shape.
func (b *builder) stream(data []float32) gorgonia.Value {
	return dense(data, b.g.opt.Batch*b.g.opt.SeqLen, b.g.cfg.NEmbd)
}

// index finds the parameter whose memory w is.
func (b *builder) index(w []float32) int {
	for i, t := range b.g.p.Tensors {
		if &t.Data[0] == &w[0] {
			return i
		}
	}
	panic("model: not a parameter") // a programming error, found by every test
}

// trained are the nodes of the weights that have gradients.
func (b *builder) trained() (nodes gorgonia.Nodes) {
	for i, t := range b.g.own.Tensors {
		if t.Data != nil {
			nodes = append(nodes, b.nodes[i])
		}
	}
	return nodes
}

func (b *builder) param(w []float32) *gorgonia.Node { return b.nodes[b.index(w)] }

// grad is the gradient of a parameter, nil where it has none.
func (b *builder) grad(w []float32) gorgonia.Value {
	if !b.train {
		return nil
	}
	t := b.g.grads.Tensors[b.index(w)]
	if t.Data == nil {
		return nil
	}
	return dense(t.Data, t.Shape...)
}

func (b *builder) edge(w []float32) edge { return edge{b.param(w), b.grad(w)} }

// Step runs the forward and backward pass over a micro-batch and adds the
// gradient of scale * (sum of the losses) to Grads. ids and targets are
// [sequences, SeqLen], at most Batch sequences; a target of -1 is ignored. The
// result is the sum of the losses, exactly independent of the order of adding.
func (g *Graph) Step(ids, targets []int32, scale float32, key DropKey) (float64, error) {
	if g.train == nil {
		return 0, errors.New("a forward-only graph has no gradients")
	}
	if err := g.load(ids, targets); err != nil {
		return 0, err
	}
	g.run.training, g.run.scale, g.run.drop = true, scale, key
	if err := g.assignSlots(); err != nil {
		return 0, err
	}
	loss, err := g.runMachine(g.train)
	g.fresh = false
	return loss, err
}

// Eval is the sum of the losses of a batch and the number of its targets, with
// dropout off.
func (g *Graph) Eval(ids, targets []int32) (sum float64, n int, err error) {
	if err := g.load(ids, targets); err != nil {
		return 0, 0, err
	}
	for _, t := range targets {
		if t >= 0 {
			n++
		}
	}
	sum, err = g.runMachine(g.eval)
	return sum, n, err
}

// Logits are the predictions [len(ids), vocab_size] of a batch, for tests and
// for looking at a model; training never has them all at once.
func (g *Graph) Logits(ids []int32) ([]float32, error) {
	targets := make([]int32, len(ids))
	for i := range targets {
		targets[i] = -1
	}
	if _, _, err := g.Eval(ids, targets); err != nil {
		return nil, err
	}
	logits := make([]float32, len(ids)*g.cfg.VocabSize)
	g.product(kernel.Gemm{M: len(ids), N: g.cfg.VocabSize, K: g.cfg.NEmbd, TransB: true,
		A: g.buf.norm, B: g.p.Head, C: logits})
	return logits, nil
}

func (g *Graph) runMachine(vm gorgonia.VM) (float64, error) {
	defer vm.Reset()
	if err := vm.RunAll(); err != nil {
		return 0, fmt.Errorf("running the graph: %w", err)
	}
	return g.run.loss, nil
}

// load checks a batch and copies it to where the operations read it.
func (g *Graph) load(ids, targets []int32) error {
	if n := len(ids); n == 0 || n%g.opt.SeqLen != 0 || n > g.opt.Batch*g.opt.SeqLen || len(targets) != n {
		return fmt.Errorf("a batch of %d ids and %d targets is not 1 to %d sequences of %d", n, len(targets), g.opt.Batch, g.opt.SeqLen)
	}
	for i, id := range ids {
		if id < 0 || int(id) >= g.cfg.VocabSize || targets[i] < -1 || int(targets[i]) >= g.cfg.VocabSize {
			return fault.Corrupt("token id %d or target %d is outside the vocabulary of %d: the tokens belong to another vocabulary", id, targets[i], g.cfg.VocabSize)
		}
	}
	n := copy(g.buf.ids, ids)
	copy(g.buf.targets, targets)
	g.run = run{rows: n, ids: g.buf.ids[:n], targets: g.buf.targets[:n]}
	return nil
}

// assignSlots gives every token of the batch its row in the compact gradient
// of the lookups.
func (g *Graph) assignSlots() error {
	b := g.buf
	if b.lookup == nil { // the token embedding is not trained
		return nil
	}
	for i, id := range g.run.ids {
		if b.slotOf[id] == 0 {
			if g.slots == len(b.slotID) {
				return fmt.Errorf("more than the %d sequences that GraphOptions.Sequences allows were added up", g.opt.Sequences)
			}
			b.slotID[g.slots] = id
			g.slots++
			b.slotOf[id] = int32(g.slots)
		}
		b.slots[i] = b.slotOf[id] - 1
	}
	g.run.slots = b.slots[:len(g.run.ids)]
	return nil
}

// matrices says which tensors are matrices that something is multiplied by.
func matrices(p *Params) []bool {
	is := make(map[*float32]bool, 4*len(p.Blocks)+1)
	for i := range p.Blocks {
		b := &p.Blocks[i]
		for _, w := range [][]float32{b.AttnW, b.ProjW, b.FcW, b.OutW} {
			is[&w[0]] = true
		}
	}
	is[&p.Head[0]] = true
	list := make([]bool, len(p.Tensors))
	for i, t := range p.Tensors {
		list[i] = is[&t.Data[0]]
	}
	return list
}

// clear zeroes the gradients of matrices, or of all else. Vectors are not worth
// waiting for another thread.
func (g *Graph) clear(matrix bool) {
	const few = 1 << 14
	for i, t := range g.grads.Tensors {
		switch {
		case g.matrix[i] != matrix:
		case len(t.Data) < few:
			clear(t.Data)
		default:
			g.cpu.Parallel(len(t.Data), func(lo, hi int) { clear(t.Data[lo:hi]) })
		}
	}
}

// settle makes the gradients what they are after all micro-batches so far.
func (g *Graph) settle() {
	if g.fresh { // there was none
		g.clear(true)
		g.fresh = false
	}
	g.foldLookups()
}

// foldLookups adds the gradients of the looked-up rows to that of the token
// embedding and starts anew.
func (g *Graph) foldLookups() {
	c := g.cfg.NEmbd
	g.cpu.Parallel(g.slots, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			row := g.buf.lookup[i*c : (i+1)*c]
			g.cpu.RowAdd(g.grads.WTE[int(g.buf.slotID[i])*c:][:c], row)
			clear(row)
		}
	})
	g.freeLookups()
}

// freeLookups gives up the rows that were looked up, whose gradients are zero.
func (g *Graph) freeLookups() {
	for _, id := range g.buf.slotID[:g.slots] {
		g.buf.slotOf[id] = 0
	}
	g.slots = 0
}

// Grads are the gradients added up since ZeroGrads, without data for what is not
// trained. Ask for them after the last micro-batch: only then is the order of
// additions independent of their number.
func (g *Graph) Grads() *Params {
	g.settle()
	return g.grads
}

// Spare is the memory of the graph that means nothing after an update until
// ZeroGrads, the gradients of matrices and vectors among it: others may use it as
// long. Its pieces begin with cache lines if the graph's memory does.
func (g *Graph) Spare() [][]float32 { return g.buf.spare }

// ZeroGrads forgets the gradients.
func (g *Graph) ZeroGrads() {
	clear(g.buf.lookup[:g.slots*g.cfg.NEmbd])
	g.freeLookups()
	g.clear(false)
	g.fresh = true
}

// ValueGrads are the trained parameters and their gradients for a
// gorgonia.Solver, in the order of Params.Tensors; as Grads, after the last
// micro-batch.
func (g *Graph) ValueGrads() []gorgonia.ValueGrad {
	g.settle()
	return g.valueGrads
}

// Close releases the machines. The kernel.CPU stays the caller's.
func (g *Graph) Close() error {
	var errs []error
	for _, vm := range []gorgonia.VM{g.train, g.eval} {
		if vm != nil {
			errs = append(errs, vm.Close())
		}
	}
	return errors.Join(errs...)
}

// sumLosses adds up the losses, each rounded to a multiple of 2^-24: such sums
// are exact in float64, so the total of an effective batch does not depend on
// the portions that it was added up in.
func sumLosses(losses []float32) float64 {
	const grid = 1 << 24
	var sum float64
	for _, l := range losses {
		sum += math.RoundToEven(float64(l)*grid) / grid
	}
	return sum
}
