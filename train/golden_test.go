package train_test

import (
	"math"
	"strings"
	"testing"

	"promptgen/internal/kernel"
	"promptgen/internal/testkit"
	"promptgen/model"
	"promptgen/train"
)

// Thirty steps from the golden weights, with the optimizers of transformers
// 2.1.1 and of PyTorch: each loss, gradient norm and rate, and the weights at
// the end.
func TestGoldenTrajectories(t *testing.T) {
	hf := func(a *train.AdamW) { a.Style, a.Eps = kernel.AdamHF, 1e-6 }
	torch := func(a *train.AdamW) { a.Style, a.Eps, a.WeightDecay, a.DecayAll = kernel.AdamTorch, 1e-8, 0.01, true }
	// With eps 1e-8 the optimizer amplifies the rounding noise that is all the
	// gradient a key's bias has (softmax is invariant to it): not compared.
	for _, isa := range kernel.ISAs() {
		t.Run("hf/"+isa, func(t *testing.T) { goldenTrajectory(t, "hf_adamw", isa, false, false, hf) })
		t.Run("torch/"+isa, func(t *testing.T) { goldenTrajectory(t, "torch_adamw", isa, false, true, torch) })
		t.Run("bf16/"+isa, func(t *testing.T) { goldenTrajectory(t, "torch_adamw", isa, true, true, torch) })
	}
}

// goldenTrajectory follows one of the golden runs. With bf16 products only its
// losses are held against it, and less closely.
func goldenTrajectory(t *testing.T, name, isa string, bf16, skipKeyBias bool, set func(*train.AdamW)) {
	lossTol := 1e-4
	if bf16 {
		lossTol = 2e-2
	}
	dir := testkit.Golden(t)
	var c model.Config
	testkit.ReadJSON(t, &c, dir, "config.json")
	p := model.NewParams(c, false)
	start := testkit.ReadSafetensors(t, dir, "model.safetensors")
	for _, tensor := range p.Tensors {
		copy(tensor.Data, start[tensor.Name].Floats)
	}
	data, traj := testkit.ReadNPY(t, dir, "traj_data.npy"), testkit.ReadNPY(t, dir, "traj_"+name+".npy")
	steps, batch, seqLen := data.Shape[0], data.Shape[1], data.Shape[2]

	cpu, err := kernel.New(kernel.Options{ISA: isa})
	if err != nil {
		t.Fatal(err)
	}
	defer cpu.Close()
	g, err := model.NewGraph(cpu, p, model.GraphOptions{Batch: batch, SeqLen: seqLen, BF16: bf16})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	opt := train.NewAdamW(cpu, p)
	set(opt)

	targets := make([]int32, batch*seqLen)
	n := batch * (seqLen - 1)
	peak, warmup := goldenSchedule(traj, steps)
	for step := range steps {
		ids := data.Ints[step*batch*seqLen:][:batch*seqLen]
		train.Targets(targets, ids, seqLen)
		g.ZeroGrads()
		sum, err := g.Step(ids, targets, 1/float32(n), model.DropKey{})
		if err != nil {
			t.Fatal(err)
		}
		norm, err := train.GradNorm(cpu, g.ValueGrads())
		if err != nil {
			t.Fatal(err)
		}
		want := traj.Floats[3*step:][:3] // loss, norm, rate
		if d := math.Abs(sum/float64(n) - float64(want[0])); !(d <= lossTol) {
			t.Fatalf("step %d: loss %v, want %v", step, sum/float64(n), want[0])
		}
		if d := math.Abs(norm - float64(want[1])); !bf16 && !(d <= 1e-4*max(1, norm)) {
			t.Errorf("step %d: gradient norm %v, want %v", step, norm, want[1])
		}
		opt.LR = peak * train.Linear.Rate(step, warmup, steps, 0)
		if d := math.Abs(opt.LR - float64(want[2])); d > 1e-9 {
			t.Fatalf("step %d: rate %v, want %v", step, opt.LR, want[2])
		}
		opt.GradScale = train.ClipScale(norm, 1)
		if err := opt.Step(g.ValueGrads()); err != nil {
			t.Fatal(err)
		}
	}
	if bf16 {
		return
	}
	for name, want := range testkit.ReadSafetensors(t, dir, "final_"+name+".safetensors") {
		for _, tensor := range p.Tensors {
			if tensor.Name != name {
				continue
			}
			got := tensor.Data
			ref := want.Floats
			if skipKeyBias && strings.HasSuffix(name, "attn.c_attn.bias") {
				e := c.NEmbd
				got = append(append([]float32{}, got[:e]...), got[2*e:]...)
				ref = append(append([]float32{}, ref[:e]...), ref[2*e:]...)
			}
			if d := testkit.RelDiff(got, ref); !(d <= 1e-4) {
				t.Errorf("final %s differs by %g of its largest", name, d)
			}
		}
	}
}

// goldenSchedule reads the peak and the warm-up from the rates that were used.
func goldenSchedule(traj testkit.Array, steps int) (peak float64, warmup int) {
	for step := range steps {
		if lr := float64(traj.Floats[3*step+2]); lr > peak {
			peak, warmup = lr, step
		}
	}
	return roundRate(peak), warmup
}

// roundRate undoes float32's rounding of a rate that people write down.
func roundRate(lr float64) float64 {
	scale := math.Pow(10, 6-math.Ceil(math.Log10(lr)))
	return math.Round(lr*scale) / scale
}
