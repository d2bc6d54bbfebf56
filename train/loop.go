package train

import (
	"context"
	"time"

	"promptgen/data"
	"promptgen/model"
)

// finalLossSteps is how many steps the reported final loss is the mean of.
const finalLossSteps = 32

// place is where a run is; with weights and moments it is all that resuming
// needs, and is stored with them.
type place struct {
	Step     int `json:"step"`     // optimizer steps done
	Epoch    int `json:"epoch"`    // epochs done
	Position int `json:"position"` // windows of the current epoch done
	Skipped  int `json:"skipped"`  // steps without an update

	EvalDue bool `json:"eval_due,omitempty"` // the validation after the last step was interrupted

	Losses  []float64 `json:"losses"`     // of the last steps, finalLossSteps at most
	First   float64   `json:"first_loss"` // of the run
	ValLoss *float64  `json:"val_loss"`   // of the last validation
	Best    *float64  `json:"best"`       // lowest loss of a validation
	Stale   int       `json:"stale"`      // validations since then
}

// epochs runs from the current place to the end of the plan.
func (t *trainer) epochs(ctx context.Context) error {
	if t.at.EvalDue {
		if err := t.validate(ctx); err != nil {
			return err
		}
	}
	for !t.done() {
		order := data.Order(t.sched.windows, t.o.Seed, t.at.Epoch)
		for t.at.Position < len(order) && t.at.Step < t.sched.steps && !t.stoppedEarly() {
			if t.stopAsked(ctx) {
				return t.interrupted(ctx)
			}
			end := min(t.at.Position+t.sched.step, len(order))
			if err := t.step(ctx, order[t.at.Position:end]); err != nil {
				return err
			}
			if err := t.between(ctx); err != nil {
				return err
			}
		}
		if err := t.endEpoch(ctx); err != nil {
			return err
		}
	}
	return nil
}

// step takes one optimizer step on the windows of an effective batch.
func (t *trainer) step(ctx context.Context, windows []int32) error {
	start := time.Now()
	loss, err := t.gradients(ctx, windows)
	if err != nil {
		return err
	}
	grads := t.graph.ValueGrads()
	norm, err := GradNorm(t.cpu, grads)
	if err != nil {
		return err
	}
	t.exchange.norm = norm
	lr := t.o.LR * t.o.Schedule.Rate(t.at.Step, t.sched.warmup, t.sched.steps, t.o.floor())
	targets := t.targetsOf(len(windows))
	info := StepInfo{
		Step: t.at.Step + 1, Steps: t.sched.steps, Epoch: t.at.Epoch + 1, Epochs: t.o.Epochs,
		Loss: loss / float64(targets), LR: lr, GradNorm: norm,
	}
	if model.IsFinite(loss) && model.IsFinite(norm) {
		t.opt.LR, t.opt.GradScale = lr, ClipScale(norm, t.o.MaxGradNorm)
		if err := t.opt.Step(grads); err != nil {
			return err
		}
		t.bad = 0
		t.at.Losses = append(t.at.Losses, info.Loss)
		t.at.Losses = t.at.Losses[max(0, len(t.at.Losses)-finalLossSteps):]
	} else {
		info.Skipped = true
		t.bad++
		t.at.Skipped++
	}
	t.at.Step++
	t.at.Position += len(windows)
	took := time.Since(start)
	t.clock.add(len(windows)*t.cfg.NCtx, took)
	t.exchange.steps += took
	return t.report(info)
}

// Targets fills dst with what each token of ids, sequences of seqLen, is to
// predict: the next one, and -1 (nothing) at a sequence's end.
func Targets(dst, ids []int32, seqLen int) {
	copy(dst, ids[1:])
	for end := seqLen - 1; end < len(ids); end += seqLen {
		dst[end] = -1
	}
}

// targetsOf is the number of predictions in so many windows.
func (t *trainer) targetsOf(windows int) int { return windows * (t.cfg.NCtx - 1) }

// report tells of a step, and ends a run that only spoils the model.
func (t *trainer) report(info StepInfo) error {
	info.Tokens = t.tokensSeen()
	info.TokensPerSec = t.clock.recent()
	info.PeakRSS = t.memory.read()
	if info.Step%t.o.LogEvery == 0 || info.Step == t.sched.steps || info.Skipped {
		if err := t.metrics.Add(info.line()); err != nil {
			return err
		}
	}
	t.obs.Step(info)
	return t.group.Together(t.guard(info))
}

// between does what is due between two steps within an epoch.
func (t *trainer) between(ctx context.Context) error {
	if t.at.Position >= t.sched.windows {
		return nil // the end of the epoch does it all
	}
	if t.o.EvalEvery > 0 && t.at.Step%t.o.EvalEvery == 0 {
		if err := t.validate(ctx); err != nil {
			return err
		}
	}
	if t.stateDue() {
		return t.saveState(ctx)
	}
	return nil
}

// endEpoch validates and saves. A run that MaxSteps ends within an epoch ends
// here too, with that epoch unfinished.
func (t *trainer) endEpoch(ctx context.Context) error {
	if err := t.validate(ctx); err != nil {
		return err
	}
	if t.at.Position < t.sched.windows {
		if err := t.saveState(ctx); err != nil {
			return err
		}
		return t.writeReport(ctx)
	}
	t.at.Epoch++
	t.at.Position = 0
	if err := t.guardSave(); err != nil {
		return err
	}
	if err := t.saveEpoch(ctx); err != nil {
		return err
	}
	if err := t.saveState(ctx); err != nil {
		return err
	}
	return t.writeReport(ctx)
}

// epochNow is the epoch that the last step belonged to, from 1.
func (t *trainer) epochNow() int {
	if t.at.Position > 0 {
		return t.at.Epoch + 1
	}
	return t.at.Epoch
}

// tokensSeen counts from the start of the training, resumed or not.
func (t *trainer) tokensSeen() int64 {
	return (int64(t.at.Epoch)*int64(t.sched.windows) + int64(t.at.Position)) * int64(t.cfg.NCtx)
}

// finalLoss is the mean loss of the last steps: one step's is mostly chance.
func (t *trainer) finalLoss() float64 {
	sum := 0.0
	for _, l := range t.at.Losses {
		sum += l
	}
	return sum / max(1, float64(len(t.at.Losses)))
}

// clock measures the speed of the steps, validation and saving left out.
type clock struct {
	tokens  float64
	elapsed time.Duration
	smooth  float64 // tokens/s, the last few steps weighing most
}

func (c *clock) add(tokens int, d time.Duration) {
	now := float64(tokens) / max(d.Seconds(), 1e-9)
	if c.elapsed == 0 {
		c.smooth = now
	}
	c.smooth += (now - c.smooth) / 5
	c.tokens += float64(tokens)
	c.elapsed += d
}

func (c *clock) recent() float64 { return c.smooth }

func (c *clock) overall() float64 { return c.tokens / max(c.elapsed.Seconds(), 1e-9) }
