package model_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/internal/testkit"
	"promptgen/model"
)

// adapted are parameters with adapters whose B is not zero.
func adapted(c model.Config, untied bool, l model.LoRA, seed uint64) *model.Params {
	p := randomParams(c, untied, seed)
	p = p.Adapt(l, make([]float32, l.Len(c)))
	p.InitAdapters(seed)
	r := rand.New(rand.NewPCG(seed, 3))
	for i, t := range p.Adapters() {
		for j := range t.Data {
			if i%2 == 1 {
				t.Data[j] = 0.3 * float32(r.NormFloat64())
			}
		}
	}
	return p
}

// adapters of rank r on all matrices.
func adapters(r int, dropout float64) model.LoRA {
	return model.LoRA{Rank: r, Alpha: 2 * float64(r), Dropout: dropout, Targets: model.DefaultTargets()}
}

func trainOnly(l model.LoRA) model.Trainable { return model.Trainable{LoRA: l} }

// The adapters' gradient is the slope of the loss, with dropout on both branches,
// also where adapters of one matrix are all that is trained.
func TestAdapterGradientsAgainstFiniteDifferences(t *testing.T) {
	for _, targets := range [][]string{model.DefaultTargets(), {"c_attn"}, {"attn.c_proj"}, {"c_fc"}, {"mlp.c_proj"}} {
		t.Run(strings.Join(targets, ","), func(t *testing.T) { adapterSlopes(t, targets) })
	}
}

func adapterSlopes(t *testing.T, targets []string) {
	c := tiny(0.2)
	l := adapters(3, 0.3)
	l.Targets = targets
	const batch, seqLen = 3, 9
	p := adapted(c, false, l, 5)
	g := newGraph(t, newCPU(t, 2), p, model.GraphOptions{Batch: batch, SeqLen: seqLen, Trainable: trainOnly(l)})
	ids, key := randomIDs(batch*seqLen, c.VocabSize, 6), model.DropKey{Seed: 7, Step: 8}
	n := float64(batch * (seqLen - 1))
	gradients(t, g, ids, seqLen, batch, key)
	var grads [][]float32
	for _, tensor := range g.Grads().Adapters() {
		grads = append(grads, slices.Clone(tensor.Data))
	}
	r := rand.New(rand.NewPCG(9, 9))
	for i, tensor := range p.Adapters() {
		before, dir := slices.Clone(tensor.Data), make([]float64, len(tensor.Data))
		slope, size := 0.0, 0.0
		for j := range dir {
			dir[j] = r.NormFloat64()
			slope += dir[j] * float64(grads[i][j])
			size += math.Pow(dir[j]*float64(grads[i][j]), 2)
		}
		at := func(step float64) float64 {
			for j := range before {
				tensor.Data[j] = before[j] + float32(step*dir[j])
			}
			return gradients(t, g, ids, seqLen, batch, key) / n
		}
		const h = 2e-3
		got := (4*(at(h)-at(-h))/(2*h) - (at(2*h)-at(-2*h))/(4*h)) / 3
		copy(tensor.Data, before)
		if limit := 2e-3*math.Sqrt(size) + 3e-4; math.Abs(got-slope) > limit || size == 0 {
			t.Errorf("%s: slope %.6f, differences say %.6f (limit %.6f)", tensor.Name, slope, got, limit)
		}
	}
}

// The adapters' gradients do not depend, to the bit, on micro-batches, threads,
// recomputing, or on what is kept in bf16; nor on the other targets' being there
// for the order of additions.
func TestAdapterGradientsIndependentOfMicroBatchThreadsAndRecompute(t *testing.T) {
	c := tiny(0.15)
	const seqs, seqLen = 8, 9
	ids, key := randomIDs(seqs*seqLen, c.VocabSize, 3), model.DropKey{Seed: 1, Step: 2}
	for _, untied := range []bool{false, true} {
		for _, bf16 := range []bool{false, true} {
			for _, targets := range [][]string{model.DefaultTargets(), {"c_fc"}, {"mlp.c_proj"}, {"c_attn"}, {"attn.c_proj"}} {
				l := model.LoRA{Rank: 4, Alpha: 6, Dropout: 0.2, Targets: targets}
				p := adapted(c, untied, l, 4)
				var first []model.Tensor
				var firstLoss float64
				for _, v := range ways {
					at := fmt.Sprintf("untied %v bf16 %v %v %+v", untied, bf16, targets, v)
					o := v.options(seqs, seqLen, bf16)
					o.Trainable = trainOnly(l)
					g := newGraph(t, newCPU(t, v.threads), p, o)
					loss := gradients(t, g, ids, seqLen, v.micro, key)
					got := g.Grads().Adapters()
					if first == nil {
						first, firstLoss = got, loss
						continue
					}
					if loss != firstLoss {
						t.Errorf("%s: loss %v, want %v", at, loss, firstLoss)
					}
					sameBits(t, at, got, first)
				}
			}
		}
	}
}

// merge is p with the adapters added to copies of their matrices.
func merge(p *model.Params, cpu *kernel.CPU) *model.Params {
	var data [][]float32
	for _, tensor := range p.Tensors[:len(p.Tensors)-len(p.Adapters())] {
		tensor.Data = slices.Clone(tensor.Data)
		if low, ok := p.Adapter(tensor.Name); ok {
			low.Add(cpu, tensor, p.LoRA.Rank, p.LoRA.Scale())
		}
		data = append(data, tensor.Data)
	}
	return model.ParamsFrom(p.Config, !p.HeadTied, data)
}

// Merging gives the model that was trained, and leaves it as it is where a copy
// is asked for; adapters that were just made change nothing.
func TestMergedIsUnmerged(t *testing.T) {
	c := tiny(0)
	ids := randomIDs(3*9, c.VocabSize, 3)
	cpu := newCPU(t, 2)
	logits := func(p *model.Params) []float32 {
		out, err := newGraph(t, cpu, p, model.GraphOptions{Batch: 3, SeqLen: 9, ForwardOnly: true}).Logits(ids)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, rank := range []int{1, 4, 64} {
		l := adapters(rank, 0.5)
		l.Alpha = 2
		p := adapted(c, false, l, 8)
		var base []model.Tensor
		for _, tensor := range p.Tensors {
			base = append(base, model.Tensor{TensorSpec: tensor.TensorSpec, Data: slices.Clone(tensor.Data)})
		}
		want := logits(p)
		merged := merge(p, cpu)
		for i, tensor := range p.Tensors {
			if !slices.Equal(tensor.Data, base[i].Data) {
				t.Errorf("rank %d: merging a copy changed %s", rank, tensor.Name)
			}
		}
		if len(merged.Tensors) != len(c.Tensors(false)) || merged.LoRA.On() {
			t.Errorf("rank %d: the merged parameters are not those of a whole model", rank)
		}
		scale := 0.0
		for _, v := range want {
			scale = max(scale, math.Abs(float64(v)))
		}
		if d := testkit.MaxDiff(logits(merged), want); d > 1e-5*max(1, scale) {
			t.Errorf("rank %d: merged logits differ by %g (they reach %g)", rank, d, scale)
		}
		fresh := randomParams(c, false, 8)
		plain := logits(fresh)
		fresh = fresh.Adapt(l, make([]float32, l.Len(c)))
		fresh.InitAdapters(1)
		if d := testkit.MaxDiff(logits(fresh), plain); d != 0 {
			t.Errorf("rank %d: new adapters change the logits by %g", rank, d)
		}
		if d := testkit.MaxDiff(want, plain); d < 1e-3 {
			t.Errorf("rank %d: the adapters change nothing", rank)
		}
	}
}

// A step with adapters computes no gradient of the weights beneath and has no
// room for one.
func TestAdaptersHaveNoGradientOfTheirBase(t *testing.T) {
	c := tiny(0)
	l := adapters(2, 0)
	table := model.Buffers(c, false, model.GraphOptions{Batch: 2, SeqLen: 9, Trainable: trainOnly(l)})
	if got, want := sum(table, model.Gradients), 4*l.Len(c); got < want || got > want+64 {
		t.Errorf("%d bytes of gradients, the adapters have %d", got, want)
	}
	p := adapted(c, false, l, 1)
	g := newGraph(t, newCPU(t, 1), p, model.GraphOptions{Batch: 2, SeqLen: 9, Trainable: trainOnly(l)})
	if n := len(g.ValueGrads()); n != len(l.Tensors(c)) {
		t.Errorf("%d weights have gradients, the adapters have %d", n, len(l.Tensors(c)))
	}
}

// What adapters cannot be must be said, all of it at once.
func TestAdapterFaults(t *testing.T) {
	c := tiny(0)
	for _, v := range []struct {
		l    model.LoRA
		want []string
	}{
		{model.LoRA{Rank: -1}, []string{"lora-rank"}},
		{model.LoRA{Alpha: 3}, []string{"take a lora-rank"}},
		{model.LoRA{Rank: 2, Alpha: math.Inf(1), Dropout: 1, Targets: []string{"wte", "c_attm"}}, []string{"lora-alpha", "lora-dropout", `"wte"`, `"c_attm"`}},
		{model.LoRA{Rank: 2, Alpha: 1}, []string{"no matrix"}},
	} {
		_, err := trainOnly(v.l).Trained(c, false)
		for _, w := range v.want {
			if fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), w) {
				t.Errorf("%+v: %v (want %s)", v.l, err, w)
			}
		}
	}
	both := trainOnly(adapters(2, 0))
	both.Freeze = []string{"wte"}
	if _, err := both.Trained(c, false); err == nil {
		t.Error("freezing beside adapters is not refused")
	}
}
