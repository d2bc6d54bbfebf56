package train

import (
	"errors"
	"fmt"
	"math"

	"gorgonia.org/gorgonia"

	"promptgen/internal/kernel"
	"promptgen/model"
)

// AdamW is Loshchilov and Hutter's optimizer (2019) as a gorgonia.Solver over
// the parameters of one model: Adam, with a decay of the weights that does not
// pass through the moments.
type AdamW struct {
	Style        kernel.AdamStyle // PyTorch's arithmetic, or transformers 2.1.1's
	LR           float64          // of the next step
	Beta1, Beta2 float64
	Eps          float64
	WeightDecay  float64
	DecayAll     bool    // decay gains and biases as well, not matrices (embeddings among them) alone
	GradScale    float64 // the gradients are multiplied by it first: clipping

	Steps int            // taken so far: the bias correction depends on it
	M, V  *model.Moments // of the weights that are trained, in float32 or bfloat16
	Seed  uint64         // of the random rounding of moments in bfloat16

	cpu  *kernel.CPU
	args kernel.AdamW
}

// NewAdamW makes an optimizer with PyTorch's arithmetic and constants for the
// parameters p, its moments zero.
func NewAdamW(cpu *kernel.CPU, p *model.Params) *AdamW {
	return newAdamW(cpu, model.NewMoments(p.Config, !p.HeadTied, false), model.NewMoments(p.Config, !p.HeadTied, false))
}

// newAdamW is NewAdamW with moments that are there already.
func newAdamW(cpu *kernel.CPU, m, v *model.Moments) *AdamW {
	return &AdamW{Style: kernel.AdamTorch, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, GradScale: 1, M: m, V: v, cpu: cpu}
}

// Step implements gorgonia.Solver. The parameters must be those that there are
// moments of, in the order of the model's tensors, as Graph.ValueGrads gives them.
func (a *AdamW) Step(params []gorgonia.ValueGrad) error {
	a.Steps++
	left := len(params)
	for i := len(a.M.Tensors) - 1; i >= 0; i-- { // GradNorm read the last gradients last
		m, v := a.M.Tensors[i], a.V.Tensors[i]
		if !m.Kept() {
			continue
		}
		if left == 0 {
			return fmt.Errorf("AdamW: %s and what precedes it is missing", m.Name)
		}
		left--
		p := params[left]
		if n, ok := p.(gorgonia.Namer); !ok || n.Name() != m.Name {
			return fmt.Errorf("AdamW: parameter %d is not %s", i, m.Name)
		}
		w, g, err := weightAndGrad(p)
		if err != nil {
			return fmt.Errorf("AdamW: %s: %w", m.Name, err)
		}
		decay := a.WeightDecay
		if !a.DecayAll && len(m.Shape) < 2 {
			decay = 0
		}
		a.args = kernel.AdamW{
			LR: float32(a.LR), Beta1: float32(a.Beta1), Beta2: float32(a.Beta2), Eps: float32(a.Eps),
			WeightDecay: float32(decay), GradScale: float32(a.GradScale), Step: a.Steps, Style: a.Style,
		}
		if m.BF16 != nil {
			a.cpu.AdamW16(&a.args, w, g, m.BF16, v.BF16, model.RoundingKey(a.Seed, a.Steps, i))
		} else {
			a.cpu.AdamW(&a.args, w, g, m.F32, v.F32)
		}
	}
	if left > 0 {
		return fmt.Errorf("AdamW: %d parameters, made for %d", len(params), len(params)-left)
	}
	return nil
}

// Trained is the number of weights that the optimizer changes.
func (a *AdamW) Trained() (n int64) {
	for _, m := range a.M.Tensors {
		n += int64(len(m.F32) + len(m.BF16))
	}
	return n
}

// weightAndGrad are a parameter and its gradient as memory.
func weightAndGrad(p gorgonia.ValueGrad) (w, g []float32, err error) {
	grad, err := p.Grad()
	if err != nil {
		return nil, nil, err
	}
	if grad == nil {
		return nil, nil, errors.New("has no gradient yet")
	}
	w, okW := p.Value().Data().([]float32)
	g, okG := grad.Data().([]float32)
	if !okW || !okG || len(w) != len(g) {
		return nil, nil, errors.New("is not float32, or its gradient has another size")
	}
	return w, g, nil
}

// GradNorm is the L2 norm of all gradients together.
func GradNorm(cpu *kernel.CPU, params []gorgonia.ValueGrad) (float64, error) {
	var sum float64
	for _, p := range params {
		_, g, err := weightAndGrad(p)
		if err != nil {
			return 0, fmt.Errorf("gradient norm: %w", err)
		}
		sum += cpu.SumSquares(g)
	}
	return math.Sqrt(sum), nil
}

// ClipScale is what gradients of that norm are multiplied by so that the norm
// is at most limit; limit 0 clips nothing. The 1e-6 is PyTorch's.
func ClipScale(norm, limit float64) float64 {
	if limit <= 0 {
		return 1
	}
	return min(1, limit/(norm+1e-6))
}
