package bench

import (
	"context"
	"os"
	"time"

	"promptgen/train"
)

// TrainOptions say what to measure.
type TrainOptions struct {
	Train train.Options // shape, batch, dtype, dropout, seed, threads
	Steps int           // steps to measure; 0: as many as take measureTime
}

const (
	warmSteps   = 2
	leastSteps  = 5
	measureTime = 5 * time.Second
)

// TrainResult is the speed of training steps. Its JSON is that of `bench train
// --json`.
type TrainResult struct {
	TokensPerSec float64 `json:"tokens_per_s"`      // of the median step
	Best         float64 `json:"best_tokens_per_s"` // of the fastest step
	GFlops       float64 `json:"gflops"`            // of the median step
	LimitGFlops  float64 `json:"limit_gflops"`      // the machine's, in the dtype of the products
	MFU          float64 `json:"mfu"`               // GFlops / LimitGFlops
	Planned      int64   `json:"planned_peak_bytes"`
	PeakRSS      int64   `json:"peak_rss_bytes"`  // at the end of the steps
	Steps        int     `json:"steps"`           // measured
	StepMS       float64 `json:"step_ms"`         // the median step
	Tokens       int     `json:"tokens_per_step"` //
	DType        string  `json:"dtype"`           //
	ISA          string  `json:"isa"`             // level of the kernels
	Threads      int     `json:"threads"`         //
	TokenGFlop   float64 `json:"gflop_per_token"` //
	Machine      Machine `json:"limits"`          //
	Loss         float64 `json:"loss"`            // of the last step
}

// Train measures the step of the train command, optimizer included, on random
// tokens, and then the machine's limits.
func Train(ctx context.Context, o TrainOptions) (_ *TrainResult, err error) {
	dir, err := os.MkdirTemp("", "promptgen-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	o.Train.Out = dir
	trial, err := train.NewTrial(ctx, o.Train)
	if err != nil {
		return nil, err
	}
	defer trial.Close()

	var times []time.Duration
	var info train.StepInfo
	for begin := time.Now(); !enough(o.Steps, len(times)-warmSteps, time.Since(begin)); {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		start := time.Now()
		if info, err = trial.Step(); err != nil {
			return nil, err
		}
		times = append(times, time.Since(start))
	}
	times = times[warmSteps:]

	cfg := o.Train.Config
	r := &TrainResult{
		Planned: trial.Planned(), PeakRSS: info.PeakRSS, Loss: info.Loss, Steps: len(times), TokenGFlop: TokenFlops(cfg) / 1e9,
		Tokens: o.Train.BatchSize * max(1, o.Train.GradAccum) * cfg.NCtx,
		DType:  o.Train.DType.String(), ISA: trial.CPU().ISA(), Threads: trial.CPU().Threads(),
	}
	least := times[0]
	for _, t := range times {
		least = min(least, t)
	}
	mid := median(times)
	r.StepMS = mid.Seconds() * 1e3
	r.TokensPerSec, r.Best = float64(r.Tokens)/mid.Seconds(), float64(r.Tokens)/least.Seconds()
	r.GFlops = r.TokensPerSec * r.TokenGFlop
	r.Machine = MeasureMachine(trial.CPU(), o.Train.DType, r.GFlops)
	r.LimitGFlops = r.Machine.Limit(o.Train.DType)
	r.MFU = r.GFlops / r.LimitGFlops
	return r, nil
}

// enough tells whether n measured steps, warm-up and all in the time elapsed,
// are what was asked for.
func enough(asked, n int, elapsed time.Duration) bool {
	if asked > 0 {
		return n >= asked
	}
	return n >= leastSteps && elapsed >= measureTime
}
