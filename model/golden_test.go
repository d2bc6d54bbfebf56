package model_test

import (
	"math"
	"testing"

	"promptgen/internal/kernel"
	"promptgen/internal/testkit"
	"promptgen/model"
)

// newCPU is a kernel.CPU for a test.
func newCPU(t testing.TB, threads int) *kernel.CPU {
	t.Helper()
	cpu, err := kernel.New(kernel.Options{Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cpu.Close)
	return cpu
}

// newGraph is a graph for a test.
func newGraph(t testing.TB, cpu *kernel.CPU, p *model.Params, o model.GraphOptions) *model.Graph {
	t.Helper()
	g, err := model.NewGraph(cpu, p, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// goldenParams are the weights of a safetensors file of the golden folder.
func goldenParams(t *testing.T, file string) *model.Params {
	t.Helper()
	var c model.Config
	testkit.ReadJSON(t, &c, testkit.Golden(t), "config.json")
	p := model.NewParams(c, false)
	weights := testkit.ReadSafetensors(t, testkit.Golden(t), file)
	for _, tensor := range p.Tensors {
		if copy(tensor.Data, weights[tensor.Name].Floats) != tensor.Len() {
			t.Fatalf("%s: %s is missing or short", file, tensor.Name)
		}
	}
	return p
}

// shifted are the targets of sequences: the next token, -1 at the end.
func shifted(ids []int32, seqLen int) []int32 {
	targets := append(append([]int32{}, ids[1:]...), -1)
	for i := seqLen - 1; i < len(ids); i += seqLen {
		targets[i] = -1
	}
	return targets
}

// The forward pass, the loss, each gradient and their norm are those of
// transformers on PyTorch, with and without recomputing, at every level of the
// kernels that this machine has.
func TestGoldenForwardBackward(t *testing.T) {
	for _, isa := range kernel.ISAs() {
		t.Run(isa, func(t *testing.T) { goldenForwardBackward(t, isa) })
	}
}

func goldenForwardBackward(t *testing.T, isa string) {
	cpu, err := kernel.New(kernel.Options{ISA: isa})
	if err != nil {
		t.Fatal(err)
	}
	defer cpu.Close()
	dir := testkit.Golden(t)
	p := goldenParams(t, "model.safetensors")
	in := testkit.ReadNPY(t, dir, "inputs.npy")
	batch, seqLen := in.Shape[0], in.Shape[1]
	for _, recompute := range []model.Recompute{model.RecomputeOff, model.RecomputeSublayers} {
		g := newGraph(t, cpu, p, model.GraphOptions{Batch: batch, SeqLen: seqLen, Recompute: recompute})

		logits, err := g.Logits(in.Ints)
		if err != nil {
			t.Fatal(err)
		}
		if d := testkit.MaxDiff(logits, testkit.ReadNPY(t, dir, "logits.npy").Floats); !(d <= 1e-4) {
			t.Errorf("logits differ by %g", d)
		}

		n := batch * (seqLen - 1)
		sum, err := g.Step(in.Ints, shifted(in.Ints, seqLen), 1/float32(n), model.DropKey{})
		if err != nil {
			t.Fatal(err)
		}
		want := float64(testkit.ReadNPY(t, dir, "loss.npy").Floats[0])
		if d := math.Abs(sum/float64(n) - want); !(d <= 1e-5) {
			t.Errorf("loss %v, want %v", sum/float64(n), want)
		}
		norm := 0.0
		for _, tensor := range g.Grads().Tensors {
			ref := testkit.ReadNPY(t, dir, "grads", tensor.Name+".npy").Floats
			if d := testkit.RelDiff(tensor.Data, ref); !(d <= 1e-4) {
				t.Errorf("gradient of %s differs by %g of its largest", tensor.Name, d)
			}
			for _, v := range tensor.Data {
				norm += float64(v) * float64(v)
			}
		}
		norm = math.Sqrt(norm)
		if want := float64(testkit.ReadNPY(t, dir, "grad_norm.npy").Floats[0]); !(math.Abs(norm-want) <= 1e-5) {
			t.Errorf("gradient norm %v, want %v", norm, want)
		}
	}
}
