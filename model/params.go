package model

import (
	"math"
	"math/rand/v2"
	"strconv"

	"promptgen/internal/kernel"
)

// TensorSpec names one parameter and its shape.
type TensorSpec struct {
	Name  string // Hugging Face's name: transformer.h.0.attn.c_attn.weight
	Shape []int  // row-major; matrices are [in, out] (Conv1D)
}

// Len is the number of elements.
func (s TensorSpec) Len() int {
	n := 1
	for _, d := range s.Shape {
		n *= d
	}
	return n
}

// Tensors lists the parameters of a config in their one order: the order of
// the files, of the optimizer's state and of the gradient norm's sum. The tied
// head is not in it; untied adds lm_head.weight [vocab, n_embd] at the end.
func (c Config) Tensors(untied bool) []TensorSpec {
	e, in := c.NEmbd, c.Inner()
	specs := []TensorSpec{
		{"transformer.wte.weight", []int{c.VocabSize, e}},
		{"transformer.wpe.weight", []int{c.NPositions, e}},
	}
	for l := range c.NLayer {
		p := "transformer.h." + strconv.Itoa(l) + "."
		specs = append(specs,
			TensorSpec{p + "ln_1.weight", []int{e}},
			TensorSpec{p + "ln_1.bias", []int{e}},
			TensorSpec{p + "attn.c_attn.weight", []int{e, 3 * e}},
			TensorSpec{p + "attn.c_attn.bias", []int{3 * e}},
			TensorSpec{p + "attn.c_proj.weight", []int{e, e}},
			TensorSpec{p + "attn.c_proj.bias", []int{e}},
			TensorSpec{p + "ln_2.weight", []int{e}},
			TensorSpec{p + "ln_2.bias", []int{e}},
			TensorSpec{p + "mlp.c_fc.weight", []int{e, in}},
			TensorSpec{p + "mlp.c_fc.bias", []int{in}},
			TensorSpec{p + "mlp.c_proj.weight", []int{in, e}},
			TensorSpec{p + "mlp.c_proj.bias", []int{e}},
		)
	}
	specs = append(specs,
		TensorSpec{"transformer.ln_f.weight", []int{e}},
		TensorSpec{"transformer.ln_f.bias", []int{e}},
	)
	if untied {
		specs = append(specs, TensorSpec{"lm_head.weight", []int{c.VocabSize, e}})
	}
	return specs
}

// NumParams is the number of parameters of the tied model.
func (c Config) NumParams() int64 {
	count := func(layers int) (n int64) {
		c := c
		c.NLayer = layers
		for _, s := range c.Tensors(false) {
			n += int64(s.Len())
		}
		return n
	}
	none := count(0) // all layers are alike
	return none + int64(c.NLayer)*(count(1)-none)
}

// Tensor is one parameter (or its gradient, or one of its moments) in memory.
type Tensor struct {
	TensorSpec
	Data []float32 // row-major, Len() elements
}

// Block holds the parameters of one layer.
type Block struct {
	LN1Gain, LN1Bias []float32 // [n_embd]
	AttnW, AttnB     []float32 // c_attn: [n_embd, 3*n_embd], [3*n_embd]
	ProjW, ProjB     []float32 // attn.c_proj: [n_embd, n_embd], [n_embd]
	LN2Gain, LN2Bias []float32 // [n_embd]
	FcW, FcB         []float32 // mlp.c_fc: [n_embd, n_inner], [n_inner]
	OutW, OutB       []float32 // mlp.c_proj: [n_inner, n_embd], [n_embd]

	AttnLow, ProjLow, FcLow, OutLow LowRank // the matrices' adapters
}

// Params are the weights of a model, or anything that has their shape: their
// gradients, their moments. One arena holds all of them; Tensors and the named
// fields are views of it.
type Params struct {
	Config  Config
	LoRA    LoRA     // the adapters there are
	Tensors []Tensor // in the order of Config.Tensors, then those of LoRA.Tensors

	WTE      []float32 // token embedding [vocab, n_embd]
	WPE      []float32 // position embedding [n_positions, n_embd]
	Blocks   []Block   // [n_layer]
	LNFGain  []float32 // final LayerNorm [n_embd]
	LNFBias  []float32
	Head     []float32 // the head [vocab, n_embd]: WTE itself unless untied
	HeadTied bool
}

// NewParams allocates zeroed parameters for a checked config.
func NewParams(c Config, untied bool) *Params {
	n := 0
	for _, s := range c.Tensors(untied) {
		n += s.Len()
	}
	return ParamsOver(c, untied, kernel.Alloc(n))
}

// ParamsOver lays parameters over an arena of the caller's, whose length is the
// sum of the tensors' lengths.
func ParamsOver(c Config, untied bool, arena []float32) *Params {
	specs := c.Tensors(untied)
	data := make([][]float32, len(specs))
	for i, s := range specs {
		n := s.Len()
		data[i], arena = arena[:n:n], arena[n:]
	}
	return ParamsFrom(c, untied, data)
}

// ParamsFrom makes parameters of slices that lie anywhere (a mapped file), one
// for each of Config.Tensors, each of the right length.
func ParamsFrom(c Config, untied bool, data [][]float32) *Params {
	return paramsFrom(c, untied, LoRA{}, data)
}

func paramsFrom(c Config, untied bool, lora LoRA, data [][]float32) *Params {
	specs := append(c.Tensors(untied), lora.Tensors(c)...)
	p := &Params{Config: c, LoRA: lora, Tensors: make([]Tensor, len(specs)), HeadTied: !untied}
	for i, s := range specs {
		p.Tensors[i] = Tensor{s, data[i]}
	}
	next := func() []float32 {
		d := data[0]
		data = data[1:]
		return d
	}
	p.WTE, p.WPE = next(), next()
	p.Blocks = make([]Block, c.NLayer)
	for l := range p.Blocks {
		b := &p.Blocks[l]
		for _, f := range []*[]float32{
			&b.LN1Gain, &b.LN1Bias, &b.AttnW, &b.AttnB, &b.ProjW, &b.ProjB,
			&b.LN2Gain, &b.LN2Bias, &b.FcW, &b.FcB, &b.OutW, &b.OutB,
		} {
			*f = next()
		}
	}
	p.LNFGain, p.LNFBias = next(), next()
	p.Head = p.WTE
	if untied {
		p.Head = next()
	}
	for l := range p.Blocks {
		b, matrices := &p.Blocks[l], [...]string{"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}
		for i, low := range []*LowRank{&b.AttnLow, &b.ProjLow, &b.FcLow, &b.OutLow} {
			if lora.Adapts(TensorSpec{"transformer.h." + strconv.Itoa(l) + "." + matrices[i] + ".weight", make([]int, 2)}) {
				low.A, low.B = next(), next()
			}
		}
	}
	return p
}

// Init draws the weights as GPT-2 does: matrices and embeddings from a normal
// distribution of standard deviation initializer_range, gains 1, biases 0. The
// same seed gives the same weights.
func (p *Params) Init(seed uint64) {
	std := float32(p.Config.InitializerRange)
	for i, t := range p.Tensors {
		switch {
		case len(t.Shape) == 2:
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for j := range t.Data {
				t.Data[j] = std * float32(math.Max(-6, math.Min(6, r.NormFloat64())))
			}
		case len(t.Name) > 7 && t.Name[len(t.Name)-7:] == ".weight": // LayerNorm gain
			for j := range t.Data {
				t.Data[j] = 1
			}
		default:
			clear(t.Data)
		}
	}
}
