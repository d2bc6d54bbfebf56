package train

import "math"

// Schedule is how the learning rate goes on after the warm-up.
type Schedule string

// The schedules. Each begins with a linear warm-up from 0 to the peak.
const (
	Linear   Schedule = "linear"   // falls linearly to the floor, 0 by default, at the last step
	Cosine   Schedule = "cosine"   // half a cosine, down to the floor, a tenth of the peak by default
	Constant Schedule = "constant" // stays at the peak
)

// cosineFloor is what is left of the peak at the end of a cosine schedule; at a
// rate of nothing the last steps would be wasted.
const cosineFloor = 0.1

func (s Schedule) known() bool { return s == Linear || s == Cosine || s == Constant }

// Floor is the rate that the schedule ends at unless told otherwise, as a share
// of the peak.
func (s Schedule) Floor() float64 {
	if s == Cosine {
		return cosineFloor
	}
	return 0
}

// Rate is the learning rate of a step (from 0) as a share of the peak, for a
// run of total steps of which the first warmup warm up; floor is the share that
// it falls to. The rate of step 0 is 0 if there is a warm-up, as in
// transformers' WarmupLinearSchedule.
func (s Schedule) Rate(step, warmup, total int, floor float64) float64 {
	if step < warmup {
		return float64(step) / float64(max(1, warmup))
	}
	left := float64(total-step) / float64(max(1, total-warmup))
	left = max(0, min(1, left))
	switch s {
	case Constant:
		return 1
	case Cosine:
		left = (1 - math.Cos(math.Pi*left)) / 2
	}
	return floor + (1-floor)*left
}

// DefaultWarmup is the original's 2000 steps, but at most a tenth of the run.
func DefaultWarmup(steps int) int { return min(2000, steps/10) }
