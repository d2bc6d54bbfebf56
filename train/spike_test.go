package train

import (
	"strings"
	"testing"

	"promptgen/model"
)

type noticed struct {
	Silent
	notices *[]string
}

func (n noticed) Notice(line string) { *n.notices = append(*n.notices, line) }

// A loss that jumps is told, with what it was before; one that wavers is not,
// and neither is a second jump soon after.
func TestSpikeIsTold(t *testing.T) {
	var told []string
	tr := &trainer{cfg: model.Config{VocabSize: 1000}, obs: noticed{notices: &told}}
	for range 20 {
		tr.at.Losses = append(tr.at.Losses, 2.0, 2.2)
	}
	steady := tr.at.Losses
	look := func(step int, loss float64) {
		t.Helper()
		tr.at.Losses = append(steady[:len(steady):len(steady)], loss)
		if err := tr.guard(StepInfo{Step: step, Loss: loss}); err != nil {
			t.Fatal(err)
		}
	}
	const first = finalLossSteps + 1
	look(first-1, 2.3)
	if len(told) != 0 {
		t.Errorf("a loss that wavers: %q", told)
	}
	look(first, 5)
	if len(told) != 1 || !strings.Contains(told[0], "jumped to 5 from about 2.1") {
		t.Errorf("a jump: %q", told)
	}
	look(first+1, 6)
	if len(told) != 1 {
		t.Errorf("soon after: %q", told[1:])
	}
	look(first+finalLossSteps, 6)
	if len(told) != 2 {
		t.Errorf("long after: %q", told)
	}
}
