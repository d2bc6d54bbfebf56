package kernel

import "math"

// attnHead is one head at work on one thread. Keys and values are copied
// ("packed") as their block is first met; a block of queries then meets all
// blocks of keys up to its own. Scores exist for one block by one block.
type attnHead struct {
	*attnJob
	head int // sequence*Heads + head
	mem  buf
	laid attnLayout // what mem is cut for

	ld     int // floats of a packed row of HeadDim
	ldKey  int // the same of a row of keys
	slots  int // steps of a sum over HeadDim
	k, v   []float32
	kz     []float32 // bf16: K as pairs of rows
	dk, dv []float32
	qt, gt []float32 // [panel][slots][nr] the block's queries and output gradients, transposed
	q, g   []float32 // [query][ld] the same as they are; bf16: pairs of rows
	out    []float32 // [query][ld] the block's output, or the gradient of its queries
	s, ds  []float32 // [key][query]
	p16    []float32 // bf16: attnPass.p, dsRows, dsCols
	dsRows []float32
	dsCols []float32

	first, n int // the queries at hand
	lanes    attnLanes
	prod     attnProduct
	pass     attnPass
	ahead    [9]ahead // what the head after this one will read and write
	coming   []ahead  // what is left of it to be fetched
	drop     int      // 1: with dropout
	one      float32  // the factor of rows that are only copied
}

// aheadFloats is the most floats of one part of a head that is fetched ahead.
const aheadFloats = 1 << 14

const attnNoMax = -2e38 // below all scores; not infinite, for differences must not be NaN

// attnLayout is what the cut of a head's memory depends on.
type attnLayout struct {
	seqLen, dim, ld, block int
	back, pairs            bool
}

// layout cuts mem, or only counts: it returns the floats needed.
func (h *attnHead) layout(mem []float32, l attnLayout) int {
	total, back, pairs, block := 0, l.back, l.pairs, l.block
	cut := func(dst *[]float32, want bool, n int) {
		*dst = nil
		if !want {
			return
		}
		n = roundUp(n, lineFloats)
		if mem != nil {
			*dst = mem[total : total+n]
		}
		total += n
	}
	ld, keys, square := l.ld, roundUp(l.seqLen, block), block*block
	cut(&h.k, true, keys*ld)
	cut(&h.v, true, keys*ld)
	cut(&h.kz, back && pairs, keys*ld/2)
	cut(&h.dk, back, keys*ld)
	cut(&h.dv, back, keys*ld)
	cut(&h.qt, true, block*l.dim+block)
	cut(&h.gt, back, block*l.dim+block)
	cut(&h.q, back, block*ld)
	cut(&h.g, back, block*ld)
	cut(&h.out, true, block*ld)
	cut(&h.s, true, square)
	cut(&h.ds, back, square)
	cut(&h.p16, pairs, square/2)
	cut(&h.dsRows, back && pairs, square/2)
	cut(&h.dsCols, back && pairs, square/2)
	return total
}

func (h *attnHead) prepare(j *attnJob, head int) {
	h.attnJob, h.head = j, head
	t := &j.code.tile
	h.ld, h.slots = j.code.ld(j.HeadDim), t.kSlots(j.HeadDim)
	h.ldKey = h.ld
	if t.pairs {
		h.ldKey = roundUp(h.ld, attnBF16Columns) / 2
	}
	if l := (attnLayout{j.SeqLen, j.HeadDim, h.ld, j.code.block, j.back, t.pairs}); l != h.laid {
		h.laid = l
		mem := h.mem.get(h.layout(nil, l))
		h.layout(mem, l)
		if h.ld > j.HeadDim { // columns that are never written
			clear(mem)
		}
	}
	h.drop, h.one = 0, 1
	if j.Dropout.P > 0 {
		h.drop = 1
	}
	d := j.Dropout.row(0)
	h.comes()
	h.pass = attnPass{c: j.scale * math.Log2E, scale: j.scale, below: d.below, keep: d.scale}
}

// at is where row i (position in the sequence) of this head begins in a matrix
// [rows, parts*width], in its given part.
func (h *attnHead) at(i, part, parts int) int { return h.headAt(h.head, i, part, parts) }

// headAt is where row i of a head of the task begins.
func (j *attnJob) headAt(head, i, part, parts int) int {
	seq, head := head/j.Heads, head%j.Heads
	return (seq*j.SeqLen+i)*parts*j.width + part*j.width + head*j.HeadDim
}

// operand is a matrix of the block's rows: queries, keys, values (parts of QKV).
func (h *attnHead) operand(part int) operand {
	return operand{x: h.QKV[h.at(h.first, part, 3):], ld: 3 * h.width}
}

// outRows is the same of a matrix shaped like Out.
func (h *attnHead) outRows(x []float32) operand {
	return operand{x: x[h.at(h.first, 0, 1):], ld: h.width}
}

// query begins the block of queries from position q on and packs the keys and
// values of the same positions.
func (h *attnHead) query(q int) {
	c := h.code
	h.first, h.n = q, min(c.block, h.SeqLen-q)
	h.panels(h.qt, h.operand(0))
	pad := roundUp(h.n, c.tile.mr)
	h.rows(h.k[h.key(q):], h.operand(1), pad)
	switch {
	case h.back:
		h.rows(h.v[h.key(q):], h.operand(2), pad)
		if c.tile.pairs {
			h.joined(h.kz[q/2*h.ld:], h.operand(1), pad)
		}
	case c.tile.pairs:
		h.joined(h.v[q/2*h.ld:], h.operand(2), pad)
	default:
		h.rows(h.v[h.key(q):], h.operand(2), pad)
	}
	if h.drop == 0 {
		return
	}
	row0 := ((h.seq0*h.Heads)+h.head)*h.SeqLen + q
	for i := range h.n {
		row := drawOf(h.Dropout.Key, row0+i)
		h.lanes.keyA[i], h.lanes.keyB[i] = row.a, row.b
	}
}

// key is where position j begins in K, V and their gradients as rows.
func (h *attnHead) key(j int) int { return j * h.ldKey }

// panels packs rows as the right operand of a product over HeadDim.
func (h *attnHead) panels(dst []float32, o operand) {
	t := &h.code.tile
	for r := 0; r < h.n; r += t.nr {
		h.cpu.isa.packPanel(dst[r*h.slots:], t.nr, o, r, min(t.nr, h.n-r), 0, h.HeadDim, t)
	}
}

// rows packs the block's rows one after the other and adds rows of zeros up to
// pad.
func (h *attnHead) rows(dst []float32, o operand, pad int) {
	c := h.code
	if c.tile.pairs {
		c.bf16(&dst[0], 4*h.ldKey, &o.x[0], 4*o.ld, h.n, h.HeadDim)
		clear(dst[h.n*h.ldKey : pad*h.ldKey])
		return
	}
	c.scale(&dst[0], 4*h.ld, &o.x[0], 4*o.ld, &h.one, 0, h.n, h.HeadDim)
	clear(dst[h.n*h.ld : pad*h.ld])
	if c.tile.round {
		h.cpu.isa.round(dst[:h.n*h.ld])
	}
}

// joined packs the block's rows as pairs of rows, with zeros up to pad.
func (h *attnHead) joined(dst []float32, o operand, pad int) {
	t := &h.code.tile
	o.kStride = true
	h.cpu.isa.packPanel(dst, h.ld, o, 0, h.HeadDim, 0, h.n, t)
	clear(dst[t.kSlots(h.n)*h.ld : t.kSlots(pad)*h.ld])
}

// store copies packed rows to part of dqkv, a block a call.
func (h *attnHead) store(src []float32, first, n, part int) {
	for r := 0; r < n; r += h.code.block {
		h.code.scale(&h.dqkv[h.at(first+r, part, 3)], 4*3*h.width, &src[r*h.ld], 4*h.ld, &h.one, 0, min(h.code.block, n-r), h.HeadDim)
	}
}

// diagonal tells whether keys from j on are those of the queries at hand: key r
// of the block then counts for queries r and later.
func (h *attnHead) diagonal(j int) bool { return j == h.first }

// keysFor is how many keys of the block from j on the panel of queries from lane
// p on needs: whole tiles, and so that all rows that a tile of queries reads are
// there.
func (h *attnHead) keysFor(j, p int) int {
	t := &h.code.tile
	if !h.diagonal(j) {
		return h.code.block
	}
	return roundUp(min(h.n, p+t.nr), t.mr)
}

// multiply computes the product at hand, and fetches some of what is coming.
func (h *attnHead) multiply(product func(*attnProduct)) {
	for len(h.coming) > 1 && h.coming[0].step == 0 {
		h.coming = h.coming[1:]
	}
	h.prod.later = &h.coming[0].at
	product(&h.prod)
}

// comes plans what to fetch for the head after this one, if there is one and it fits
// a core's own cache beside this one.
func (h *attnHead) comes() {
	h.coming = h.ahead[:0]
	add := func(x []float32, part, parts int) {
		p := ptr(x, h.headAt(h.head+1, 0, part, parts))
		h.coming = append(h.coming, aheadOf(p, h.SeqLen, h.HeadDim, parts*h.width))
	}
	if h.head+1 < h.Batch*h.Heads && h.SeqLen*h.HeadDim <= aheadFloats {
		for part := range 3 {
			add(h.QKV, part, 3)
		}
		add(h.Out, 0, 1)
		if h.back {
			add(h.dout, 0, 1)
			for part := range 3 {
				add(h.dqkv, part, 3)
			}
		}
	}
	h.coming = append(h.coming, nothingAhead(ptr(h.QKV, 0)))
}

// scores computes dst[keys, nr] = X·Yᵀ for keys from j on and the panel from
// lane p on.
func (h *attnHead) scores(dst, x, panels []float32, j, p int) {
	c := h.code
	ldx := h.key(1)
	h.prod = attnProduct{
		tiles: h.keysFor(j, p) / c.tile.mr, k: h.slots,
		a: &x[j*ldx], lda: 4 * ldx, da: 4 * ldx * c.tile.mr,
		b: &panels[p*h.slots], ldb: 4 * c.tile.nr,
		c: &dst[p], ldc: 4 * c.block,
	}
	h.multiply(c.rows)
}

// setPass points the pass over the scores at the panel from lane p on.
func (h *attnHead) setPass(j, p int) *attnPass {
	s := &h.pass
	rows := h.keysFor(j, p)
	s.full, s.masked = rows, 0
	if h.diagonal(j) {
		s.full, s.masked = p, rows-p
	}
	s.j = uint32(j)
	s.lanes = &h.lanes.max[p]
	s.s = &h.s[p]
	return s
}

// overKeys computes out[query, ld] = Xᵀ·Y, where X is [key][query] of the block
// from j on and y its keys' rows; or adds, with the factors of lanes.grow if grow.
func (h *attnHead) overKeys(x, y []float32, j int, grow bool) {
	c, t := h.code, &h.code.tile
	step := 1
	if t.pairs {
		step = 2
	}
	c.across(h.ld, c.cols, c.colsWide, func(product func(*attnProduct), p int) {
		h.prod = attnProduct{
			tiles: roundUp(h.n, t.mr) / t.mr, k: c.block / step,
			a: &x[0], lda: 4 * c.block, da: 4 * t.mr,
			b: &y[j/step*h.ld+p], ldb: 4 * h.ld,
			c: &h.out[p], ldc: 4 * h.ld,
		}
		if h.diagonal(j) {
			h.prod.k, h.prod.dk = t.mr/step, t.mr/step
		}
		switch {
		case j == 0:
		case grow:
			h.prod.factor = &h.lanes.grow[0]
		default:
			h.prod.acc = 1
		}
		h.multiply(product)
	})
}

// overQueries adds X·Y to rows of dst, where X is [key][query] of the block from
// j on and y the queries' rows. The first to add is the diagonal block.
func (h *attnHead) overQueries(dst, x, y []float32, j int) {
	c, t := h.code, &h.code.tile
	size, step := 4, 1 // bytes of an element of x, elements of a step
	if t.pairs {
		size, step = 2, 2
	}
	c.across(h.ld, c.rows, c.rowsWide, func(product func(*attnProduct), p int) {
		h.prod = attnProduct{
			tiles: c.block / t.mr, k: (h.n + step - 1) / step,
			a: &x[0], lda: size * c.block, da: size * c.block * t.mr,
			b: &y[p], ldb: 4 * h.ld,
			c: &dst[j*h.ld+p], ldc: 4 * h.ld, acc: 1,
		}
		if h.diagonal(j) {
			h.prod.tiles, h.prod.acc = roundUp(h.n, t.mr)/t.mr, 0
			h.prod.da += size * t.mr
			h.prod.db = t.mr / step * h.prod.ldb
			h.prod.dk = -t.mr / step
		}
		h.multiply(product)
	})
}

// round rounds a block of scores, where operands are rounded but stay fp32.
func (h *attnHead) round(s []float32) {
	if h.code.tile.round {
		h.cpu.isa.round(s)
	}
}

func (h *attnHead) forward() {
	c, l := h.code, &h.lanes
	for i := range h.n {
		l.max[i], l.sum[i] = attnNoMax, 0
	}
	probs := h.s
	if c.tile.pairs {
		probs = h.p16
	}
	for j := 0; j <= h.first; j += c.block {
		for p := 0; p < h.n; p += c.tile.nr {
			h.scores(h.s, h.k, h.qt, j, p)
			s := h.setPass(j, p)
			if c.tile.pairs {
				s.p = &h.p16[p]
			}
			c.soft[h.drop](s)
		}
		h.round(h.s)
		h.overKeys(probs, h.v, j, true)
	}
	lse := h.LSE[h.head*h.SeqLen+h.first:]
	for i := range h.n {
		lse[i] = h.scale*l.max[i] + float32(math.Log(float64(l.sum[i])))
		l.grow[i] = 1 / l.sum[i]
	}
	out := h.outRows(h.Out)
	c.scale(&out.x[0], 4*out.ld, &h.out[0], 4*h.ld, &l.grow[0], 4, h.n, h.HeadDim)
}

// backward follows the softmax's gradient: with P the probabilities after
// dropout, dV = Pᵀ·dO, dP = dO·Vᵀ, and dS = P∘(dP-D) where D is the row sum of
// dO∘O (Dao et al., FlashAttention, 2022).
func (h *attnHead) backward() {
	c, l := h.code, &h.lanes
	lse := h.LSE[h.head*h.SeqLen+h.first:]
	for i := range l.lse {
		l.lse[i], l.dot[i] = 1e30, 0 // lanes without a query: probability 0
		if i < h.n {
			l.lse[i] = lse[i] * math.Log2E
		}
	}
	grad, out := h.outRows(h.dout), h.outRows(h.Out)
	c.dots(&l.dot[0], &grad.x[0], 4*grad.ld, &out.x[0], 4*out.ld, h.n, h.HeadDim)
	h.panels(h.gt, grad)
	if c.tile.pairs {
		h.joined(h.q, h.operand(0), h.n)
		h.joined(h.g, grad, h.n)
	} else {
		h.rows(h.q, h.operand(0), h.n)
		h.rows(h.g, grad, h.n)
	}
	for j := 0; j <= h.first; j += c.block {
		h.backwardBlock(j)
	}
	h.store(h.out, h.first, h.n, 0)
}

func (h *attnHead) backwardBlock(j int) {
	c := h.code
	probs, dsRows, dsCols, keys := h.s, h.ds, h.ds, h.k
	if c.tile.pairs {
		probs, dsRows, dsCols, keys = h.p16, h.dsRows, h.dsCols, h.kz
	}
	for p := 0; p < h.n; p += c.tile.nr {
		h.scores(h.s, h.k, h.qt, j, p)
		h.scores(h.ds, h.v, h.gt, j, p)
		s := h.setPass(j, p)
		s.ds = &h.ds[p]
		if c.tile.pairs {
			s.p, s.dsRows, s.dsCols = &probs[p/2], &dsRows[p/2], &dsCols[p]
		}
		c.softBack[h.drop](s)
	}
	h.round(h.s)
	h.round(h.ds)
	h.overQueries(h.dv, probs, h.g, j)
	h.overQueries(h.dk, dsRows, h.q, j)
	h.overKeys(dsCols, keys, j, false)
}
