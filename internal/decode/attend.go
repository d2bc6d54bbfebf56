package decode

import (
	"math"
	"unsafe"

	"promptgen/internal/kernel"
)

// PageRows is the number of tokens of a page. Small enough that a short text
// wastes little, large enough that walking over pages costs little.
const PageRows = panelCols

// Cache describes the pages of a model's keys and values: for each layer and
// head, the keys of PageRows tokens as a panel whose columns are the tokens, then
// their values as panels whose steps are the tokens.
type Cache struct {
	Layers, Heads, HeadDim int
	DType                  kernel.DType // FP32; all else: BF16
}

// Words is the size of a page, in words of 4 bytes.
func (c Cache) Words() int { return c.Layers * c.Heads * (c.keyWords() + c.valueWords()) }

// NewPages makes n pages in one piece of memory, which free gives back.
func (c Cache) NewPages(n int) (pages [][]uint32, free func()) {
	size := c.Words()
	b, free := allocate(4 * size * n)
	all := unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(b))), size*n)
	for i := range n {
		pages = append(pages, all[i*size:(i+1)*size:(i+1)*size])
	}
	return pages, free
}

func (c Cache) unit() int {
	if c.DType == kernel.FP32 {
		return 1
	}
	return 2
}

// width is HeadDim filled up to whole panels of values.
func (c Cache) width() int { return roundUp(c.HeadDim, panelCols) }

func (c Cache) keySteps() int   { return (c.HeadDim + c.unit() - 1) / c.unit() }
func (c Cache) keyWords() int   { return c.keySteps() * panelCols }
func (c Cache) valueSteps() int { return PageRows / c.unit() } // of a panel of a page
func (c Cache) valueWords() int { return c.valueSteps() * c.width() }

// head returns the keys and values of one head in a page.
func (c Cache) head(page []uint32, layer, head int) (keys, values []uint32) {
	at := (layer*c.Heads + head) * (c.keyWords() + c.valueWords())
	keys = page[at:][:c.keyWords()]
	return keys, page[at+c.keyWords():][:c.valueWords()]
}

// store writes the keys and values of token i of a page.
func (c Cache) store(keys, values []uint32, i int, k, v []float32) {
	if c.DType == kernel.FP32 {
		for d := range k {
			keys[d*panelCols+i] = math.Float32bits(k[d])
			values[(d/panelCols*PageRows+i)*panelCols+d%panelCols] = math.Float32bits(v[d])
		}
		return
	}
	for d := 0; d < len(k); d += 2 {
		w := bf16(k[d])
		if d+1 < len(k) {
			w |= bf16(k[d+1]) << 16
		}
		keys[d/2*panelCols+i] = w
	}
	for d := range v {
		w := &values[(d/panelCols*c.valueSteps()+i/2)*panelCols+d%panelCols]
		if i%2 == 0 {
			*w = bf16(v[d]) // the other half becomes zero, which nothing must be added from
		} else {
			*w = *w&0xffff | bf16(v[d])<<16
		}
	}
}

func bf16(x float32) uint32 { return math.Float32bits(kernel.RoundBF16(x)) >> 16 }

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
		f := h.format()
		rows := h.seg.Rows - h.seg.From
		tiles(rows, len(f.tiles), func(r, m int) { h.rows(f, h.seg.From+r, m) })
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

func (h *headJob) format() *format { return h.u.k.format(h.dtype()) }

func (h *headJob) dtype() kernel.DType {
	if h.Cache.DType == kernel.FP32 {
		return kernel.FP32
	}
	return kernel.BF16
}

// qkv is the part'th of query, key and value of row r of the segment.
func (h *headJob) qkv(r, part int) []float32 {
	d, width := h.Cache.HeadDim, h.Cache.Heads*h.Cache.HeadDim
	return h.QKV[((h.seg.Row+r)*3+part)*width+h.head*d:][:d]
}

func (h *headJob) store() {
	for r := range h.seg.Rows {
		at := h.seg.Past + r
		keys, values := h.Cache.head(h.seg.Pages[at/PageRows], h.Layer, h.head)
		h.Cache.store(keys, values, at%PageRows, h.qkv(r, 1), h.qkv(r, 2))
	}
}

// rows computes m rows of the segment from r on. Scores and probabilities past a
// row's own token are computed and dropped, or zero: its sums are the same chains
// whatever rows are done with it.
func (h *headJob) rows(f *format, r, m int) {
	c := &h.Cache
	past := h.seg.Past + r // tokens before the first of these rows
	n := past + m
	ld := roundUp(n, PageRows)
	s := grow(&h.s.scores, m*ld)
	h.u.Shape(&h.s.q, h.dtype(), m, c.HeadDim)
	for i := range m {
		h.u.Set(&h.s.q, i, h.qkv(r+i, 0))
	}
	for at := 0; at < n; at += PageRows {
		keys, _ := c.head(h.seg.Pages[at/PageRows], h.Layer, h.head)
		if next := at + PageRows; next < n {
			ahead, _ := c.head(h.seg.Pages[next/PageRows], h.Layer, h.head)
			h.u.fetch(ahead)
		}
		f.tiles[m-1](c.keySteps(), h.s.q.at(0, 0), h.s.q.stride, words(keys), floatPtr(s, at), 4*ld, 0)
	}
	var sums [maxTile]float32
	scale := float32(1 / math.Sqrt(float64(c.HeadDim)))
	h.u.Shape(&h.s.p, h.dtype(), m, ld)
	for i := range m {
		row := s[i*ld:][:ld]
		seen := past + i + 1
		sums[i] = h.u.cpu.RowExp(row[:seen], row[:seen], scale)
		clear(row[seen:])
		h.u.Set(&h.s.p, i, row)
	}
	width := c.width()
	out := grow(&h.s.out, m*width)
	for at := 0; at < n; at += PageRows {
		_, values := c.head(h.seg.Pages[at/PageRows], h.Layer, h.head)
		if next := at + PageRows; next < n {
			_, ahead := c.head(h.seg.Pages[next/PageRows], h.Layer, h.head)
			h.u.fetch(ahead)
		}
		steps := f.steps(min(PageRows, n-at)) // what lies behind is of nobody
		for d := 0; d < width; d += panelCols {
			f.tiles[m-1](steps, h.s.p.at(0, at/f.unit), h.s.p.stride,
				words(values[d*c.valueSteps():]), floatPtr(out, d), 4*width, min(at, 1))
		}
	}
	for i := range m {
		d := c.HeadDim
		h.u.cpu.RowScale(h.Out[(h.seg.Row+r+i)*c.Heads*d+h.head*d:][:d], out[i*width:][:d], 1/sums[i])
	}
}

// fetch asks for what will be read next: the processor cannot know which page
// follows.
func (u *Unit) fetch(w []uint32) { u.k.fetch(words(w), len(w)*4/lineBytes) }

// maxTile is the most rows that any tile has.
const maxTile = 12

func words(w []uint32) *byte { return (*byte)(unsafe.Pointer(unsafe.SliceData(w))) }
