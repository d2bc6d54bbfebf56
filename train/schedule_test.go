package train_test

import (
	"math"
	"testing"

	"promptgen/train"
)

// The rates at the places that matter: transformers' get_*_schedule_with_warmup
// values (the cosine with our floor of a tenth).
func TestScheduleRates(t *testing.T) {
	for _, c := range []struct {
		s                   train.Schedule
		step, warmup, total int
		want                float64
	}{
		{train.Linear, 0, 5, 30, 0},
		{train.Linear, 1, 5, 30, 0.2},
		{train.Linear, 5, 5, 30, 1},
		{train.Linear, 6, 5, 30, 0.96},
		{train.Linear, 29, 5, 30, 0.04},
		{train.Linear, 30, 5, 30, 0},
		{train.Linear, 0, 0, 1, 1},
		{train.Linear, 40, 5, 30, 0},
		{train.Constant, 2, 4, 30, 0.5},
		{train.Constant, 29, 4, 30, 1},
		{train.Cosine, 3, 6, 30, 0.5},
		{train.Cosine, 6, 6, 30, 1},
		{train.Cosine, 18, 6, 30, 0.55},
		{train.Cosine, 30, 6, 30, 0.1},
		{train.Linear, 3, 10, 5, 0.3}, // a warm-up longer than the run
	} {
		if got := c.s.Rate(c.step, c.warmup, c.total); math.Abs(got-c.want) > 1e-12 {
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
