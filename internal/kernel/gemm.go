package kernel

// Act is a non-linearity.
type Act uint8

// The activations of GPT-2's MLP.
const (
	ActNone    Act = iota
	ActGELUNew     // GELU by its tanh approximation
	ActGELU        // GELU by the error function
	ActReLU
)

// Gemm is a matrix product C[M,N] = op(A)·op(B), or += with Accumulate, and
// what is done to it on the way out, in this order: Bias is added to each row;
// PreAct receives the result; Act is applied; then Dropout; Residual is added.
// With Through, Act is gone through backward instead.
type Gemm struct {
	M, N, K int // op(A) is [M,K], op(B) is [K,N]

	TransA, TransB bool // A is stored [K,M], B is stored [N,K]
	Accumulate     bool

	A, B, C       []float32
	LDA, LDB, LDC int // floats between rows as stored; 0: tight

	// KBlock > 0 cuts the sum over K at its multiples and adds the pieces in
	// order. Weight gradients set it to the sequence length: the sum then does
	// not depend on how sequences are grouped into batches.
	KBlock int
	BF16   bool // round the operands to bf16; sums stay fp32

	Bias     []float32 // [N] or nil
	PreAct   []float32 // [M,N], rows LDC apart, or nil
	Act      Act
	Dropout  Dropout   // over [M,N]
	Residual []float32 // [M,N], rows LDC apart, or nil; must not be C

	// Through, [M,N] with rows LDC apart or nil, is an x of which C turns out to
	// be the gradient of Act(x): C becomes the gradient of x, and x Act(x).
	Through []float32

	soft      *softRows // takes the product in place of C, which is nil; no epilogue
	rowScale  []float32 // [M] or nil: what the rows are multiplied by, before all else
	expPanels bool      // A is bf16 already, a head's exponentials in panels of LDA slots
}

// directRows is how many rows at most are multiplied without packing B.
const directRows = 8

// gemmJob is a Gemm on its way: the panels of B and the blocks of the sum at hand.
type gemmJob struct {
	Gemm
	cpu   *CPU
	t     *tile
	a, b  operand
	pb    []float32 // packed B: for each block of the sum, panels of nr columns
	phase gemmPhase

	j, nc  int      // columns at hand
	panels int      // that they fill
	groups int      // of packGroup panels each
	sum    []kBlock // all its blocks
	blocks []kBlock // those of them that are packed together
	next   struct { // what is packed after the next barrier
		j, nc int     // columns
		block *kBlock // nil: nothing
	}
	stage int // counts barriers

	parts  []gemmPart // of C, for the threads
	shares []int      // where each thread's begin
}

type gemmPhase uint8

const (
	phasePackB gemmPhase = iota
	phaseMultiply
)

// Gemm computes a matrix product.
func (c *CPU) Gemm(g *Gemm) {
	j := &c.gemmJob
	if !j.prepare(c, g) {
		return
	}
	j.cutSum()
	j.cut(c.Threads())
	j.each(func() {
		j.phase = phasePackB
		c.pool.run(j.packs()*j.groups, j)
		j.phase = phaseMultiply
		c.pool.runShares(len(j.parts), j.shareOf, j)
	})
	*j = gemmJob{parts: j.parts, shares: j.shares, sum: j.sum, stage: j.stage}
}

// prepare fills in the job; false means there is nothing to do.
func (j *gemmJob) prepare(c *CPU, g *Gemm) bool {
	*j = gemmJob{Gemm: *g, cpu: c, parts: j.parts, shares: j.shares, sum: j.sum, stage: j.stage}
	if g.M <= 0 || g.N <= 0 {
		return false
	}
	if j.LDA == 0 {
		j.LDA = pick(g.TransA, g.M, g.K)
	}
	if j.LDB == 0 {
		j.LDB = pick(g.TransB, g.K, g.N)
	}
	if j.LDC == 0 {
		j.LDC = g.N
	}
	j.check()
	if g.K <= 0 {
		j.emptySum()
		return false
	}
	j.t = c.isa.tileFor(g)
	j.a = operand{x: j.A, ld: j.LDA, kStride: g.TransA, panels: g.expPanels}
	j.b = operand{x: j.B, ld: j.LDB, kStride: !g.TransB, shared: true}
	return true
}

// tileFor is the tile that suits a product: the wide one long ones, if it fills its
// panels.
func (s *isa) tileFor(g *Gemm) *tile {
	fills := g.N%s.wide.nr == 0
	wide := g.N > 4*ncMax || g.M > 4*ncMax && g.KBlock > 0 && fills
	switch {
	case g.expPanels && g.TransA && !fills:
		return &s.bf16Low
	case g.expPanels && g.TransA || g.BF16 && wide:
		return &s.bf16Wide
	case g.BF16:
		return &s.bf16
	case g.M <= directRows && !g.TransB && s.direct.runDirect != nil:
		return &s.direct
	case wide:
		return &s.wide
	}
	return &s.tile
}

// check panics, as an index out of range does, if a slice is too short: the
// micro-kernels would not notice.
func (j *gemmJob) check() {
	extent := func(s []float32, rows, cols, ld int) {
		if rows > 0 && cols > 0 {
			_ = s[(rows-1)*ld+cols-1]
		}
	}
	rows, across := pick(j.TransA, j.K, j.M), pick(j.TransA, j.M, j.K)
	if j.expPanels {
		rows, across = 1, panelFloats(j.LDA, across)
	}
	extent(j.A, rows, across, j.LDA)
	extent(j.B, pick(j.TransB, j.N, j.K), pick(j.TransB, j.K, j.N), j.LDB)
	if j.soft == nil {
		extent(j.C, j.M, j.N, j.LDC)
	}
}

func pick(cond bool, yes, no int) int {
	if cond {
		return yes
	}
	return no
}

// emptySum is the product over no elements: zero, and its epilogue.
func (j *gemmJob) emptySum() {
	for i := range j.M {
		if !j.Accumulate {
			clear(j.C[i*j.LDC:][:j.N])
		}
		j.finish(i, 0, j.N)
	}
}

func (j *gemmJob) part(w *worker, i int) {
	switch j.phase {
	case phasePackB:
		j.packB(i)
	case phaseMultiply:
		j.multiply(w, i)
	}
}

// epilogue says whether there is anything for finish to do.
func (g *Gemm) epilogue() bool {
	return g.Bias != nil || g.PreAct != nil || g.Act != ActNone || g.Dropout.P > 0 || g.Residual != nil || g.Through != nil || g.rowScale != nil
}

// finish applies the epilogue to columns [lo,hi) of row r.
func (j *gemmJob) finish(r, lo, hi int) {
	v, at := &j.cpu.isa.vectors, r*j.LDC+lo
	row := j.C[at:][:hi-lo]
	if j.rowScale != nil {
		v.scale(row, row, j.rowScale[r])
	}
	if j.Bias != nil {
		v.add(row, j.Bias[lo:hi])
	}
	if j.PreAct != nil {
		copy(j.PreAct[at:][:hi-lo], row)
	}
	if j.Through != nil {
		v.actGrad(row, j.Through[at:][:hi-lo], j.Act)
	} else {
		v.act(row, row, j.Act)
	}
	if j.Dropout.P > 0 {
		v.drop(row, row, j.Dropout.row(r), lo)
	}
	if j.Residual != nil {
		v.add(row, j.Residual[at:][:hi-lo])
	}
}
