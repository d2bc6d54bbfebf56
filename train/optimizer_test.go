package train_test

import (
	"math"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"promptgen/internal/kernel"
	"promptgen/model"
	"promptgen/train"
)

// fixedGrad is a parameter whose gradient is given.
type fixedGrad struct {
	model.Tensor
	grad []float32
}

func (f fixedGrad) Name() string { return f.Tensor.Name }
func (f fixedGrad) Value() gorgonia.Value {
	return tensor.New(tensor.WithShape(f.Shape...), tensor.WithBacking(f.Data))
}
func (f fixedGrad) Grad() (gorgonia.Value, error) {
	return tensor.New(tensor.WithShape(f.Shape...), tensor.WithBacking(f.grad)), nil
}

// Weight decay must be PyTorch's, on matrices alone unless all is asked for:
// torch.optim.AdamW([{w, weight_decay=0.1}, {b, weight_decay=0}], lr=0.01), then
// with 0.1 for both, five steps with gradients (1..5)*g; float32, PyTorch 1.13.
func TestWeightDecayAgainstPyTorch(t *testing.T) {
	cpu, err := kernel.New(kernel.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer cpu.Close()
	for _, c := range []struct {
		all          bool
		wantW, wantB []float32
	}{
		{false, []float32{0.44909435510635376, -1.1953519582748413, 1.9416093826293945, 0.17278696596622467}, []float32{0.70149165391922, -0.45149171352386475}},
		{true, []float32{0.44909435510635376, -1.1953519582748413, 1.9416093826293945, 0.17278696596622467}, []float32{0.6978468298912048, -0.44909435510635376}},
	} {
		p := model.NewParams(model.Config{VocabSize: 1, NPositions: 1, NCtx: 1, NEmbd: 2, NHead: 1, NLayer: 1}, false)
		w, b := p.Blocks[0].ProjW, p.Blocks[0].ProjB
		copy(w, []float32{0.5, -1.25, 2, 0.125})
		copy(b, []float32{0.75, -0.5})
		a := train.NewAdamW(cpu, p)
		a.LR, a.WeightDecay, a.DecayAll = 0.01, 0.1, c.all
		for step := range 5 {
			var params []gorgonia.ValueGrad
			for _, tensor := range p.Tensors {
				grad := make([]float32, tensor.Len())
				switch &tensor.Data[0] {
				case &w[0]:
					copy(grad, []float32{0.1, -0.2, 0.3, -0.4})
				case &b[0]:
					copy(grad, []float32{0.5, -0.05})
				}
				for i := range grad {
					grad[i] *= float32(step + 1)
				}
				params = append(params, fixedGrad{tensor, grad})
			}
			if err := a.Step(params); err != nil {
				t.Fatal(err)
			}
		}
		got, want := slices.Concat(w, b), slices.Concat(c.wantW, c.wantB)
		for i := range want {
			if d := math.Abs(float64(got[i] - want[i])); d > 1e-6 {
				t.Errorf("decay of all %v, element %d: %v, want %v", c.all, i, got[i], want[i])
			}
		}
	}
}
