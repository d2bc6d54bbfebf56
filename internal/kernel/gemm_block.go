package kernel

// Blocking (see the package comment). Sums are cut at kc, so kc may depend on
// N, K and KBlock but not on M, the rows of a batch; the other sizes are free.
const (
	kcMax     = 512  // slots of a panel: longer ones need fewer passes over C
	ncMax     = 3072 // columns of B packed at a time
	mcMax     = 192  // most rows of A packed at a time: a multiple of every tile's
	maxPieces = 32   // pieces of the sum in a block
	ncGroup   = 256  // columns finished (bias, activation…) at a time
	ncPack    = 96   // columns of B packed at a time, of whole panels
)

// kBlock is a part of the sum that one panel holds. It falls into pieces, each
// added up by itself.
type kBlock struct {
	k, kc  int
	slots  int // of a panel, for all pieces
	base   int // where the block's panels begin in packed B
	pieces int
	piece  [maxPieces]int
}

// kcOf is the length of the pieces that a sum over span is cut into: even
// ones, a multiple of 32 for the packers' sake.
func kcOf(span, limit int) int {
	pieces := (span + limit - 1) / limit
	return roundUp((span+pieces-1)/pieces, 32)
}

func roundUp(n, m int) int { return (n + m - 1) / m * m }

// gemmPart is what a thread computes at a time: rows [r0, end) of C, and one of
// so many strips of the columns at hand.
type gemmPart struct {
	r0, end       int
	strip, strips int
}

// cut divides C into parts for the threads: a share of the rows for each, if there
// are enough, else columns. Within a share parts get smaller towards the end, so
// that no thread has long to wait for another that is in its last; and small in
// number, since each part packs its rows of A.
func (j *gemmJob) cut(threads int) {
	least := 4 * j.t.mr // rows: fewer would read B too often
	j.parts, j.shares = j.parts[:0], j.shares[:0]
	if j.M <= least*(threads-1) {
		for at := 0; at < j.M; at += j.mostRows() {
			j.add(at, min(at+j.mostRows(), j.M), 4*threads)
		}
		for w := range threads {
			j.shares = append(j.shares, len(j.parts)*w/threads)
		}
		return
	}
	if j.M <= 2*least*threads { // halves of so few would not pay either
		least *= 2
	}
	for w := range threads {
		j.shares = append(j.shares, len(j.parts))
		end := min(j.M, roundUp(j.M*(w+1)/threads, j.t.mr))
		for at := min(j.M, roundUp(j.M*w/threads, j.t.mr)); at < end; {
			n, strips := j.mostRows(), 1
			if left := end - at; threads > 1 {
				n = min(n, max(least, roundUp((left+1)/2, j.t.mr)))
				if left <= least {
					strips = j.lastStrips()
				}
			}
			j.add(at, min(at+n, end), strips)
			at += n
		}
	}
}

// add adds parts for rows [r0,end).
func (j *gemmJob) add(r0, end, strips int) {
	for i := range strips {
		j.parts = append(j.parts, gemmPart{r0, end, i, strips})
	}
}

// shareOf is where the share of thread w begins.
func (j *gemmJob) shareOf(w int) int { return j.shares[w] }

// mostRows is the number of rows in the largest part: so many that packed A takes
// no more memory where all blocks of the sum are packed at once.
func (j *gemmJob) mostRows() int {
	if j.soft == nil {
		return mcMax
	}
	return max(j.t.mr, min(mcMax, mcMax*kcMax/slots(j.sum))/j.t.mr*j.t.mr)
}

// lastStrips is how many strips the last rows fall into: small ones, so that no
// thread waits long, but as many as leave the packing of A, which each thread that
// takes one repeats, a small part of the work.
func (j *gemmJob) lastStrips() int {
	columns := 64
	if j.t.pairs { // twice as fast
		columns *= 2
	}
	return min(max(1, min(j.N, ncMax)/columns), 8)
}

// kcLimit is the longest piece of the sum: what a panel's slots hold, of which
// one takes two values of bf16.
func (j *gemmJob) kcLimit() int {
	if j.t.pairs {
		return 2 * kcMax
	}
	return kcMax
}

// each calls f for each range of columns and, in order, each group of blocks of
// the sum: as many as the memory for packed B holds, since between two calls
// the threads wait for one another.
func (j *gemmJob) each(f func()) {
	columns, deep := ncMax, kcMax
	if j.soft != nil { // takes all blocks at once
		deep = slots(j.sum)
		columns = softRange(deep)
	}
	j.cpu.packedB.get(roundUp(min(j.N, columns), j.t.nr) * deep)
	j.pb = j.cpu.packedB.s
	for j.j = 0; j.j < j.N; j.j += columns {
		j.nc = min(columns, j.N-j.j)
		j.panels = (j.nc + j.t.nr - 1) / j.t.nr
		j.groups = (j.panels + j.packGroup() - 1) / j.packGroup()
		for rest := j.sum; len(rest) > 0; rest = rest[len(j.blocks):] {
			n := 0
			for base := 0; n < len(rest); n++ {
				size := j.panels * j.t.nr * rest[n].slots
				if base+size > len(j.pb) {
					break
				}
				rest[n].base = base
				base += size
			}
			j.blocks = rest[:n]
			j.next.j, j.next.nc, j.next.block = j.j, j.nc, nil
			if n < len(rest) {
				j.next.block = &rest[n]
			} else if at := j.j + columns; at < j.N {
				j.next.j, j.next.nc, j.next.block = at, min(columns, j.N-at), &j.sum[0]
			}
			j.stage++
			f()
		}
	}
}

// cutSum cuts the sum into blocks, at multiples of KBlock.
func (j *gemmJob) cutSum() {
	span := j.K
	if j.KBlock > 0 {
		span = min(span, j.KBlock)
	}
	j.sum = j.sum[:0]
	for k := 0; k < j.K; {
		b := j.take(k, span)
		j.sum = append(j.sum, b)
		k += b.kc
	}
}

// slots is the length of a row of panels, for several blocks of the sum.
func slots(blocks []kBlock) int {
	n := 0
	for i := range blocks {
		n += blocks[i].slots
	}
	return n
}

// take is the block of the sum that begins at k, with as many pieces as a panel
// holds, so that a tile of C that receives one after the other stays in the cache.
func (j *gemmJob) take(k, span int) kBlock {
	kc, b := kcOf(span, j.kcLimit()), kBlock{k: k}
	for k < j.K && b.pieces < maxPieces {
		n := min(kc, j.K-k, span-k%span)
		slots := j.t.kSlots(n)
		if b.pieces > 0 && b.slots+slots > kcMax {
			break
		}
		b.piece[b.pieces] = n
		b.pieces++
		b.kc += n
		b.slots += slots
		k += n
	}
	return b
}

// pack packs the panels of rows of a block of the sum, its pieces [lo,hi).
func (j *gemmJob) pack(dst []float32, width int, o operand, r, rows int, b *kBlock, lo, hi int) {
	k, at := b.k, 0
	for i, n := range b.piece[:hi] {
		if i >= lo {
			j.cpu.isa.packPanels(dst[at:], width, width*b.slots, o, r, rows, k, n, j.t)
		}
		k += n
		at += width * j.t.kSlots(n)
	}
}

// packGroup is how many panels of B are packed together.
func (j *gemmJob) packGroup() int {
	if j.t.runDirect != nil {
		return 1 // only the last is packed, if it is ragged
	}
	return max(1, ncPack/j.t.nr)
}

// packs is how many parts the packing of a group of panels falls into: where B is
// stored by rows of the sum, the pieces of the blocks at hand. Its rows then stay
// with the core that wrote them, as in all else; a gradient of weights is a sum over
// the rows of a batch.
func (j *gemmJob) packs() int {
	if !j.b.kStride {
		return len(j.blocks)
	}
	n := 0
	for i := range j.blocks {
		n += j.blocks[i].pieces
	}
	return n
}

// packB packs part i of the panels of all blocks.
func (j *gemmJob) packB(i int) {
	at, p, nr := i/j.groups, i%j.groups*j.packGroup(), j.t.nr
	if j.direct(p) {
		return
	}
	b, lo, hi := j.packOf(at)
	j.pack(j.pb[b.base+p*nr*b.slots:], nr, j.b, j.j+p*nr, min(j.packGroup()*nr, j.nc-p*nr), b, lo, hi)
}

// packOf is part i of packs: a block and its pieces [lo,hi).
func (j *gemmJob) packOf(i int) (b *kBlock, lo, hi int) {
	if !j.b.kStride {
		return &j.blocks[i], 0, j.blocks[i].pieces
	}
	n := 0
	for ; i >= j.blocks[n].pieces; n++ {
		i -= j.blocks[n].pieces
	}
	return &j.blocks[n], i, i + 1
}

// direct tells whether panel p of B is read where it lies: a whole panel of a
// product of few rows.
func (j *gemmJob) direct(p int) bool { return j.t.runDirect != nil && j.nc-p*j.t.nr >= j.t.nr }

// multiply computes part i: some rows, some panels, all blocks of the sum.
func (j *gemmJob) multiply(w *worker, i int) {
	t := j.t
	part := &j.parts[i]
	if j.soft != nil {
		j.multiplySoft(w, part, i)
		return
	}
	r0, end := part.r0, part.end
	m := end - r0
	lo, hi := j.panels*part.strip/part.strips, j.panels*(part.strip+1)/part.strips
	if lo == hi {
		return
	}
	group := max(1, ncGroup/t.nr)
	for n := range j.blocks {
		b := &j.blocks[n]
		pa, slots := j.packA(w, r0, m, b)
		j.plan(w, i, n)
		for p := lo; p < hi; p += group {
			to := min(p+group, hi)
			from, upTo := j.j+p*t.nr, j.j+min(to*t.nr, j.nc)
			last := b.k+b.kc == j.K && j.epilogue()
			if last {
				j.planOut(w, r0, end, from, upTo)
			}
			for q := p; q < to; q++ {
				j.panel(w, b, pa, slots, j.C[r0*j.LDC+j.j+q*t.nr:], j.LDC, m, q)
			}
			if !last {
				continue
			}
			for r := r0; r < end; r++ {
				j.finish(r, from, upTo)
			}
		}
	}
}

// packA is m packed rows of A from r0 on, and the slots that each of their panels has.
func (j *gemmJob) packA(w *worker, r0, m int, b *kBlock) (pa []float32, slots int) {
	if j.expPanels && j.TransA { // as it is
		return j.A[(r0/panelWidth*j.LDA+b.k/2)*panelWidth:], j.LDA
	}
	pa = w.packedA.get(roundUp(m, j.t.mr) * b.slots)
	if w.packs(j.stage, r0, m, b.k) {
		j.pack(pa, j.t.mr, j.a, r0, m, b, 0, b.pieces)
	}
	return pa, b.slots
}

// packedRows is which rows of A a thread has packed: strips of the same rows follow
// one another.
type packedRows struct {
	stage, r0, rows int
	k               int // where the block of the sum begins; -1: all blocks
}

// packs tells whether rows of A are still to be packed.
func (w *worker) packs(stage, r0, rows, k int) bool {
	now := packedRows{stage, r0, rows, k}
	if w.packed == now {
		return false
	}
	w.packed = now
	return true
}

// panel multiplies m packed rows, so many slots each, by panel q of B, to c: whole
// tiles in one call, what is left of the rows, or of the columns, in memory of its
// own.
func (j *gemmJob) panel(w *worker, b *kBlock, pa []float32, slots int, c []float32, ldc, m, q int) {
	t := j.t
	n := min(t.nr, j.nc-q*t.nr)
	whole := 0
	if n == t.nr {
		whole = m / t.mr
	}
	k, at := b.k, 0
	for _, length := range b.piece[:b.pieces] {
		acc := 0
		if k > 0 || j.Accumulate {
			acc = 1
		}
		if whole > 0 {
			j.run(w, b, whole, k, at, length, ptr(pa, at*t.mr), slots*t.mr, q, ptr(c, 0), ldc, acc)
		}
		for r := whole * t.mr; r < m; r += t.mr {
			edge := w.tile.get(t.mr * t.nr)
			j.run(w, b, 1, k, at, length, ptr(pa, r*slots+at*t.mr), 0, q, ptr(edge, 0), t.nr, 0)
			copyEdge(c[r*ldc:], ldc, edge, t.nr, min(t.mr, m-r), n, acc)
		}
		k += length
		at += t.kSlots(length)
	}
}

// run computes tiles below one another from packed rows of A, da apart, and panel q
// of B, for the piece of the sum that begins at k and, in the panels, at slot at.
func (j *gemmJob) run(w *worker, b *kBlock, tiles, k, at, length int, a *float32, da, q int, c *float32, ldc, acc int) {
	t := j.t
	slots := t.kSlots(length)
	packed := b.base + (q*b.slots+at)*t.nr
	switch {
	case j.direct(q):
		t.runDirect(tiles, slots, a, da, ptr(j.B, k*j.LDB+j.j+q*t.nr), j.LDB, c, ldc, acc)
	case t.runDirect != nil: // a ragged panel, which is packed
		t.runDirect(tiles, slots, a, da, ptr(j.pb, packed), t.nr, c, ldc, acc)
	default:
		t.run(tiles, slots, a, da, ptr(j.pb, packed), c, ldc, acc, w.later.current())
	}
}

// copyEdge takes the part of a tile that lies within C.
func copyEdge(c []float32, ldc int, tile []float32, nr, rows, cols, acc int) {
	for i := range rows {
		c, e := c[i*ldc:][:cols], tile[i*nr:][:cols]
		if acc == 0 {
			copy(c, e)
			continue
		}
		for x := range c {
			c[x] = e[x] + c[x]
		}
	}
}
