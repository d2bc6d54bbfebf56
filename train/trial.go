package train

import (
	"context"
	"fmt"
	"math/rand/v2"

	"promptgen/data"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
)

// Trial takes the steps of a run, one at a time, on random tokens: what a
// benchmark measures is the code that trains.
type Trial struct {
	t    *trainer
	last StepInfo
}

// trialSteps is the number of different effective batches of a Trial.
const trialSteps = 8

// NewTrial prepares a run as Run does, of the options' shape, batch, dtype and
// seed; Out is a scratch folder for its metrics. Config.VocabSize must be set.
func NewTrial(ctx context.Context, o Options) (_ *Trial, err error) {
	o.Data, o.Resume = "random tokens", "never"
	o = o.withDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	r := &Trial{}
	t := &trainer{o: o, cfg: o.Config, obs: trialObserver{Silent{}, &r.last}}
	r.t = t
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	step := o.BatchSize * o.GradAccum
	ids := make([]int32, trialSteps*step*o.Config.NCtx)
	rng := rand.New(rand.NewPCG(o.Seed, 0))
	for i := range ids {
		ids[i] = rng.Int32N(int32(o.Config.VocabSize))
	}
	tokens := data.NewTokens(ids, data.Stats{}, o.Config.VocabSize)
	if t.windows, err = data.NewWindows(tokens, o.Config.NCtx, 0); err != nil {
		return nil, err
	}
	t.sched = plan{windows: t.windows.Len(), batch: o.BatchSize, step: step, shards: max(1, o.Shards), perStep: trialSteps, steps: 1 << 30}
	if t.cpu, err = kernel.New(t.computing()); err != nil {
		return nil, fault.With(fault.CodeUsage, err)
	}
	if err := t.planMemory(); err != nil {
		return nil, err
	}
	if _, err := t.start(ctx); err != nil {
		return nil, fmt.Errorf("preparing the steps: %w", err)
	}
	if err := t.prepare(); err != nil {
		return nil, err
	}
	return r, nil
}

// Step takes one optimizer step: gradients, clipping, update, metrics line.
func (r *Trial) Step() (StepInfo, error) {
	t := r.t
	if t.at.Position >= t.sched.windows {
		t.at.Position = 0
		t.at.Epoch++
	}
	order := make([]int32, t.sched.step)
	for i := range order {
		order[i] = int32(t.at.Position + i)
	}
	err := t.step(context.Background(), order)
	return r.last, err
}

// Planned is the peak of memory that was planned, in bytes.
func (r *Trial) Planned() int64 { return r.t.budget.parts.Total() }

// CPU is what the steps are computed by.
func (r *Trial) CPU() *kernel.CPU { return r.t.cpu }

// Close releases the run; its CPU must not be used afterwards.
func (r *Trial) Close() error { return r.t.close() }

// trialObserver keeps what is told of the last step.
type trialObserver struct {
	Silent
	last *StepInfo
}

// Step implements Observer.
func (o trialObserver) Step(s StepInfo) { *o.last = s }
