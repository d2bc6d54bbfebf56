//go:build unix

package train

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// A full disk is told with what is needed and where the run goes on; any other
// error stays what it is.
func TestExplainFull(t *testing.T) {
	tr := &trainer{o: Options{Out: t.TempDir()}}
	tr.budget.parts.Weights, tr.budget.parts.Optimizer = 1<<20, 2<<20
	full := fmt.Errorf("writing: %w", syscall.ENOSPC)
	err := tr.explainFull(full)
	for _, part := range []string{tr.o.Out, "a training state takes 3.0 MiB", "and a model 1.0 MiB", "free 4.0 MiB", "nothing was saved yet"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in %v", part, err)
		}
	}
	tr.lastSave = "best_model"
	if err := tr.explainFull(fmt.Errorf("writing: %w", syscall.EFBIG)); !strings.Contains(err.Error(), "ulimit -f") || strings.Contains(err.Error(), "are free") ||
		!strings.Contains(err.Error(), "what was saved is the model best_model") {
		t.Errorf("a limit: %v", err)
	}
	tr.lastState = "state/step-3"
	if err := tr.explainFull(full); !strings.Contains(err.Error(), "goes on from state/step-3") || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	other := errors.New("other")
	if err := tr.explainFull(other); err != other {
		t.Errorf("%v", err)
	}
}

// Before the first step a run says that its disk is too small for a save.
func TestWarnSpace(t *testing.T) {
	var told []string
	tr := &trainer{o: Options{Out: t.TempDir()}, obs: noticed{notices: &told}}
	tr.warnSpace()
	if len(told) > 0 {
		t.Errorf("without need: %q", told)
	}
	tr.budget.parts.Weights = 1 << 60
	tr.warnSpace()
	if len(told) != 1 || !strings.Contains(told[0], "free some before the first save") {
		t.Errorf("%q", told)
	}
}
