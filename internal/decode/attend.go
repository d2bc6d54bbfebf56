package decode

import (
	"math"
	"unsafe"

	"promptgen/internal/kernel"
)

// Segment is consecutive rows of one sequence, which go behind the tokens that
// its pages hold.
type Segment struct {
	Pages [][]uint32 // with room for the rows
	Past  int        // tokens in them
	Row   int        // the first row in QKV and Out
	Rows  int
	From  int // rows before this one are stored and do not attend
}

// Attention is causal self-attention of new tokens over the cache and each other.
type Attention struct {
	Cache    Cache
	Layer    int
	Segments []Segment
	QKV      []float32 // [rows, 3*Heads*HeadDim]: queries, keys, values
	Out      []float32 // [rows, Heads*HeadDim]
}

// Attend stores the keys and values of the segments' rows and computes Out.
func (u *Unit) Attend(a *Attention) {
	heads := a.Cache.Heads
	u.cpu.Each(len(a.Segments)*heads, func(worker, i int) {
		h := headJob{a, u, &u.per[worker], &a.Segments[i/heads], i % heads}
		h.store()
		rows := h.seg.Rows - h.seg.From
		tiles(rows, len(u.k.format(a.Cache.DType).tiles), func(r, m int) { h.rows(h.seg.From+r, m) })
	})
}

// headJob is one head of one segment.
type headJob struct {
	*Attention
	u    *Unit
	s    *scratch
	seg  *Segment
	head int
}

// qkv is the part'th of query, key and value of row r of the segment, and from
// what begins with it.
func (h *headJob) qkv(r, part int) []float32 { return h.from(r, part)[:h.Cache.HeadDim] }
func (h *headJob) from(r, part int) []float32 {
	d, width := h.Cache.HeadDim, h.Cache.Heads*h.Cache.HeadDim
	return h.QKV[((h.seg.Row+r)*3+part)*width+h.head*d:]
}

// store puts the keys and values of the segment's rows into its pages.
func (h *headJob) store() {
	for r := 0; r < h.seg.Rows; {
		at := h.seg.Past + r
		page, i := h.seg.Pages[at/PageRows], at%PageRows
		n := min(PageRows-i, h.seg.Rows-r)
		if n < PageRows || !h.storePage(page, r) {
			for k := range n {
				h.storeRow(page, i+k, r+k)
			}
		}
		r += n
	}
}

// storePage stores rows that fill a page, from r on, as weights are packed. It
// returns whether it did: not values that are not finite, which packing does not
// keep.
func (h *headJob) storePage(page []uint32, r int) bool {
	c := &h.Cache
	if c.quantized() || c.HeadDim%panelCols > 0 {
		return false
	}
	ld, at := 3*c.Heads*c.HeadDim, c.valuesAt(h.Layer, h.head)
	for d := 0; d < c.HeadDim; d += panelCols {
		top := h.u.k.format(c.DType).pack(c.valueSteps(), &h.qkv(r, 2)[d], 4*ld, words(page[at:]))
		if x := math.Float32frombits(top); x-x != 0 {
			return false
		}
		at += c.panelWords()
	}
	keys := page[c.keysAt(h.Layer, h.head):][:c.keyWords()]
	h.u.cpu.Turn(floatsOf(keys), h.from(r, 1), ld, PageRows, c.HeadDim, c.DType == kernel.BF16)
	return true
}

// storeRow stores row r of the segment as token i of a page.
func (h *headJob) storeRow(page []uint32, i, r int) {
	c, k, v := &h.Cache, h.qkv(r, 1), h.qkv(r, 2)
	keys, values := page[c.keysAt(h.Layer, h.head):], page[c.valuesAt(h.Layer, h.head):]
	if c.quantized() {
		if c.DType == kernel.Q4_0 {
			k = h.whole(k)
			h.u.k.storeKeyQ4(len(k)/BlockLen, &k[0], &keys[0], i)
		} else {
			c.storeKeyQ8(keys, i, h.key(k).data[:c.keySteps()*blockBytes])
		}
		scales := halvesOf(page[c.scalesAt(h.Layer, h.head):][:c.scaleWords()])
		if i == 0 { // nothing must be added from the tokens to come
			clear(scales)
		}
		v = h.whole(v)
		h.u.k.storeQ4(len(v)/panelCols, &v[0], &values[i%16/4*panelCols], i%4*8+i/16*4, &scales[i])
		return
	}
	c.storeKey(keys, i, h.key(k))
	c.storeValue(values, i, v)
}

// key is k as an operand.
func (h *headJob) key(k []float32) *Operand {
	h.u.Shape(&h.s.q, h.Cache.DType, 1, len(k))
	h.u.Set(&h.s.q, 0, k)
	return &h.s.q
}

// whole is v filled up with zeros to whole blocks, valid until the next call.
func (h *headJob) whole(v []float32) []float32 {
	width := h.Cache.width()
	if len(v) == width {
		return v
	}
	pad := grow(&h.s.out, width)
	clear(pad[copy(pad, v):])
	return pad
}

// rows computes m rows of the segment from r on. Scores and probabilities past a
// row's own token are computed and dropped, or zero: its sums are the same chains
// whatever rows are done with it.
func (h *headJob) rows(r, m int) {
	c := &h.Cache
	past := h.seg.Past + r // tokens before the first of these rows
	n := past + m
	ld := roundUp(n, PageRows)
	s := grow(&h.s.scores, m*ld)
	h.u.Shape(&h.s.q, c.DType, m, c.HeadDim)
	for i := range m {
		h.u.Set(&h.s.q, i, h.qkv(r+i, 0))
	}
	h.scores(s, m, ld)
	var sums [maxTile]float32
	h.s.p.shape(h.u.k.values(c), q4Zero, m, ld)
	for i := range m {
		sums[i] = h.probabilities(i, s[i*ld:][:ld], past+i+1)
	}
	width := c.width()
	out := grow(&h.s.out, m*width)
	h.values(out, m, n)
	for i := range m {
		d := c.HeadDim
		h.u.cpu.RowScale(h.Out[(h.seg.Row+r+i)*c.Heads*d+h.head*d:][:d], out[i*width:][:d], 1/sums[i])
	}
}

// scores sets s [m, ld] to the products of the rows with all keys, ld of them.
func (h *headJob) scores(s []float32, m, ld int) {
	c := &h.Cache
	f := h.u.k.format(c.DType)
	at := c.keysAt(h.Layer, h.head)
	pages := h.seg.Pages[:ld/PageRows]
	if m == 1 && f.scores != nil {
		next := 4 * c.scalesAt(h.Layer, h.head)
		f.scores(c.keySteps(), h.s.q.at(0, 0), &pages[0], len(pages), 4*at, next, &s[0])
		return
	}
	for i, page := range pages {
		h.ask(pages[i:], 2, m, at, c.keyWords()+c.scaleWords())
		f.tiles[m-1](c.keySteps(), h.s.q.at(0, 0), h.s.q.stride, words(page[at:]), floatPtr(s, i*PageRows), 4*ld, &zeros[0], 0)
	}
}

// ask asks for words of the page that comes so many pages later, for one row of a
// quantized cache, which is done with a page before the next has come by itself.
func (h *headJob) ask(pages [][]uint32, later, rows, at, words int) {
	if rows == 1 && h.Cache.quantized() && later < len(pages) {
		h.u.cpu.RowFetch(floatsOf(pages[later][at:][:words]))
	}
}

// probabilities makes of row, the scores of all tokens in the pages, of which the
// first n are seen, row i of what values are multiplied by: the softmax but for its
// divisor, which is returned.
func (h *headJob) probabilities(i int, row []float32, n int) (sum float32) {
	c, seen := &h.Cache, row[:n]
	scale := float32(1 / math.Sqrt(float64(c.HeadDim)))
	at, pages := 4*c.scalesAt(h.Layer, h.head), h.seg.Pages[:len(row)/PageRows]
	if c.quantized() && h.u.k.softmax != nil {
		scale *= math.Log2E
		return h.u.k.softmax(len(pages), n, &row[0], scale, -scale*h.u.cpu.RowMax(seen), h.s.p.at(i, 0), h.s.p.zero, &pages[0], at)
	}
	sum = h.u.cpu.RowExp(seen, seen, scale)
	clear(row[n:])
	if c.quantized() {
		h.u.k.quantizeScaled(len(pages), &row[0], h.s.p.at(i, 0), h.s.p.zero, &pages[0], at)
	} else {
		h.u.Set(&h.s.p, i, row)
	}
	return sum
}

// values sets out [m, width] to the products of the probabilities with the
// values of n tokens.
func (h *headJob) values(out []float32, m, n int) {
	c := &h.Cache
	f := h.u.k.values(c)
	at, width := c.valuesAt(h.Layer, h.head), c.width()
	pages := h.seg.Pages[:(n+PageRows-1)/PageRows]
	last := f.steps(n - (len(pages)-1)*PageRows) // what lies behind is of nobody
	if m == 1 && f.values[0] != nil {
		h.walkValues(f, out, pages, last)
		return
	}
	for d := 0; d < width; d += panelCols {
		for i, page := range pages {
			h.ask(pages[i:], 4, m, at, c.panelWords())
			steps := c.valueSteps()
			if i == len(pages)-1 {
				steps = last
			}
			from, ldf := &zeros[0], 0
			if i > 0 {
				from, ldf = &out[d], 4*width
			}
			f.tiles[m-1](steps, h.s.p.at(0, i*c.valueSteps()), h.s.p.stride, words(page[at:]), &out[d], 4*width, from, ldf)
		}
		at += c.panelWords()
	}
}

// walkValues is values for one row, two panels at a time.
func (h *headJob) walkValues(f *format, out []float32, pages [][]uint32, last int) {
	c := &h.Cache
	at, next := 4*c.valuesAt(h.Layer, h.head), 0
	if h.head+1 < c.Heads { // likely this thread's next
		next = 4 * c.keysAt(h.Layer, h.head+1)
	}
	for left := c.width() / panelCols; left > 0; {
		n := min(left, len(f.values))
		f.values[n-1](last, h.s.p.at(0, 0), &pages[0], len(pages), at, next, &out[c.width()-left*panelCols])
		at += 4 * n * c.panelWords()
		left -= n
	}
}

// maxTile is the most rows that any tile has.
const maxTile = 12

func words(w []uint32) *byte { return (*byte)(unsafe.Pointer(unsafe.SliceData(w))) }

func floatsOf(w []uint32) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(w))), len(w))
}
