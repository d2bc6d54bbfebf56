package train_test

import (
	"context"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/train"
)

// A run whose loss has left for good ends with what it began with, what guessing
// has and what to do, and the broken model is not saved.
func TestDiverged(t *testing.T) {
	o := testOptions(t, 16*40)
	o.Schedule, o.WarmupSteps, o.LR, o.Epochs = train.Constant, 0, 3, 30
	var r recorder
	_, err := train.Run(context.Background(), o, &r)
	if fault.Code(err) != fault.CodeFailed {
		t.Fatalf("%v", err)
	}
	for _, part := range []string{"has diverged", "guessing has 3.219", "lower --lr (3)", "nothing was saved yet"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in %v", part, err)
		}
	}
	if len(r.saved) > 0 {
		t.Errorf("saved: %q", r.saved)
	}
}
