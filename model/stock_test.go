package model_test

import (
	"fmt"
	"math"
	"testing"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"promptgen/internal/testkit"
	"promptgen/model"
)

// stockModel builds GPT-2 of Gorgonia's stock operations alone: slow, and
// sharing nothing with the fused graph but Gorgonia itself.
type stockModel struct {
	t      *testing.T
	g      *G.ExprGraph
	c      model.Config
	batch  int
	seqLen int

	names []string // of params; c_attn is held as three matrices, name/0 to name/2
	nodes G.Nodes
}

func (s *stockModel) must(n *G.Node, err error) *G.Node {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *stockModel) param(name string, data []float32, shape ...int) *G.Node {
	v := tensor.New(tensor.WithShape(shape...), tensor.WithBacking(append([]float32{}, data...)))
	n := G.NewTensor(s.g, tensor.Float32, len(shape), G.WithShape(shape...), G.WithName(name), G.WithValue(v))
	s.names, s.nodes = append(s.names, name), append(s.nodes, n)
	return n
}

func (s *stockModel) input(name string, dt tensor.Dtype, backing any, shape ...int) *G.Node {
	return G.NewTensor(s.g, dt, len(shape), G.WithShape(shape...), G.WithName(name),
		G.WithValue(tensor.New(tensor.WithShape(shape...), tensor.WithBacking(backing))))
}

func (s *stockModel) layerNorm(x *G.Node, name string, gain, bias []float32) *G.Node {
	g, b := s.param(name+".weight", gain, len(gain)), s.param(name+".bias", bias, len(bias))
	centred := s.must(G.BroadcastSub(x, s.must(G.Mean(x, 1)), nil, []byte{1}))
	variance := s.must(G.Mean(s.must(G.Square(centred)), 1))
	std := s.must(G.Sqrt(s.must(G.Add(variance, G.NewConstant(float32(s.c.LayerNormEpsilon))))))
	y := s.must(G.BroadcastHadamardDiv(centred, std, nil, []byte{1}))
	y = s.must(G.BroadcastHadamardProd(y, g, nil, []byte{0}))
	return s.must(G.BroadcastAdd(y, b, nil, []byte{0}))
}

func (s *stockModel) linear(x *G.Node, weight, bias string, w, b []float32) *G.Node {
	out := len(b)
	wn, bn := s.param(weight, w, len(w)/out, out), s.param(bias, b, out)
	return s.must(G.BroadcastAdd(s.must(G.Mul(x, wn)), bn, nil, []byte{0}))
}

// gelu is GPT-2's, by tanh.
func (s *stockModel) gelu(x *G.Node) *G.Node {
	cube := s.must(G.HadamardProd(s.must(G.Square(x)), x))
	in := s.must(G.Add(x, s.must(G.Mul(cube, G.NewConstant(float32(0.044715))))))
	in = s.must(G.Mul(in, G.NewConstant(float32(math.Sqrt(2/math.Pi)))))
	th := s.must(G.Add(s.must(G.Tanh(in)), G.NewConstant(float32(1))))
	return s.must(G.Mul(s.must(G.HadamardProd(x, th)), G.NewConstant(float32(0.5))))
}

// heads brings [B*T, C] to [B*H, T, C/H].
func (s *stockModel) heads(x *G.Node) *G.Node {
	x = s.must(G.Reshape(x, tensor.Shape{s.batch, s.seqLen, s.c.NHead, s.c.HeadDim()}))
	x = s.must(G.Transpose(x, 0, 2, 1, 3))
	return s.must(G.Reshape(x, tensor.Shape{s.batch * s.c.NHead, s.seqLen, s.c.HeadDim()}))
}

func (s *stockModel) attention(h *G.Node, prefix string, b *model.Block, mask *G.Node) *G.Node {
	e := s.c.NEmbd
	var qkv [3]*G.Node
	for i := range qkv {
		w := make([]float32, 0, e*e)
		for r := range e {
			w = append(w, b.AttnW[r*3*e+i*e:][:e]...)
		}
		name := prefix + "attn.c_attn."
		qkv[i] = s.heads(s.linear(h, fmt.Sprintf("%sweight/%d", name, i), fmt.Sprintf("%sbias/%d", name, i), w, b.AttnB[i*e:][:e]))
	}
	att := s.must(G.BatchedMatMul(qkv[0], qkv[1], false, true))
	att = s.must(G.Mul(att, G.NewConstant(float32(1/math.Sqrt(float64(s.c.HeadDim()))))))
	att = s.must(G.SoftMax(s.must(G.BroadcastAdd(att, mask, nil, []byte{0})), 2))
	o := s.must(G.BatchedMatMul(att, qkv[2]))
	o = s.must(G.Reshape(o, tensor.Shape{s.batch, s.c.NHead, s.seqLen, s.c.HeadDim()}))
	o = s.must(G.Transpose(o, 0, 2, 1, 3))
	o = s.must(G.Reshape(o, tensor.Shape{s.batch * s.seqLen, e}))
	return s.linear(o, prefix+"attn.c_proj.weight", prefix+"attn.c_proj.bias", b.ProjW, b.ProjB)
}

// loss builds the model and its mean cross-entropy.
func (s *stockModel) loss(p *model.Params, ids, targets []int32) *G.Node {
	rows := s.batch * s.seqLen
	idsInt, pos := make([]int, rows), make([]int, rows)
	oneHot := make([]float32, rows*s.c.VocabSize)
	n := 0
	for r := range rows {
		idsInt[r], pos[r] = int(ids[r]), r%s.seqLen
		if targets[r] >= 0 {
			oneHot[r*s.c.VocabSize+int(targets[r])] = 1
			n++
		}
	}
	causal := make([]float32, s.seqLen*s.seqLen)
	for i := range s.seqLen {
		for j := i + 1; j < s.seqLen; j++ {
			causal[i*s.seqLen+j] = -1e9
		}
	}
	mask := s.input("mask", tensor.Float32, causal, 1, s.seqLen, s.seqLen)
	wte := s.param("transformer.wte.weight", p.WTE, s.c.VocabSize, s.c.NEmbd)
	wpe := s.param("transformer.wpe.weight", p.WPE, s.c.NPositions, s.c.NEmbd)
	x := s.must(G.Add(s.must(G.ByIndices(wte, s.input("ids", tensor.Int, idsInt, rows), 0)),
		s.must(G.ByIndices(wpe, s.input("pos", tensor.Int, pos, rows), 0))))
	for l := range p.Blocks {
		b, prefix := &p.Blocks[l], fmt.Sprintf("transformer.h.%d.", l)
		h := s.layerNorm(x, prefix+"ln_1", b.LN1Gain, b.LN1Bias)
		x = s.must(G.Add(x, s.attention(h, prefix, b, mask)))
		h = s.layerNorm(x, prefix+"ln_2", b.LN2Gain, b.LN2Bias)
		h = s.gelu(s.linear(h, prefix+"mlp.c_fc.weight", prefix+"mlp.c_fc.bias", b.FcW, b.FcB))
		x = s.must(G.Add(x, s.linear(h, prefix+"mlp.c_proj.weight", prefix+"mlp.c_proj.bias", b.OutW, b.OutB)))
	}
	x = s.layerNorm(x, "transformer.ln_f", p.LNFGain, p.LNFBias)
	logProbs := s.must(G.LogSoftMax(s.must(G.Mul(x, s.must(G.Transpose(wte, 1, 0)))), 1))
	sum := s.must(G.Sum(s.must(G.HadamardProd(logProbs, s.input("targets", tensor.Float32, oneHot, rows, s.c.VocabSize)))))
	return s.must(G.Mul(sum, G.NewConstant(-1/float32(n))))
}

// The fused graph and the same model built of Gorgonia's stock operations agree
// in the loss and in each gradient.
func TestGraphAgainstStockOperations(t *testing.T) {
	c := tiny(0)
	c.NInner = 0
	const batch, seqLen = 3, 7
	p := randomParams(c, false, 11)
	ids := randomIDs(batch*seqLen, c.VocabSize, 12)
	targets := shifted(ids, seqLen)

	s := &stockModel{t: t, g: G.NewGraph(), c: c, batch: batch, seqLen: seqLen}
	cost := s.loss(p, ids, targets)
	var lossValue G.Value
	G.Read(cost, &lossValue)
	if _, err := G.Grad(cost, s.nodes...); err != nil {
		t.Fatal(err)
	}
	vm := G.NewTapeMachine(s.g, G.BindDualValues(s.nodes...))
	defer vm.Close()
	if err := vm.RunAll(); err != nil {
		t.Fatal(err)
	}
	stock := map[string][]float32{}
	for i, n := range s.nodes {
		v, err := n.Grad()
		if err != nil {
			t.Fatalf("%s: %v", s.names[i], err)
		}
		stock[s.names[i]] = v.Data().([]float32)
	}

	g := newGraph(t, newCPU(t, 0), p, model.GraphOptions{Batch: batch, SeqLen: seqLen})
	sum, err := g.Step(ids, targets, 1.0/(batch*(seqLen-1)), model.DropKey{})
	if err != nil {
		t.Fatal(err)
	}
	want := float64(lossValue.Data().(float32))
	if got := sum / (batch * (seqLen - 1)); math.Abs(got-want) > 1e-5 {
		t.Errorf("loss %v, of stock operations %v", got, want)
	}
	for _, tensor := range g.Grads().Tensors {
		want, ok := stock[tensor.Name]
		if !ok { // c_attn: put its thirds side by side
			width := tensor.Shape[len(tensor.Shape)-1] / 3
			want = make([]float32, tensor.Len())
			for i := range 3 {
				third := stock[fmt.Sprintf("%s/%d", tensor.Name, i)]
				for r := range len(third) / width {
					copy(want[r*3*width+i*width:][:width], third[r*width:][:width])
				}
			}
		}
		if d := testkit.RelDiff(tensor.Data, want); !(d <= 1e-4) {
			t.Errorf("%s differs by %g of its largest", tensor.Name, d)
		}
	}
}
