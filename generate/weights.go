package generate

import (
	"fmt"

	"promptgen/internal/decode"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model"
)

// weights are a model's parameters as decoding reads them: matrices packed in
// the dtype of the engine, vectors and positions copied. Nothing of where they
// came from stays in use: a look at a mapped file may bring 2 MB around it into
// memory, and 100 vectors would bring most of the file.
type weights struct {
	wte, head  *decode.Matrix // [n_embd, vocab]; one and the same if the head is tied
	wpe        []float32      // [n_positions, n_embd]
	blocks     []blockWeights
	gain, bias []float32 // the last norm
	mem        *decode.Memory
}

type blockWeights struct {
	attn, proj, fc, out     *decode.Matrix // [in, out]
	attnB, projB, fcB, outB []float32
	gain1, bias1            []float32
	gain2, bias2            []float32
}

// packWeights packs a source's weights for products in d. A value that is not
// finite is an error that names its tensor.
func packWeights(u *decode.Unit, src Source, d kernel.DType, lent [][]float32) (*weights, error) {
	if err := checkDType(d); err != nil {
		return nil, err
	}
	c, untied := src.Config()
	e, in := c.NEmbd, c.Inner()
	if block := decode.BlockLen; (d == kernel.Q8_0 || d == kernel.Q4_0) && (e%block != 0 || in%block != 0) {
		return nil, fault.Usage("%v stores weights in blocks of %d, and the model's n_embd (%d) and n_inner (%d) are no multiples of it: use bf16", d, block, e, in)
	}
	w := &weights{blocks: make([]blockWeights, c.NLayer), mem: decode.NewMemory(weightSizes(c, untied, d), lent)}
	p := &packer{u: u, src: src, dtype: d, mem: w.mem}
	w.wte = p.matrix(embeddingName, e, c.VocabSize)
	w.head = w.wte
	w.wpe = p.vector(positionsName, c.NPositions*e)
	for l := range w.blocks {
		at := fmt.Sprintf("transformer.h.%d.", l)
		w.blocks[l] = blockWeights{
			gain1: p.vector(at+"ln_1.weight", e), bias1: p.vector(at+"ln_1.bias", e),
			attn: p.matrix(at+"attn.c_attn.weight", e, 3*e), attnB: p.vector(at+"attn.c_attn.bias", 3*e),
			proj: p.matrix(at+"attn.c_proj.weight", e, e), projB: p.vector(at+"attn.c_proj.bias", e),
			gain2: p.vector(at+"ln_2.weight", e), bias2: p.vector(at+"ln_2.bias", e),
			fc: p.matrix(at+"mlp.c_fc.weight", e, in), fcB: p.vector(at+"mlp.c_fc.bias", in),
			out: p.matrix(at+"mlp.c_proj.weight", in, e), outB: p.vector(at+"mlp.c_proj.bias", e),
		}
	}
	w.gain, w.bias = p.vector("transformer.ln_f.weight", e), p.vector("transformer.ln_f.bias", e)
	if untied {
		w.head = p.matrix(headName, e, c.VocabSize)
	}
	if p.err != nil {
		w.free()
		return nil, p.err
	}
	return w, nil
}

// checkDType refuses what weights cannot be packed in.
func checkDType(d kernel.DType) error {
	if d == kernel.FP16 || d > kernel.Q4_0 {
		return fault.Usage("dtype %v is not one that this engine computes in: use fp32, bf16, q8_0 or q4_0", d)
	}
	return nil
}

// weightSizes is the memory that a model's packed weights take, in the order in
// which packWeights packs them.
func weightSizes(c model.Config, untied bool, d kernel.DType) []int {
	var sizes []int
	for _, t := range c.Tensors(untied) {
		switch {
		case len(t.Shape) == 1 || t.Name == positionsName:
			sizes = append(sizes, decode.FloatBytes(t.Len()))
		case ofTokens(t.Name):
			sizes = append(sizes, decode.PackedBytes(d, t.Shape[1], t.Shape[0]))
		default:
			sizes = append(sizes, decode.PackedBytes(d, t.Shape[0], t.Shape[1]))
		}
	}
	return sizes
}

// packer reads tensors until the first error, which stays.
type packer struct {
	u     *decode.Unit
	src   Source
	dtype kernel.DType
	mem   *decode.Memory
	err   error
}

func (p *packer) vector(name string, n int) []float32 {
	if p.err != nil {
		return nil
	}
	v, err := p.src.Vector(name)
	switch i := notFinite(v); {
	case err != nil:
	case len(v) != n:
		err = fmt.Errorf("has %d values, and the model's shape asks for %d", len(v), n)
	case i >= 0:
		err = fmt.Errorf("value %d is not finite", i)
	}
	p.fail(name, err)
	if p.err != nil {
		return nil
	}
	own := p.mem.Floats(n)
	copy(own, v)
	p.src.Done(name)
	return own
}

func (p *packer) matrix(name string, k, n int) *decode.Matrix {
	if p.err != nil {
		return nil
	}
	m, err := p.u.Pack(p.mem, p.dtype, k, n, p.src.Parts(name, k, n, p.dtype, p.u.CPU().Threads()))
	p.fail(name, err)
	p.src.Done(name)
	return m
}

func (p *packer) fail(name string, err error) {
	if err != nil && p.err == nil {
		p.err = fault.Corrupt("tensor %s: %w; the weights are damaged, copy the model again or take another one", name, err)
	}
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
func (w *weights) free() { w.mem.Free() }

// bytes is what a step reads of the weights.
func (w *weights) bytes() int {
	n := w.head.Bytes()
	for _, b := range w.blocks {
		n += b.attn.Bytes() + b.proj.Bytes() + b.fc.Bytes() + b.out.Bytes()
	}
	return n
}
