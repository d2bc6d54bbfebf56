package train_test

import (
	"math"
	"slices"
	"testing"

	"promptgen/train"
)

// The rates of every step of a run must be PyTorch's: torch.optim.AdamW(lr=1e-3)
// under SequentialLR([LambdaLR(i/6), after], milestones=[6]), in float64, with
// after = LinearLR(1, 1e-300, 24), LinearLR(1, 0.2, 24),
// CosineAnnealingLR(24, eta_min=1e-4), ConstantLR(1, 1); PyTorch 1.13.
func TestSchedulesAgainstPyTorch(t *testing.T) {
	const peak, warmup, total = 1e-3, 6, 30
	warm := []float64{0, 0.00016666666666666666, 0.00033333333333333332, 0.00050000000000000001, 0.00066666666666666664, 0.00083333333333333339}
	for _, c := range []struct {
		s     train.Schedule
		floor float64
		after []float64
	}{
		{train.Linear, train.Linear.Floor(), []float64{
			0.001, 0.00095833333333333339, 0.00091666666666666676, 0.00087500000000000013, 0.00083333333333333339, 0.00079166666666666665,
			0.00075000000000000002, 0.00070833333333333328, 0.00066666666666666664, 0.00062500000000000001, 0.00058333333333333338, 0.00054166666666666675,
			0.00050000000000000012, 0.00045833333333333343, 0.00041666666666666675, 0.00037500000000000006, 0.00033333333333333338, 0.00029166666666666669,
			0.00025000000000000006, 0.0002083333333333334, 0.00016666666666666674, 0.00012500000000000006, 8.3333333333333385e-05, 4.1666666666666692e-05}},
		{train.Linear, 0.2, []float64{
			0.001, 0.00096666666666666667, 0.00093333333333333343, 0.00090000000000000008, 0.00086666666666666684, 0.0008333333333333335,
			0.00080000000000000015, 0.0007666666666666668, 0.00073333333333333345, 0.0007000000000000001, 0.00066666666666666675, 0.0006333333333333334,
			0.00060000000000000006, 0.00056666666666666671, 0.00053333333333333336, 0.00050000000000000001, 0.00046666666666666666, 0.00043333333333333337,
			0.00040000000000000002, 0.00036666666666666667, 0.00033333333333333332, 0.00029999999999999997, 0.00026666666666666663, 0.0002333333333333333}},
		{train.Cosine, train.Cosine.Floor(), []float64{
			0.001, 0.0009961501876182147, 0.00098466662183008063, 0.00096574578963007894, 0.00093971143170299744, 0.00090700900313105581,
			0.00086819805153394642, 0.00082394264305392438, 0.00077500000000000008, 0.00072220754456429046, 0.00066646857029613435, 0.00060873678649902337,
			0.00055000000000000003, 0.0004912632135009768, 0.00043353142970386572, 0.00037779245543570971, 0.00032500000000000009, 0.00027605735694607574,
			0.0002318019484660537, 0.00019299099686894428, 0.0001602885682970026, 0.00013425421036992097, 0.0001153333781699193, 0.00010384981238178532}},
		{train.Constant, train.Constant.Floor(), slices.Repeat([]float64{0.001}, 24)},
	} {
		for step, want := range slices.Concat(warm, c.after) {
			if got := peak * c.s.Rate(step, warmup, total, c.floor); math.Abs(got-want) > 1e-12*peak {
				t.Errorf("%s, floor %g, step %d: %v, want %v", c.s, c.floor, step, got, want)
			}
		}
	}
}

// The rates where PyTorch has no opinion: the ends, a run without warm-up, and
// a warm-up longer than the run.
func TestScheduleEnds(t *testing.T) {
	for _, c := range []struct {
		s                   train.Schedule
		step, warmup, total int
		want                float64
	}{
		{train.Linear, 30, 5, 30, 0},
		{train.Linear, 0, 0, 1, 1},
		{train.Linear, 40, 5, 30, 0},
		{train.Cosine, 30, 6, 30, 0.1},
		{train.Linear, 3, 10, 5, 0.3},
	} {
		if got := c.s.Rate(c.step, c.warmup, c.total, c.s.Floor()); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%s step %d of %d, warm-up %d: %v, want %v", c.s, c.step, c.total, c.warmup, got, c.want)
		}
	}
}

// The default warm-up never takes more than a tenth of the run.
func TestDefaultWarmup(t *testing.T) {
	for steps, want := range map[int]int{0: 0, 9: 0, 10: 1, 1000: 100, 1 << 20: 2000} {
		if got := train.DefaultWarmup(steps); got != want {
			t.Errorf("%d steps: %d, want %d", steps, got, want)
		}
	}
}
