package generate

import (
	"promptgen/internal/decode"
	"promptgen/internal/kernel"
	"promptgen/model"
)

// passRows is the most rows that go through the model together: enough that the
// weights are read seldom, few enough that the activations stay in the caches.
const passRows = 512

// forwarder runs the model over rows of several sequences. A row's results do
// not depend on the rows beside it, nor on how the rows of a text are cut into
// segments. Its buffers grow to the largest step and stay.
type forwarder struct {
	cpu   *kernel.CPU
	u     *decode.Unit
	p     *model.Params
	w     *weights
	dtype kernel.DType
	act   kernel.Act
	pool  *pool

	x, y, norm, att []float32 // [rows, width]
	qkv             []float32 // [rows, 3*width]
	fc              []float32 // [rows, inner]
	last            []float32 // [segments, width]
	logits          []float32 // [segments, vocab]
	op              decode.Operand
	attn            decode.Attention
}

// segment is what one sequence reads in a step: ids after what cache holds.
type segment struct {
	cache *cache
	ids   []int32
}

func newForwarder(cpu *kernel.CPU, p *model.Params, d kernel.DType) (*forwarder, error) {
	u := decode.New(cpu)
	w, err := packWeights(u, p, d)
	if err != nil {
		return nil, err
	}
	c := &p.Config
	layout := decode.Cache{Layers: c.NLayer, Heads: c.NHead, HeadDim: c.HeadDim(), DType: d}
	act := map[model.Activation]kernel.Act{
		model.GELUNew: kernel.ActGELUNew, model.GELU: kernel.ActGELU, model.ReLU: kernel.ActReLU,
	}[c.Act()]
	return &forwarder{
		cpu: cpu, u: u, p: p, w: w, dtype: d, act: act, pool: &pool{words: layout.Words()},
		attn: decode.Attention{Cache: layout},
	}, nil
}

// close gives the packed weights back.
func (f *forwarder) close() { f.w.free() }

// run reads the segments and returns the logits after the last row of each,
// [len(segs), vocab], valid until the next call.
func (f *forwarder) run(segs []segment) []float32 {
	c := &f.p.Config
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
				f.pass(pass, rows)
				pass, rows = pass[:0], 0
			}
		}
	}
	f.pass(pass, rows)
	logits := grow(&f.logits, n*c.VocabSize)
	f.normed(f.last, f.w.gain, f.w.bias, n)
	f.u.Multiply(&decode.Product{M: n, A: &f.op, W: f.w.head, C: logits, LDC: c.VocabSize})
	return logits
}

// piece is rows of a segment that go through the model together.
type piece struct {
	cache *cache
	ids   []int32
	seg   int  // whose rows
	final bool // the segment's last row is among them
}

// pass takes the pieces' rows through all layers. Of the last layer only the
// keys and values are needed, and what follows from the segments' final rows.
func (f *forwarder) pass(pieces []piece, rows int) {
	if rows == 0 {
		return
	}
	c := &f.p.Config
	e := c.NEmbd
	for _, b := range []*[]float32{&f.x, &f.y, &f.norm, &f.att} {
		grow(b, rows*e)
	}
	grow(&f.qkv, rows*3*e)
	grow(&f.fc, rows*c.Inner())
	f.embed(pieces)
	f.attn.QKV, f.attn.Out = f.qkv, f.att
	f.attn.Segments = f.attn.Segments[:0]
	r := 0
	for _, p := range pieces {
		f.attn.Segments = append(f.attn.Segments, decode.Segment{Pages: p.cache.words(), Past: p.cache.n, Row: r, Rows: len(p.ids)})
		r += len(p.ids)
	}
	for l := range c.NLayer {
		f.attention(l, rows)
		if l == c.NLayer-1 {
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

// keepFinal moves the final rows of x and att to the front and counts them.
func (f *forwarder) keepFinal(pieces []piece) int {
	e := f.p.Config.NEmbd
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
	e := f.p.Config.NEmbd
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

// attention sets att to the attention of LN(x) and, in the last layer, only for
// the pieces' last rows.
func (f *forwarder) attention(l, rows int) {
	b, e := &f.w.blocks[l], f.p.Config.NEmbd
	f.normed(f.x, b.LN1Gain, b.LN1Bias, rows)
	f.u.Multiply(&decode.Product{M: rows, A: &f.op, W: b.attn, Bias: b.AttnB, C: f.qkv, LDC: 3 * e})
	f.attn.Layer = l
	if l == f.p.Config.NLayer-1 {
		for i := range f.attn.Segments {
			f.attn.Segments[i].From = f.attn.Segments[i].Rows - 1
		}
	}
	f.u.Attend(&f.attn)
}

// mlp ends a layer: x += proj(att); x += mlp(LN(x)).
func (f *forwarder) mlp(l, rows int) {
	b, e, in := &f.w.blocks[l], f.p.Config.NEmbd, f.p.Config.Inner()
	f.operand(f.att, rows, e)
	f.u.Multiply(&decode.Product{M: rows, A: &f.op, W: b.proj, Bias: b.ProjB, Residual: f.x, C: f.y, LDC: e})
	f.normed(f.y, b.LN2Gain, b.LN2Bias, rows)
	f.u.Multiply(&decode.Product{M: rows, A: &f.op, W: b.fc, Bias: b.FcB, Act: f.act, C: f.fc, LDC: in})
	f.operand(f.fc, rows, in)
	f.u.Multiply(&decode.Product{M: rows, A: &f.op, W: b.out, Bias: b.OutB, Residual: f.y, C: f.x, LDC: e})
}

// operand makes rows of x [rows, width] the next product's.
func (f *forwarder) operand(x []float32, rows, width int) {
	f.u.Shape(&f.op, f.dtype, rows, width)
	f.u.EachRow(rows, func(r int) { f.u.Set(&f.op, r, x[r*width:][:width]) })
}

// normed makes LN(x) the next product's operand.
func (f *forwarder) normed(x, gain, bias []float32, rows int) {
	e := f.p.Config.NEmbd
	eps := float32(f.p.Config.LayerNormEpsilon)
	f.u.Shape(&f.op, f.dtype, rows, e)
	norm := grow(&f.norm, rows*e)
	f.u.EachRow(rows, func(r int) {
		y := norm[r*e:][:e]
		f.cpu.RowNorm(y, x[r*e:][:e], gain, bias, eps)
		f.u.Set(&f.op, r, y)
	})
}

// grow makes a buffer hold n floats.
func grow(buf *[]float32, n int) []float32 {
	if len(*buf) < n {
		*buf = make([]float32, n)
	}
	return (*buf)[:n]
}
