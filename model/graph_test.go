package model_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"promptgen/internal/fault"
	"promptgen/internal/testkit"
	"promptgen/model"
)

// tiny is a config whose sizes are all different and none a round number.
func tiny(dropout float64) model.Config {
	return model.Config{
		VocabSize: 37, NPositions: 11, NCtx: 9, NEmbd: 12, NHead: 3, NLayer: 2, NInner: 20,
		LayerNormEpsilon: 1e-5, InitializerRange: 0.3,
		EmbdDrop: dropout, AttnDrop: dropout, ResidDrop: dropout,
	}
}

// randomParams have no gain of 1 and no bias of 0, so that each one matters.
func randomParams(c model.Config, untied bool, seed uint64) *model.Params {
	p := model.NewParams(c, untied)
	p.Init(seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for _, t := range p.Tensors {
		if len(t.Shape) == 1 {
			for i := range t.Data {
				t.Data[i] += 0.2 * float32(r.NormFloat64())
			}
		}
	}
	return p
}

func randomIDs(n, vocab int, seed uint64) []int32 {
	r := rand.New(rand.NewPCG(seed, 2))
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(r.IntN(vocab))
	}
	return ids
}

// gradients runs an effective batch in micro-batches of so many sequences.
func gradients(t testing.TB, g *model.Graph, ids []int32, seqLen, micro int, key model.DropKey) float64 {
	t.Helper()
	g.ZeroGrads()
	sum := 0.0
	for at := 0; at < len(ids); at += micro * seqLen {
		key.Seq0 = at / seqLen
		part := ids[at:min(at+micro*seqLen, len(ids))]
		targets := shifted(part, seqLen)
		for i := range targets { // tokens without a target stand anywhere, and a whole sequence may have none
			if n := at + i; n%7 == 3 || n/seqLen == 1 && len(ids) > 2*seqLen {
				targets[i] = -1
			}
		}
		loss, err := g.Step(part, targets, 1/float32(len(ids)-len(ids)/seqLen), key)
		if err != nil {
			t.Fatal(err)
		}
		sum += loss
	}
	return sum
}

// The gradient is the slope of the loss: for each tensor, along a random
// direction, for every activation, tied and untied, with dropout on.
func TestGradientsAgainstFiniteDifferences(t *testing.T) {
	for _, act := range []model.Activation{model.GELUNew, model.GELU, model.ReLU} {
		for _, untied := range []bool{false, true} {
			if untied && act != model.GELUNew {
				continue // the head knows nothing of the activation
			}
			c := tiny(0.2)
			c.Activation = act
			const batch, seqLen = 3, 9
			p := randomParams(c, untied, 5)
			if act == model.ReLU { // keep away from the kink, where there is no slope
				for _, b := range p.Blocks {
					for i := range b.FcB {
						b.FcB[i] = float32(6 - 12*(i%2))
					}
				}
			}
			g := newGraph(t, newCPU(t, 1), p, model.GraphOptions{Batch: batch, SeqLen: seqLen})
			ids := randomIDs(batch*seqLen, c.VocabSize, 6)
			key := model.DropKey{Seed: 7, Step: 8}
			n := float64(batch * (seqLen - 1))
			gradients(t, g, ids, seqLen, batch, key)
			grads := model.NewParams(c, untied)
			for i, tensor := range g.Grads().Tensors {
				copy(grads.Tensors[i].Data, tensor.Data)
			}
			r := rand.New(rand.NewPCG(9, 9))
			for i, tensor := range p.Tensors {
				before := append([]float32{}, tensor.Data...)
				dir := make([]float64, len(before))
				slope, size := 0.0, 0.0
				for j := range dir {
					dir[j] = r.NormFloat64()
					slope += dir[j] * float64(grads.Tensors[i].Data[j])
					size += dir[j] * dir[j] * float64(grads.Tensors[i].Data[j]) * float64(grads.Tensors[i].Data[j])
				}
				const h = 2e-3
				at := func(step float64) float64 {
					for j := range before {
						tensor.Data[j] = before[j] + float32(step*dir[j])
					}
					return gradients(t, g, ids, seqLen, batch, key) / n
				}
				// Richardson's extrapolation takes the cubic term out.
				d1 := (at(h) - at(-h)) / (2 * h)
				d2 := (at(2*h) - at(-2*h)) / (4 * h)
				got := (4*d1 - d2) / 3
				copy(tensor.Data, before)
				if limit := 2e-3*math.Sqrt(size) + 3e-4; math.Abs(got-slope) > limit {
					t.Errorf("%s untied %v: %s: slope %.6f, differences say %.6f (limit %.6f)", act, untied, tensor.Name, slope, got, limit)
				}
			}
		}
	}
}

// ways are ways to take one and the same step.
var ways = []way{
	{8, 1, 0, 0, false}, {1, 1, 0, 0, false}, {8, 3, 0, 0, false}, {3, 2, 0, 0, true},
	{5, 4, model.RecomputeSublayers, 0, false}, {1, 2, model.RecomputeSublayers, 1, true},
	{8, 2, model.RecomputeLayers, 0, false}, {3, 1, model.RecomputeLayers, 1, true},
}

type way struct {
	micro, threads int
	recompute      model.Recompute
	last           int
	store          bool
}

func (w way) options(seqs, seqLen int, bf16 bool) model.GraphOptions {
	return model.GraphOptions{Batch: w.micro, Sequences: seqs, SeqLen: seqLen, BF16: bf16,
		Recompute: w.recompute, RecomputeLast: w.last, StoreBF16: w.store}
}

func sameBits(t *testing.T, at string, got, want []model.Tensor) {
	t.Helper()
	for i, tensor := range got {
		if d := testkit.MaxDiff(tensor.Data, want[i].Data); d != 0 {
			t.Errorf("%s: %s differs by %g", at, tensor.Name, d)
		}
	}
}

// Gradients do not depend, to the bit, on how the effective batch is cut, on
// the number of threads, on recomputing, or on what is kept in bf16; dropout
// included.
func TestStepIndependentOfMicroBatchThreadsAndRecompute(t *testing.T) {
	c := tiny(0.15)
	const seqs, seqLen = 8, 9
	ids := randomIDs(seqs*seqLen, c.VocabSize, 3)
	key := model.DropKey{Seed: 1, Step: 2}
	for _, untied := range []bool{false, true} {
		for _, bf16 := range []bool{false, true} {
			p := randomParams(c, untied, 4)
			var first []model.Tensor
			var firstLoss float64
			for _, v := range ways {
				g := newGraph(t, newCPU(t, v.threads), p, v.options(seqs, seqLen, bf16))
				loss := gradients(t, g, ids, seqLen, v.micro, key)
				loss2 := gradients(t, g, ids, seqLen, v.micro, key) // nothing is left over from before
				if loss != loss2 {
					t.Errorf("%+v: loss %v, then %v", v, loss, loss2)
				}
				got := g.Grads().Tensors
				if first == nil {
					first, firstLoss = got, loss
					continue
				}
				if loss != firstLoss {
					t.Errorf("%+v: loss %v, want %v", v, loss, firstLoss)
				}
				sameBits(t, fmt.Sprintf("bf16 %v %+v", bf16, v), got, first)
			}
		}
	}
}

// Dropout changes the loss of training, differs from step to step, and is off
// in evaluation.
func TestDropoutOnlyInTraining(t *testing.T) {
	const seqLen = 9
	p := randomParams(tiny(0.3), false, 1)
	plain := model.ParamsFrom(tiny(0), false, dataOf(p))
	ids := randomIDs(2*seqLen, 37, 2)
	cpu := newCPU(t, 2)
	g := newGraph(t, cpu, p, model.GraphOptions{Batch: 2, SeqLen: seqLen})
	g0 := newGraph(t, cpu, plain, model.GraphOptions{Batch: 2, SeqLen: seqLen, ForwardOnly: true})

	a := gradients(t, g, ids, seqLen, 2, model.DropKey{Step: 1})
	b := gradients(t, g, ids, seqLen, 2, model.DropKey{Step: 2})
	eval, n, err := g.Eval(ids, shifted(ids, seqLen))
	if err != nil {
		t.Fatal(err)
	}
	want, _, err := g0.Eval(ids, shifted(ids, seqLen))
	if err != nil {
		t.Fatal(err)
	}
	if n != 2*(seqLen-1) {
		t.Errorf("%d targets", n)
	}
	if a == b || a == eval || eval != want {
		t.Errorf("losses: step 1 %v, step 2 %v, evaluation %v, without dropout %v", a, b, eval, want)
	}
}

func dataOf(p *model.Params) [][]float32 {
	var all [][]float32
	for _, t := range p.Tensors {
		all = append(all, t.Data)
	}
	return all
}

// What does not fit the graph is refused with a line, never a panic.
func TestStepRefusesBadBatches(t *testing.T) {
	p := randomParams(tiny(0), false, 1)
	g := newGraph(t, newCPU(t, 1), p, model.GraphOptions{Batch: 2, SeqLen: 4, Sequences: 2})
	ok := []int32{1, 2, 3, 4}
	for name, in := range map[string][2][]int32{
		"nothing":            {nil, nil},
		"a broken sequence":  {ok[:3], ok[:3]},
		"too many sequences": {make([]int32, 12), make([]int32, 12)},
		"fewer targets":      {ok, ok[:3]},
		"an id too large":    {{1, 2, 3, 37}, ok},
		"a negative id":      {{1, 2, 3, -1}, ok},
		"a target too large": {ok, {1, 2, 3, 37}},
	} {
		if _, err := g.Step(in[0], in[1], 1, model.DropKey{}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := g.Step([]int32{1, 2, 3, 37}, ok, 1, model.DropKey{}); fault.Code(err) != fault.CodeCorrupt {
		t.Errorf("foreign id: %v", err)
	}
	if _, err := g.Step(ok, ok, 1, model.DropKey{}); err != nil {
		t.Errorf("after refusals: %v", err)
	}
	if _, err := model.NewGraph(newCPU(t, 1), p, model.GraphOptions{Batch: 0, SeqLen: 99}); err == nil {
		t.Error("a graph of no batch was made")
	}
}

// Recomputing and forward-only graphs need less memory.
func TestBuffersTable(t *testing.T) {
	c := tiny(0)
	o := model.GraphOptions{Batch: 4, SeqLen: 9}
	all := model.Bytes(model.Buffers(c, false, o))
	o.Recompute = model.RecomputeSublayers
	less := model.Bytes(model.Buffers(c, false, o))
	o.Recompute = model.RecomputeLayers
	layers := model.Bytes(model.Buffers(model.Config{VocabSize: 37, NPositions: 9, NCtx: 9, NEmbd: 12, NHead: 3, NLayer: 40}, false, o))
	o.Recompute = model.RecomputeSublayers
	if more := model.Bytes(model.Buffers(model.Config{VocabSize: 37, NPositions: 9, NCtx: 9, NEmbd: 12, NHead: 3, NLayer: 40}, false, o)); layers >= more {
		t.Errorf("recomputing layers takes %d bytes, sublayers %d", layers, more)
	}
	o.ForwardOnly = true
	least := model.Bytes(model.Buffers(c, false, o))
	if !(least < less && less < all) {
		t.Errorf("%d bytes, recomputing %d, forward only %d", all, less, least)
	}
}

// benchConfig is the "test" preset of the original, its vocabulary cut.
func benchConfig() model.Config {
	return model.Config{VocabSize: 4000, NPositions: 64, NCtx: 64, NEmbd: 128, NHead: 2, NLayer: 2,
		LayerNormEpsilon: 1e-5, InitializerRange: 0.02, EmbdDrop: 0.1, AttnDrop: 0.1, ResidDrop: 0.1}
}

// Gradients that are forgotten are zero, whether or not a step follows.
func TestZeroGrads(t *testing.T) {
	c := tiny(0)
	for _, untied := range []bool{false, true} {
		g := newGraph(t, newCPU(t, 2), randomParams(c, untied, 1), model.GraphOptions{Batch: 2, SeqLen: c.NCtx})
		ids := randomIDs(2*c.NCtx, c.VocabSize, 1)
		if _, err := g.Step(ids, shifted(ids, c.NCtx), 1, model.DropKey{}); err != nil {
			t.Fatal(err)
		}
		g.ZeroGrads()
		for _, tensor := range g.Grads().Tensors {
			if i := slices.IndexFunc(tensor.Data, func(x float32) bool { return x != 0 }); i >= 0 {
				t.Errorf("untied %v: %s[%d] is %g after ZeroGrads", untied, tensor.Name, i, tensor.Data[i])
			}
		}
	}
}

// A step that was skipped, all NaN, leaves nothing in the next one.
func TestZeroGradsAfterNaN(t *testing.T) {
	c := tiny(0)
	ids := randomIDs(2*c.NCtx, c.VocabSize, 1)
	for _, untied := range []bool{false, true} {
		p := randomParams(c, untied, 1)
		o := model.GraphOptions{Batch: 2, SeqLen: c.NCtx}
		fresh := newGraph(t, newCPU(t, 2), p, o)
		want := gradients(t, fresh, ids, c.NCtx, 2, model.DropKey{})
		g := newGraph(t, newCPU(t, 2), p, o)
		clean := p.LNFGain[0]
		p.LNFGain[0] = float32(math.NaN())
		if bad := gradients(t, g, ids, c.NCtx, 2, model.DropKey{}); !math.IsNaN(bad) {
			t.Fatalf("the loss is %g", bad)
		}
		p.LNFGain[0] = clean
		if got := gradients(t, g, ids, c.NCtx, 2, model.DropKey{}); got != want {
			t.Errorf("untied %v: the loss is %g, not %g", untied, got, want)
		}
		sameBits(t, fmt.Sprintf("untied %v", untied), g.Grads().Tensors, fresh.Grads().Tensors)
	}
}

// What is spare between two steps may be overwritten, and only what a step looks
// at before it writes it is not: the gradients stay the same to the bit.
func TestSpareMeansNothing(t *testing.T) {
	c := tiny(0.1)
	ids := randomIDs(2*c.NCtx, c.VocabSize, 1)
	for _, o := range []model.GraphOptions{
		{}, {BF16: true, StoreBF16: true}, {Recompute: model.RecomputeLayers},
		{Trainable: model.Trainable{Freeze: []string{"wte", "h.0"}}},
	} {
		o.Batch, o.SeqLen = 2, c.NCtx
		g := newGraph(t, newCPU(t, 2), randomParams(c, false, 1), o)
		var want []model.Tensor
		for range 3 {
			gradients(t, g, ids, c.NCtx, 2, model.DropKey{Seed: 1})
			got := g.Grads().Tensors
			if want == nil {
				for _, tensor := range got {
					tensor.Data = slices.Clone(tensor.Data)
					want = append(want, tensor)
				}
			}
			sameBits(t, fmt.Sprintf("%+v", o), got, want)
			bytes := 0
			for i, piece := range g.Spare() {
				for j := range piece {
					piece[j] = float32(math.NaN())
				}
				bytes += 4 * len(piece)
				if n := model.SpareBytes(model.Buffers(c, false, o))[i]; n != 4*len(piece) {
					t.Errorf("%+v: piece %d has %d bytes, planned are %d", o, i, 4*len(piece), n)
				}
			}
			if all := model.Bytes(model.Buffers(c, false, o)); int64(bytes) < all/2 {
				t.Errorf("%+v: only %d of %d bytes are spare", o, bytes, all)
			}
		}
	}
}

// A steady step allocates next to nothing: what remains is the machine's own
// bookkeeping, a few small objects a node.
func TestStepAllocations(t *testing.T) {
	c := tiny(0.1)
	g := newGraph(t, newCPU(t, 2), randomParams(c, false, 1), model.GraphOptions{Batch: 2, SeqLen: c.NCtx})
	ids := randomIDs(2*c.NCtx, c.VocabSize, 1)
	targets := shifted(ids, c.NCtx)
	step := func() {
		g.ZeroGrads()
		if _, err := g.Step(ids, targets, 1, model.DropKey{}); err != nil {
			t.Fatal(err)
		}
		g.ValueGrads()
	}
	step()
	if n := testing.AllocsPerRun(5, step); n > 400 {
		t.Errorf("%v allocations a step", n)
	} else {
		t.Logf("%v allocations a step", n)
	}
}

func BenchmarkStep(b *testing.B) {
	c := benchConfig()
	const batch = 8
	g := newGraph(b, newCPU(b, 0), randomParams(c, false, 1), model.GraphOptions{Batch: batch, SeqLen: c.NCtx})
	ids := randomIDs(batch*c.NCtx, c.VocabSize, 1)
	targets := shifted(ids, c.NCtx)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		g.ZeroGrads()
		if _, err := g.Step(ids, targets, 1, model.DropKey{}); err != nil {
			b.Fatal(err)
		}
		g.ValueGrads()
	}
	b.ReportMetric(float64(b.N*len(ids))/b.Elapsed().Seconds(), "tokens/s")
}
