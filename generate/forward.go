package generate

import (
	"promptgen/internal/arena"
	"promptgen/internal/decode"
	"promptgen/internal/kernel"
	"promptgen/model"
)

// manyRows are so many that they get memory of their own (forwarder.lay).
const manyRows = 32

// passRows is the most rows that go through the model together: enough that the
// weights are read seldom, few enough that the activations stay in the caches.
const passRows = 256

// forwarder runs the model over rows of several sequences. A row's results do
// not depend on the rows beside it, nor on how the rows of a text are cut into
// segments. Its buffers grow to the largest step and stay.
type forwarder struct {
	cpu   *kernel.CPU
	u     *decode.Unit
	c     model.Config
	w     *weights
	dtype kernel.DType
	act   kernel.Act
	pool  *pool

	x, y, norm, att []float32 // [rows, width]
	qkv             []float32 // [rows, 3*width]
	fc              []float32 // [rows, inner]
	last            []float32 // [segments, width]
	logits          []float32 // [segments, vocab]
	op, next        decode.Operand
	mem             *decode.Memory // of these, but for last and logits
	laid            int            // rows that it was made for
	attn            decode.Attention
}

// segment is what one sequence reads in a step: ids after what cache holds.
type segment struct {
	cache *cache
	ids   []int32
}

func newForwarder(cpu *kernel.CPU, src Source, d kernel.DType, lent [][]float32) (*forwarder, error) {
	u := decode.New(cpu)
	w, err := packWeights(u, src, d, lent)
	if err != nil {
		return nil, err
	}
	c, _ := src.Config()
	layout := cacheLayout(c, d)
	act := map[model.Activation]kernel.Act{
		model.GELUNew: kernel.ActGELUNew, model.GELU: kernel.ActGELU, model.ReLU: kernel.ActReLU,
	}[c.Act()]
	return &forwarder{
		cpu: cpu, u: u, c: c, w: w, dtype: d, act: act, pool: &pool{layout: layout},
		attn: decode.Attention{Cache: layout}, mem: decode.NewMemory(nil, nil),
	}, nil
}

// cacheLayout is how the cache's pages lie.
func cacheLayout(c model.Config, d kernel.DType) decode.Cache {
	return decode.Cache{Layers: c.NLayer, Heads: c.NHead, HeadDim: c.HeadDim(), DType: cacheType(d)}
}

// cacheType is what the cache holds beside weights in d. With quantized weights
// values have 4 bits and keys as many as the weights: at 900 tokens of GPT-2 small
// 16 would be 34 MB, beside 107 or 57 MB of weights. What that costs in quality is
// in docs/generation.md.
func cacheType(d kernel.DType) kernel.DType {
	switch d {
	case kernel.FP32, kernel.Q8_0, kernel.Q4_0:
		return d
	}
	return kernel.BF16
}

// Need is what an engine for weights in d takes at most while it writes one text
// of n tokens at a time and keeps nothing of it (PrefixTokens -1): the pieces of
// the weights, of which what fits may lie in EngineOptions.Lent (decode.Beside),
// other mapped memory, and Go's heap.
func Need(c model.Config, untied bool, d kernel.DType, n int) (weights []int, mapped, heap int64) {
	pages := pagesOf(n) * 4 * cacheLayout(c, d).Words()
	slabs := (pagesOf(n) + slabPages - 1) / slabPages
	mapped = int64(pages + slabs*arena.HugePage)
	e, in, rows := int64(c.NEmbd), int64(c.Inner()), int64(min(n, passRows))
	activations := rows * (4*e + 3*e + in) // x, y, norm, att; qkv; fc
	operands := rows * (e + in + 64)
	heap = 4 * (2*int64(c.VocabSize) + e)
	if own := 4 * (activations + operands); rows > manyRows {
		mapped += own + arena.HugePage
	} else {
		heap += own
	}
	weights = weightSizes(c, untied, d)
	for _, n := range weights {
		heap += int64(decode.PatchBytes(d, n))
	}
	return weights, mapped, heap
}

// close gives the packed weights and the cache's pages back.
func (f *forwarder) close() {
	f.w.free()
	f.pool.close()
	f.mem.Free()
}

// run reads the segments and returns the logits after the last row of each,
// [len(segs), vocab], valid until the next call.
func (f *forwarder) run(segs []segment) []float32 {
	c := &f.c
	n := len(segs)
	grow(&f.last, n*c.NEmbd)
	var pass []piece
	rows := 0
	for i, s := range segs {
		f.pool.grow(s.cache, len(s.ids))
		for at := 0; at < len(s.ids); {
			m := min(len(s.ids)-at, passRows-rows)
			pass = append(pass, piece{s.cache, s.ids[at : at+m], i, at+m == len(s.ids)})
			at, rows = at+m, rows+m
			if rows == passRows {
				f.pass(pass, rows, false)
				pass, rows = pass[:0], 0
			}
		}
	}
	f.pass(pass, rows, false)
	return f.headOf(f.last, n)
}

// headOf is the logits of the first n rows of x, valid until the next call.
func (f *forwarder) headOf(x []float32, n int) []float32 {
	vocab := f.c.VocabSize
	logits := grow(&f.logits, n*vocab)
	f.normed(x, f.w.gain, f.w.bias, n)
	f.u.Multiply(&decode.Product{M: n, A: &f.op, W: f.w.head, C: logits, LDC: vocab})
	return logits
}

// piece is rows of a segment that go through the model together.
type piece struct {
	cache *cache
	ids   []int32
	seg   int  // whose rows
	final bool // the segment's last row is among them
}

// pass takes the pieces' rows through all layers. Unless all rows are wanted,
// only the keys and values are needed of the last layer, and what follows from
// the segments' final rows.
func (f *forwarder) pass(pieces []piece, rows int, all bool) {
	if rows == 0 {
		return
	}
	c := &f.c
	e := c.NEmbd
	if rows > manyRows && rows > f.laid {
		f.lay(rows)
	}
	for _, b := range []*[]float32{&f.x, &f.y, &f.att} {
		grow(b, rows*e)
	}
	grow(&f.qkv, rows*3*e)
	f.embed(pieces)
	f.attn.QKV, f.attn.Out = f.qkv, f.att
	f.attn.Segments = f.attn.Segments[:0]
	r := 0
	for _, p := range pieces {
		f.attn.Segments = append(f.attn.Segments, decode.Segment{Pages: p.cache.words(), Past: p.cache.n, Row: r, Rows: len(p.ids)})
		r += len(p.ids)
	}
	for l := range c.NLayer {
		few := l == c.NLayer-1 && !all
		if few {
			f.attendFinal(pieces)
		}
		f.attention(l, rows)
		if few {
			rows = f.keepFinal(pieces)
		}
		f.mlp(l, rows)
	}
	r = 0
	for _, p := range pieces {
		p.cache.n += len(p.ids)
		if p.final {
			copy(f.last[p.seg*e:][:e], f.x[r*e:])
			r++
		}
	}
}

// lay makes one piece of memory for what a pass of so many rows works with: the
// system gives huge pages only to large pieces, and with small ones each row of a
// product has pages of its own.
func (f *forwarder) lay(rows int) {
	e, in := f.c.NEmbd, f.c.Inner()
	type place struct {
		floats  *[]float32
		operand *decode.Operand
		width   int
	}
	places := []place{
		{&f.x, nil, e}, {&f.y, nil, e}, {&f.att, nil, e}, {&f.qkv, nil, 3 * e}, {nil, &f.op, e}, {nil, &f.next, in},
	}
	if f.dtype != kernel.FP32 { // whose operands are floats themselves
		places = append(places, place{&f.norm, nil, e}, place{&f.fc, nil, in})
	}
	var sizes []int
	for _, p := range places {
		n := decode.FloatBytes(rows * p.width)
		if p.operand != nil {
			n = f.u.OperandBytes(f.dtype, rows, p.width)
		}
		sizes = append(sizes, n)
	}
	f.mem.Free()
	f.mem, f.laid = decode.NewMemory(sizes, nil), rows
	for i, p := range places {
		if p.operand != nil {
			p.operand.Use(f.mem.Take(sizes[i]))
		} else {
			*p.floats = f.mem.Floats(rows * p.width)
		}
	}
}

// keepFinal moves the final rows of x and att to the front and counts them.
func (f *forwarder) keepFinal(pieces []piece) int {
	e := f.c.NEmbd
	r, n := 0, 0
	for _, p := range pieces {
		r += len(p.ids)
		if p.final {
			copy(f.x[n*e:][:e], f.x[(r-1)*e:])
			copy(f.att[n*e:][:e], f.att[(r-1)*e:])
			n++
		}
	}
	return n
}

// embed sets x to token plus position embedding.
func (f *forwarder) embed(pieces []piece) {
	e := f.c.NEmbd
	r := 0
	for _, p := range pieces {
		base := r
		f.u.EachRow(len(p.ids), func(i int) {
			x := f.x[(base+i)*e:][:e]
			f.w.wte.Column(x, int(p.ids[i]))
			f.cpu.RowAdd(x, f.w.wpe[(p.cache.n+i)*e:][:e])
		})
		r += len(p.ids)
	}
}

// attendFinal has only the pieces' final rows attend.
func (f *forwarder) attendFinal(pieces []piece) {
	for i, p := range pieces {
		s := &f.attn.Segments[i]
		s.From = s.Rows
		if p.final {
			s.From--
		}
	}
}

// attention sets att to the attention of LN(x), for the rows that attend.
func (f *forwarder) attention(l, rows int) {
	b := &f.w.blocks[l]
	f.normed(f.x, b.gain1, b.bias1, rows)
	f.project(b, rows)
	f.attn.Layer = l
	f.u.Attend(&f.attn)
}

// project sets qkv of rows that normed has prepared. Where few attend and the
// weights can be cut behind those of the queries, only they have queries.
func (f *forwarder) project(b *blockWeights, rows int) {
	e := f.c.NEmbd
	attend := 0
	for _, s := range f.attn.Segments {
		attend += s.Rows - s.From
	}
	qkv := decode.Product{M: rows, A: &f.op, W: b.attn, Bias: b.attnB, C: f.qkv, LDC: 3 * e}
	var kv *decode.Matrix
	if attend <= rows/4 {
		kv = b.attn.Columns(e, 3*e)
	}
	if kv == nil {
		f.u.Multiply(&qkv)
		return
	}
	q := qkv
	qkv.W, qkv.Bias, qkv.C = kv, b.attnB[e:], f.qkv[e:]
	f.u.Multiply(&qkv)
	q.W, q.Bias = b.attn.Columns(0, e), b.attnB[:e]
	for _, s := range f.attn.Segments {
		q.Row, q.M = s.Row+s.From, s.Rows-s.From
		f.u.Multiply(&q)
	}
}

// mlp ends a layer: x += proj(att); x += mlp(LN(x)).
func (f *forwarder) mlp(l, rows int) {
	b, e, in := &f.w.blocks[l], f.c.NEmbd, f.c.Inner()
	f.u.Shape(&f.op, f.dtype, rows, e)
	f.u.EachRow(rows, func(r int) { f.u.Set(&f.op, r, f.att[r*e:][:e]) })
	f.u.Multiply(&decode.Product{M: rows, A: &f.op, W: b.proj, Bias: b.projB, Residual: f.x, C: f.y, LDC: e})
	f.normed(f.y, b.gain2, b.bias2, rows)
	fc := decode.Product{M: rows, A: &f.op, W: b.fc, Bias: b.fcB, Act: f.act}
	var convert bool
	if fc.C, fc.LDC, convert = f.target(&f.next, &f.fc, rows, in); convert {
		fc.Next = &f.next
	}
	f.u.Multiply(&fc)
	f.u.Multiply(&decode.Product{M: rows, A: &f.next, W: b.out, Bias: b.outB, Residual: f.y, C: f.x, LDC: e})
}

// normed makes LN(x) the next product's operand.
func (f *forwarder) normed(x, gain, bias []float32, rows int) {
	e := f.c.NEmbd
	eps := float32(f.c.LayerNormEpsilon)
	norm, ld, convert := f.target(&f.op, &f.norm, rows, e)
	f.u.EachRow(rows, func(r int) {
		y := norm[r*ld:][:e]
		f.cpu.RowNorm(y, x[r*e:][:e], gain, bias, eps)
		if convert {
			f.u.Set(&f.op, r, y)
		}
	})
}

// target shapes op and says where to write its rows, ld floats apart: into op if
// it keeps floats, else into buf, to be converted.
func (f *forwarder) target(op *decode.Operand, buf *[]float32, rows, width int) (x []float32, ld int, convert bool) {
	f.u.Shape(op, f.dtype, rows, width)
	if x, ld = f.u.Floats(op); x != nil {
		return x, ld, false
	}
	return grow(buf, rows*width), width, true
}

// grow makes a buffer hold n floats.
func grow(buf *[]float32, n int) []float32 {
	if len(*buf) < n {
		*buf = make([]float32, n)
	}
	return (*buf)[:n]
}
