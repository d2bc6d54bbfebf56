package train_test

import (
	"context"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/train"
	"promptgen/train/runlog"
)

// A run whose loss has left for good ends with what it began with, what guessing
// has and what to do, and the broken model is not saved.
func TestDiverged(t *testing.T) {
	o := testOptions(t, 16*40)
	o.Schedule, o.WarmupSteps, o.LR, o.Epochs = train.Constant, 0, 3, 30
	var r recorder
	_, err := train.Run(context.Background(), o, &r)
	endedUnsaved(t, err, &r, "has diverged", "guessing has 3.219", "lower --lr (3)", "nothing was saved yet")
}

// A validation whose loss is not finite ends the run as a step's does, in words
// and not in what JSON cannot say; no model is saved, and the metrics can be read.
func TestValidationNotFinite(t *testing.T) {
	o := heldOutOptions(t)
	o.Schedule, o.WarmupSteps, o.LR, o.EvalEvery, o.BatchSize = train.Constant, 0, 1e6, 1, 2
	o.WeightDecay = 1 // w -= lr*w: grows a millionfold each step
	var r recorder
	_, err := train.Run(t.Context(), o, &r)
	endedUnsaved(t, err, &r, "the validation loss is NaN", "first in", "lower --lr (1e+06)", "nothing was saved yet")
	if _, err := runlog.ReadLines(o.Out, 0); err != nil {
		t.Error(err)
	}
}

// endedUnsaved checks that a run failed, said all that, and saved nothing.
func endedUnsaved(t *testing.T, err error, r *recorder, parts ...string) {
	t.Helper()
	if fault.Code(err) != fault.CodeFailed {
		t.Fatalf("%v", err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in %v", part, err)
		}
	}
	if len(r.saved) > 0 {
		t.Errorf("saved: %q", r.saved)
	}
}
