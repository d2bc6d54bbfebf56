package generate

import (
	"fmt"

	"promptgen/internal/decode"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model"
	"promptgen/model/checkpoint/blob"
)

// weights are a model's parameters as decoding reads them: matrices packed in
// the dtype of the engine, vectors and positions as they were.
type weights struct {
	wte, head  *decode.Matrix // [n_embd, vocab]; one and the same if the head is tied
	wpe        []float32      // [n_positions, n_embd]
	blocks     []blockWeights
	gain, bias []float32 // the last norm
}

type blockWeights struct {
	*model.Block                       // vectors
	attn, proj, fc, out *decode.Matrix // [in, out]
}

// packWeights packs p for products in d. A matrix with a value that is not
// finite is an error that names it.
func packWeights(u *decode.Unit, p *model.Params, d kernel.DType) (_ *weights, err error) {
	enc, ok := blob.Named(d.String())
	if !ok || d == kernel.FP16 {
		return nil, fault.Usage("dtype %v is not one that this engine computes in: use fp32, bf16, q8_0 or q4_0", d)
	}
	w := &weights{wpe: p.WPE, gain: p.LNFGain, bias: p.LNFBias}
	defer func() {
		if err != nil {
			w.free()
		}
	}()
	pack := func(name string, data []float32, k, n int, byColumn bool) *decode.Matrix {
		if err != nil {
			return nil
		}
		s := &columns{data: data, k: k, n: n, byColumn: byColumn, enc: enc, per: make([]columnBuffer, u.CPU().Threads())}
		var m *decode.Matrix
		if m, err = u.Pack(d, k, n, s.read); err != nil {
			err = fault.Corrupt("%s: %w", name, err)
		}
		return m
	}
	c := &p.Config
	e, in := c.NEmbd, c.Inner()
	if block := int(blob.QBlock); (d == kernel.Q8_0 || d == kernel.Q4_0) && (e%block != 0 || in%block != 0) {
		return nil, fault.Usage("%v stores weights in blocks of %d, and the model's n_embd (%d) and n_inner (%d) are no multiples of it: use bf16", d, block, e, in)
	}
	if err = finiteVectors(p); err != nil {
		return nil, err
	}
	w.wte = pack("transformer.wte.weight", p.WTE, e, c.VocabSize, true)
	w.head = w.wte
	if !p.HeadTied {
		w.head = pack("lm_head.weight", p.Head, e, c.VocabSize, true)
	}
	for l := range p.Blocks {
		b, at := &p.Blocks[l], fmt.Sprintf("transformer.h.%d.", l)
		w.blocks = append(w.blocks, blockWeights{
			Block: b,
			attn:  pack(at+"attn.c_attn.weight", b.AttnW, e, 3*e, false),
			proj:  pack(at+"attn.c_proj.weight", b.ProjW, e, e, false),
			fc:    pack(at+"mlp.c_fc.weight", b.FcW, e, in, false),
			out:   pack(at+"mlp.c_proj.weight", b.OutW, in, e, false),
		})
	}
	return w, err
}

// finiteVectors looks for a value that is not finite in what is not packed.
func finiteVectors(p *model.Params) error {
	for _, t := range p.Tensors {
		if len(t.Shape) == 2 && t.Name != "transformer.wpe.weight" {
			continue
		}
		if i := notFinite(t.Data); i >= 0 {
			return fault.Corrupt("%s: value %d is not finite", t.Name, i)
		}
	}
	return nil
}

// notFinite is the index of the first value that is NaN or infinite, or -1.
func notFinite(x []float32) int {
	for i, v := range x {
		if v-v != 0 {
			return i
		}
	}
	return -1
}

// free gives the packed matrices' memory back.
func (w *weights) free() {
	drop := func(m *decode.Matrix) {
		if m != nil {
			m.Free()
		}
	}
	if w.head != w.wte {
		drop(w.head)
	}
	drop(w.wte)
	for _, b := range w.blocks {
		drop(b.attn)
		drop(b.proj)
		drop(b.fc)
		drop(b.out)
	}
}

// bytes is what a step reads of the weights.
func (w *weights) bytes() int {
	n := w.head.Bytes()
	for _, b := range w.blocks {
		n += b.attn.Bytes() + b.proj.Bytes() + b.fc.Bytes() + b.out.Bytes()
	}
	return n
}

// columns reads the columns of a float32 matrix, stored [k, n] or, byColumn,
// [n, k], and encodes them.
type columns struct {
	data     []float32
	k, n     int
	byColumn bool
	enc      blob.DType
	per      []columnBuffer // of each worker
}

type columnBuffer struct {
	floats []float32
	bytes  []byte
	cols   [][]byte
}

func (s *columns) read(worker, lo, hi int) ([][]byte, error) {
	b := &s.per[worker]
	b.bytes, b.cols = b.bytes[:0], b.cols[:0]
	floats := s.gather(b, lo, hi)
	if i := notFinite(floats); i >= 0 {
		return nil, fmt.Errorf("value %d of column %d is not finite", i%s.k, lo+i/s.k)
	}
	b.bytes = blob.Encode(b.bytes, s.enc, floats)
	size := len(b.bytes) / (hi - lo)
	for j := range hi - lo {
		b.cols = append(b.cols, b.bytes[j*size:(j+1)*size])
	}
	return b.cols, nil
}

// gather is columns [lo,hi), one after another.
func (s *columns) gather(b *columnBuffer, lo, hi int) []float32 {
	if s.byColumn {
		return s.data[lo*s.k : hi*s.k]
	}
	if len(b.floats) < (hi-lo)*s.k {
		b.floats = make([]float32, (hi-lo)*s.k)
	}
	f := b.floats[:(hi-lo)*s.k]
	for k := range s.k {
		for j, v := range s.data[k*s.n+lo : k*s.n+hi] {
			f[j*s.k+k] = v
		}
	}
	return f
}
