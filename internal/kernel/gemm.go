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
	Residual []float32 // [M,N], rows LDC apart, or nil; may be C only if Accumulate is not wanted
}

// Blocking (see the package comment). Sums are cut at kc, so kc may depend on
// N, K and KBlock but not on M, the rows of a batch; the other sizes are free.
const (
	kcMax     = 512  // slots of a panel: longer ones need fewer passes over C
	ncMax     = 3072 // columns of B packed at a time
	mcMax     = 192  // rows of A packed at a time
	maxPieces = 32   // pieces of the sum packed at a time
	ncGroup   = 256  // columns finished (bias, activation…) at a time

	directRows = 8       // at most so many rows are multiplied without packing B
	dotRows    = 4       // at most so many by dot products, where B is stored [N,K]
	dotMin     = 1 << 18 // and large
	dotColumns = 64      // columns of a part then
)

// kcOf is the length of the blocks that a sum over span is cut into: even
// pieces, which are a multiple of 32 for the packers' sake.
func kcOf(span, limit int) int {
	pieces := (span + limit - 1) / limit
	return roundUp((span+pieces-1)/pieces, 32)
}

func roundUp(n, m int) int { return (n + m - 1) / m * m }

// gemmJob is a Gemm on its way: the block of B and of the sum at hand.
type gemmJob struct {
	Gemm
	cpu   *CPU
	t     *tile
	a, b  operand
	pb    []float32 // packed B: panels of nr columns
	phase gemmPhase

	j, nc    int // columns of this block
	k, kc    int // the sum of this block
	pieces   int // that it falls into, each added up by itself
	piece    [maxPieces]int
	slots    int // of a panel, for all pieces
	mc, rows int // rows of A for a part, parts along M
	strips   int // parts along N
}

type gemmPhase uint8

const (
	phasePackB gemmPhase = iota
	phaseMultiply
	phaseDots
)

// Gemm computes a matrix product.
func (c *CPU) Gemm(g *Gemm) {
	j := &c.gemmJob
	if !j.prepare(c, g) {
		return
	}
	if j.M <= dotRows && j.TransB && !j.TransA && !j.Accumulate && !j.BF16 && j.N*j.K >= dotMin {
		j.phase = phaseDots
		c.pool.run((j.N+dotColumns-1)/dotColumns, j)
		*j = gemmJob{}
		return
	}
	j.cut(c.Threads())
	panels := roundUp(min(j.N, ncMax), j.t.nr)
	j.pb = c.packedB.get(panels * kcMax)
	j.blocks(func() {
		j.phase = phasePackB
		c.pool.run((j.nc+j.t.nr-1)/j.t.nr, j)
		j.phase = phaseMultiply
		c.pool.run(j.rows*j.strips, j)
	})
	*j = gemmJob{}
}

// prepare fills in the job; false means there is nothing to do.
func (j *gemmJob) prepare(c *CPU, g *Gemm) bool {
	*j = gemmJob{Gemm: *g, cpu: c}
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
	j.t = &c.isa.tile
	if wide := g.N > 4*ncMax || g.M > 4*ncMax && g.KBlock > 0; g.BF16 && wide {
		j.t = &c.isa.bf16Wide
	} else if g.BF16 {
		j.t = &c.isa.bf16
	} else if wide {
		j.t = &c.isa.wide
	}
	if d := &c.isa.direct; g.M <= directRows && !g.TransB && !g.BF16 && d.runDirect != nil {
		j.t = d
	}
	j.a = operand{j.A, j.LDA, g.TransA}
	j.b = operand{j.B, j.LDB, !g.TransB}
	return true
}

// check panics, as an index out of range does, if a slice is too short: the
// micro-kernels would not notice.
func (j *gemmJob) check() {
	extent := func(s []float32, rows, cols, ld int) {
		if rows > 0 && cols > 0 {
			_ = s[(rows-1)*ld+cols-1]
		}
	}
	extent(j.A, pick(j.TransA, j.K, j.M), pick(j.TransA, j.M, j.K), j.LDA)
	extent(j.B, pick(j.TransB, j.N, j.K), pick(j.TransB, j.K, j.N), j.LDB)
	extent(j.C, j.M, j.N, j.LDC)
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

// cut divides C into parts for the threads: by rows while there are enough of
// them, else by columns too.
func (j *gemmJob) cut(threads int) {
	want := 1
	if threads > 1 {
		want = 4 * threads // so that a slow core can do less
	}
	blocks := max((j.M+mcMax-1)/mcMax, min(want, (j.M+4*j.t.mr-1)/(4*j.t.mr)))
	j.mc = roundUp((j.M+blocks-1)/blocks, j.t.mr)
	j.rows = (j.M + j.mc - 1) / j.mc
	j.strips = 1
	if j.rows < threads {
		j.strips = (want + j.rows - 1) / j.rows
	}
}

// kcLimit is the longest piece of the sum: what a panel's slots hold, of which
// one takes two values of bf16.
func (j *gemmJob) kcLimit() int {
	if j.t.pairs {
		return 2 * kcMax
	}
	return kcMax
}

// blocks calls f for each block of columns and, in order, each part of the sum.
func (j *gemmJob) blocks(f func()) {
	span := j.K
	if j.KBlock > 0 {
		span = min(span, j.KBlock)
	}
	kc := kcOf(span, j.kcLimit())
	for j.j = 0; j.j < j.N; j.j += ncMax {
		j.nc = min(ncMax, j.N-j.j)
		for j.k = 0; j.k < j.K; j.k += j.kc {
			j.take(kc, span)
			f()
		}
	}
}

// take fills the block with the next pieces of the sum, at most kc long and cut
// at multiples of span: as many as a panel holds, so that a tile of C that
// receives one after the other stays in the cache.
func (j *gemmJob) take(kc, span int) {
	j.kc, j.slots, j.pieces = 0, 0, 0
	for j.k+j.kc < j.K && j.pieces < maxPieces {
		at := j.k + j.kc
		n := min(kc, j.K-at, span-at%span)
		slots := j.t.kSlots(n)
		if j.pieces > 0 && j.slots+slots > kcMax {
			return
		}
		j.piece[j.pieces] = n
		j.pieces++
		j.kc += n
		j.slots += slots
	}
}

// pack packs a panel of this block's sum, piece by piece.
func (j *gemmJob) pack(dst []float32, width int, o operand, r, rows int) {
	k, at := j.k, 0
	for _, n := range j.piece[:j.pieces] {
		j.cpu.isa.packPanel(dst[at:], width, o, r, rows, k, n, j.t)
		k += n
		at += width * j.t.kSlots(n)
	}
}

func (j *gemmJob) part(w *worker, i int) {
	switch j.phase {
	case phasePackB:
		j.packB(i)
	case phaseMultiply:
		j.multiply(w, i)
	case phaseDots:
		j.dots(i*dotColumns, min((i+1)*dotColumns, j.N))
	}
}

// dots computes columns [lo,hi) of a product of few rows with a B stored [N,K]:
// each row of B is read once and multiplied by all rows of A.
func (j *gemmJob) dots(lo, hi int) {
	for n := lo; n < hi; n++ {
		b := j.B[n*j.LDB:][:j.K]
		for r := range j.M {
			j.C[r*j.LDC+n] = j.cpu.isa.dot(j.A[r*j.LDA:][:j.K], b)
		}
	}
	for r := range j.M {
		j.finish(r, lo, hi)
	}
}

// packB packs panel p of the block of B.
func (j *gemmJob) packB(p int) {
	if nr := j.t.nr; !j.direct(p) {
		j.pack(j.pb[p*nr*j.slots:], nr, j.b, j.j+p*nr, min(nr, j.nc-p*nr))
	}
}

// direct tells whether panel p of B is read where it lies: a whole panel of a
// product of few rows.
func (j *gemmJob) direct(p int) bool { return j.t.runDirect != nil && j.nc-p*j.t.nr >= j.t.nr }

// run computes one tile from the packed rows of A and panel p of B, for the
// piece of the sum that begins at k and, in the panels, at slot at.
func (j *gemmJob) run(k, at, slots int, a *float32, p int, c *float32, ldc, acc int) {
	t := j.t
	switch {
	case j.direct(p):
		t.runDirect(slots, a, ptr(j.B, k*j.LDB+j.j+p*t.nr), j.LDB, c, ldc, acc)
	case t.runDirect != nil: // a ragged panel, which is packed
		t.runDirect(slots, a, ptr(j.pb, (p*j.slots+at)*t.nr), t.nr, c, ldc, acc)
	default:
		t.run(slots, a, ptr(j.pb, (p*j.slots+at)*t.nr), c, ldc, acc)
	}
}

// multiply computes part i of the block: some rows, some panels.
func (j *gemmJob) multiply(w *worker, i int) {
	t := j.t
	row, strip := i%j.rows, i/j.rows
	r0 := row * j.mc
	m := min(j.mc, j.M-r0)
	panels := (j.nc + t.nr - 1) / t.nr
	lo, hi := panels*strip/j.strips, panels*(strip+1)/j.strips
	if lo == hi {
		return
	}
	pa := w.packedA.get(roundUp(m, t.mr) * j.slots)
	for r := 0; r < m; r += t.mr {
		j.pack(pa[r*j.slots:], t.mr, j.a, r0+r, min(t.mr, m-r))
	}
	group := max(1, ncGroup/t.nr)
	for p := lo; p < hi; p += group {
		end := min(p+group, hi)
		for q := p; q < end; q++ {
			j.panel(w, pa, r0, m, q)
		}
		if j.k+j.kc == j.K {
			for r := r0; r < r0+m; r++ {
				j.finish(r, j.j+p*t.nr, j.j+min(end*t.nr, j.nc))
			}
		}
	}
}

// panel multiplies the packed rows by panel q of B.
func (j *gemmJob) panel(w *worker, pa []float32, r0, m, q int) {
	t := j.t
	n := min(t.nr, j.nc-q*t.nr)
	for r := 0; r < m; r += t.mr {
		c := j.C[(r0+r)*j.LDC+j.j+q*t.nr:]
		k, at := j.k, 0
		for _, length := range j.piece[:j.pieces] {
			acc := 0
			if k > 0 || j.Accumulate {
				acc = 1
			}
			slots := t.kSlots(length)
			a := ptr(pa, r*j.slots+at*t.mr)
			if m-r >= t.mr && n == t.nr {
				j.run(k, at, slots, a, q, ptr(c, 0), j.LDC, acc)
			} else {
				edge := w.tile.get(t.mr * t.nr)
				j.run(k, at, slots, a, q, ptr(edge, 0), t.nr, 0)
				j.copyEdge(c, edge, min(t.mr, m-r), n, acc)
			}
			k += length
			at += slots
		}
	}
}

// copyEdge takes the part of a tile that lies within C.
func (j *gemmJob) copyEdge(c, tile []float32, rows, cols, acc int) {
	for i := range rows {
		c, e := c[i*j.LDC:][:cols], tile[i*j.t.nr:][:cols]
		if acc == 0 {
			copy(c, e)
			continue
		}
		for x := range c {
			c[x] = e[x] + c[x]
		}
	}
}

// finish applies the epilogue to columns [lo,hi) of row r.
func (j *gemmJob) finish(r, lo, hi int) {
	v, at := &j.cpu.isa.vectors, r*j.LDC+lo
	row := j.C[at:][:hi-lo]
	if j.Bias != nil {
		v.add(row, j.Bias[lo:hi])
	}
	if j.PreAct != nil {
		copy(j.PreAct[at:][:hi-lo], row)
	}
	v.act(row, row, j.Act)
	if j.Dropout.P > 0 {
		v.drop(row, row, j.Dropout.row(r), lo)
	}
	if j.Residual != nil {
		v.add(row, j.Residual[at:][:hi-lo])
	}
}
