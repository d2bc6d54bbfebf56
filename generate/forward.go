package generate

import (
	"math"
	"slices"

	"promptgen/internal/kernel"
	"promptgen/model"
)

// forwarder runs the model over rows of several sequences. Its buffers grow to
// the largest step and stay.
type forwarder struct {
	cpu  *kernel.CPU
	p    *model.Params
	act  kernel.Act
	bf16 bool
	pool *pool

	x, y, norm, att []float32 // [rows, width]
	qkv             []float32 // [rows, 3*width]
	fc              []float32 // [rows, inner]
	mean, rstd      []float32 // [rows]
	lse             []float32 // [heads*rows of the longest segment]
	scores          []float32 // [segments*heads, n_ctx]
	past, seen      []float32 // [n_ctx, 3*width] and [n_ctx, width], where a segment goes on after its cache
	last            []float32 // [segments, width]
	logits          []float32 // [segments, vocab]
}

// segment is what one sequence reads in a step: ids after what cache holds.
//
// A text of several tokens may be cut into segments of at least two rows in any
// way, and any number of its first tokens may be in the cache already: the
// results are the same to the bit. A single row is what decoding reads; it may
// differ in the last bits.
type segment struct {
	cache *cache
	ids   []int32
}

func newForwarder(cpu *kernel.CPU, p *model.Params, bf16 bool) *forwarder {
	act := map[model.Activation]kernel.Act{
		model.GELUNew: kernel.ActGELUNew, model.GELU: kernel.ActGELU, model.ReLU: kernel.ActReLU,
	}[p.Config.Act()]
	return &forwarder{
		cpu: cpu, p: p, act: act, bf16: bf16,
		pool: &pool{layers: p.Config.NLayer, heads: p.Config.NHead, headDim: p.Config.HeadDim()},
	}
}

// run reads the segments and returns the logits after the last row of each,
// [len(segs), vocab], valid until the next call.
func (f *forwarder) run(segs []segment) []float32 {
	c := &f.p.Config
	rows, longest := 0, 0
	for _, s := range segs {
		rows += len(s.ids)
		longest = max(longest, s.cache.n+len(s.ids))
		f.pool.grow(s.cache, len(s.ids))
	}
	f.reserve(rows, longest, len(segs), slices.ContainsFunc(segs, func(s segment) bool { return s.cache.n > 0 && len(s.ids) > 1 }))
	f.embed(segs)
	for l := range c.NLayer {
		f.layer(l, &f.p.Blocks[l], segs, rows)
	}
	r := 0
	for i, s := range segs {
		r += len(s.ids)
		copy(f.last[i*c.NEmbd:][:c.NEmbd], f.x[(r-1)*c.NEmbd:])
		s.cache.n += len(s.ids)
	}
	n := len(segs)
	f.layerNorm(f.norm, f.last, f.p.LNFGain, f.p.LNFBias, n)
	f.cpu.Gemm(&kernel.Gemm{
		M: n, N: c.VocabSize, K: c.NEmbd, TransB: true, BF16: f.bf16,
		A: f.norm, B: f.p.Head, C: f.logits, LDA: c.NEmbd, LDB: c.NEmbd, LDC: c.VocabSize,
	})
	return f.logits[:n*c.VocabSize]
}

// reserve makes the buffers large enough; later says that a segment of several
// rows follows a past.
func (f *forwarder) reserve(rows, longest, segs int, later bool) {
	c := &f.p.Config
	e := c.NEmbd
	past := 0
	if later {
		past = c.NCtx
	}
	for buf, n := range map[*[]float32]int{
		&f.x: rows * e, &f.y: rows * e, &f.norm: rows * e, &f.att: rows * e,
		&f.qkv: rows * 3 * e, &f.fc: rows * c.Inner(), &f.mean: rows, &f.rstd: rows,
		&f.lse: c.NHead * longest, &f.scores: segs * c.NHead * c.NCtx,
		&f.last: segs * e, &f.logits: segs * c.VocabSize,
		&f.past: past * 3 * e, &f.seen: past * e,
	} {
		if len(*buf) < n {
			*buf = make([]float32, n)
		}
	}
}

// embed sets x to token plus position embedding.
func (f *forwarder) embed(segs []segment) {
	e := f.p.Config.NEmbd
	r := 0
	for _, s := range segs {
		for i, id := range s.ids {
			tok, pos := f.p.WTE[int(id)*e:][:e], f.p.WPE[(s.cache.n+i)*e:][:e]
			x := f.x[r*e:][:e]
			for j := range x {
				x[j] = tok[j] + pos[j]
			}
			r++
		}
	}
}

// layer runs one block: x += proj(attention(LN(x))); x += mlp(LN(x)).
func (f *forwarder) layer(l int, b *model.Block, segs []segment, rows int) {
	e, in := f.p.Config.NEmbd, f.p.Config.Inner()
	f.layerNorm(f.norm, f.x, b.LN1Gain, b.LN1Bias, rows)
	f.linear(f.qkv, f.norm, b.AttnW, b.AttnB, rows, 3*e, e, kernel.ActNone, nil)
	f.remember(l, segs)
	f.attend(l, segs)
	f.linear(f.y, f.att, b.ProjW, b.ProjB, rows, e, e, kernel.ActNone, f.x)
	f.layerNorm(f.norm, f.y, b.LN2Gain, b.LN2Bias, rows)
	f.linear(f.fc, f.norm, b.FcW, b.FcB, rows, in, e, f.act, nil)
	f.linear(f.x, f.fc, b.OutW, b.OutB, rows, e, in, kernel.ActNone, f.y)
}

func (f *forwarder) layerNorm(y, x, gain, bias []float32, rows int) {
	e := f.p.Config.NEmbd
	f.cpu.LayerNormForward(y[:rows*e], f.mean[:rows], f.rstd[:rows], x[:rows*e], gain, bias, rows, e,
		float32(f.p.Config.LayerNormEpsilon))
}

// linear is y [m,n] = act(x [m,k] · w [k,n] + bias) + residual.
func (f *forwarder) linear(y, x, w, bias []float32, m, n, k int, act kernel.Act, residual []float32) {
	if residual != nil {
		residual = residual[:m*n]
	}
	f.cpu.Gemm(&kernel.Gemm{
		M: m, N: n, K: k, BF16: f.bf16,
		A: x[:m*k], B: w, C: y[:m*n], LDA: k, LDB: n, LDC: n,
		Bias: bias, Act: act, Residual: residual,
	})
}

// remember copies the new rows' keys and values into the caches.
func (f *forwarder) remember(l int, segs []segment) {
	e, d := f.p.Config.NEmbd, f.p.Config.HeadDim()
	r := 0
	for _, s := range segs {
		for i := range s.ids {
			at := s.cache.n + i
			row := (at % pageRows) * d
			for h := range f.p.Config.NHead {
				k, v := f.pool.rows(s.cache.pages[at/pageRows], l, h)
				copy(k[row:row+d], f.qkv[(3*r+1)*e+h*d:])
				copy(v[row:row+d], f.qkv[(3*r+2)*e+h*d:])
			}
			r++
		}
	}
}

// attend fills att [rows, width]. Segments of several rows go to the blockwise
// kernel; single rows look into their cache.
func (f *forwarder) attend(l int, segs []segment) {
	c := &f.p.Config
	e := c.NEmbd
	var single []int // row of each segment of one row, -1 for the others
	r := 0
	for _, s := range segs {
		n := len(s.ids)
		switch {
		case n == 1:
			single = append(single, r)
		case s.cache.n > 0:
			single = append(single, -1)
			f.attendAfter(l, s.cache, f.qkv[r*3*e:][:n*3*e], f.att[r*e:][:n*e])
		default:
			single = append(single, -1)
			f.attendBlock(f.qkv[r*3*e:][:n*3*e], f.att[r*e:][:n*e])
		}
		r += n
	}
	f.cpu.Parallel(len(segs)*c.NHead, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			seg, head := i/c.NHead, i%c.NHead
			if row := single[seg]; row >= 0 {
				d := c.HeadDim()
				f.attendCached(l, head, segs[seg].cache,
					f.qkv[row*3*e+head*d:][:d], f.att[row*e+head*d:][:d], f.scores[i*c.NCtx:][:c.NCtx])
			}
		}
	})
}

// attendBlock is attention among the rows of qkv [rows, 3*width].
func (f *forwarder) attendBlock(qkv, out []float32) {
	c := &f.p.Config
	n := len(out) / c.NEmbd
	f.cpu.AttentionForward(&kernel.Attention{
		Batch: 1, SeqLen: n, Heads: c.NHead, HeadDim: c.HeadDim(), BF16: f.bf16,
		QKV: qkv, Out: out, LSE: f.lse[:c.NHead*n],
	})
}

// attendAfter is attendBlock for rows that follow what the cache holds. Queries
// of the past are not known, and what they give is dropped.
func (f *forwarder) attendAfter(l int, past *cache, qkv, out []float32) {
	c := &f.p.Config
	e, d, n := c.NEmbd, c.HeadDim(), past.n
	whole := f.past[:n*3*e+len(qkv)]
	for i := range n {
		row, at := whole[i*3*e:][:3*e], i%pageRows*d
		clear(row[:e])
		for h := range c.NHead {
			k, v := f.pool.rows(past.pages[i/pageRows], l, h)
			copy(row[e+h*d:][:d], k[at:])
			copy(row[2*e+h*d:][:d], v[at:])
		}
	}
	copy(whole[n*3*e:], qkv)
	seen := f.seen[:n*e+len(out)]
	f.attendBlock(whole, seen)
	copy(out, seen[n*e:])
}

// attendCached is one head of one row: out [d] = softmax(q·K^T/sqrt(d))·V over
// what the cache holds and the row itself.
func (f *forwarder) attendCached(l, head int, c *cache, q, out, scores []float32) {
	d, n := len(q), c.n+1
	scale := 1 / float32(math.Sqrt(float64(d)))
	top := float32(math.Inf(-1))
	scores = scores[:n]
	for at := 0; at < n; at += pageRows {
		keys, _ := f.pool.rows(c.pages[at/pageRows], l, head)
		for i := range scores[at:min(at+pageRows, n)] {
			s := dot(q, keys[i*d:][:d]) * scale
			scores[at+i] = s
			top = max(top, s)
		}
	}
	var sum float32
	for at, s := range scores {
		scores[at] = float32(math.Exp(float64(s - top)))
		sum += scores[at]
	}
	clear(out)
	for at := 0; at < n; at += pageRows {
		_, values := f.pool.rows(c.pages[at/pageRows], l, head)
		for i, s := range scores[at:min(at+pageRows, n)] {
			addScaled(out, values[i*d:][:d], s/sum)
		}
	}
}

// addScaled is y += w·x.
func addScaled(y, x []float32, w float32) {
	y = y[:len(x)]
	i := 0
	for ; i+4 <= len(x); i += 4 {
		y[i] += w * x[i]
		y[i+1] += w * x[i+1]
		y[i+2] += w * x[i+2]
		y[i+3] += w * x[i+3]
	}
	for ; i < len(x); i++ {
		y[i] += w * x[i]
	}
}

// dot is the inner product, in four sums so that the additions overlap.
func dot(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	b = b[:len(a)]
	i := 0
	for ; i+4 <= len(a); i += 4 {
		s0 += a[i] * b[i]
		s1 += a[i+1] * b[i+1]
		s2 += a[i+2] * b[i+2]
		s3 += a[i+3] * b[i+3]
	}
	for ; i < len(a); i++ {
		s0 += a[i] * b[i]
	}
	return (s0 + s1) + (s2 + s3)
}
