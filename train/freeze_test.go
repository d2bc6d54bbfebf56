package train_test

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/model"
	"promptgen/model/checkpoint"
	"promptgen/train"
	"promptgen/train/runlog"
)

// initial are the weights that a run begins with.
func initial(o train.Options) *model.Params {
	c := o.Config
	c.VocabSize = 25
	p := model.NewParams(c, false)
	p.Init(o.Seed)
	return p
}

// Frozen weights must stay as they are to the bit, also where weight decay and
// an interruption come in; all others must change.
func TestFreeze(t *testing.T) {
	o := testOptions(t, 16*40)
	o.Freeze, o.WeightDecay, o.DecayAll = []string{"wte,h.0", "ln_f"}, 0.1, true
	mustRun(t, o, train.Silent{})
	want := weights(t, o.Out)
	run, err := runlog.ReadRun(o.Out)
	if err != nil {
		t.Fatal(err)
	}

	o.Out = filepath.Join(t.TempDir(), "interrupted")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	rec := recorder{onStep: func(s train.StepInfo) {
		if s.Step == 3 {
			cancel()
		}
	}}
	if _, err := train.Run(ctx, o, &rec); fault.Code(err) != fault.CodeInterrupted {
		t.Fatal(err)
	}
	res := mustRun(t, o, train.Silent{})
	if !bytes.Equal(weights(t, o.Out), want) {
		t.Error("other weights after an interruption")
	}
	m, err := checkpoint.Load(res.Model, checkpoint.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var trained int64
	for i, before := range initial(o).Tensors {
		after := m.Params.Tensors[i]
		name := strings.TrimPrefix(after.Name, "transformer.")
		froze := name == "wte.weight" || strings.HasPrefix(name, "h.0.") || strings.HasPrefix(name, "ln_f.")
		if same := slices.Equal(before.Data, after.Data); same != froze {
			t.Errorf("%s: unchanged %v, frozen %v", name, same, froze)
		}
		if !froze {
			trained += int64(after.Len())
		}
	}
	if run.Plan.Trained != trained {
		t.Errorf("%d weights are said to be trained, %d are", run.Plan.Trained, trained)
	}
	for _, part := range run.Plan.Parts { // up to the alignment of a tensor's start
		if want := map[string]int64{"optimizer": 8 * trained}[part.Name]; want > 0 && part.Bytes != want {
			t.Errorf("%s: %d bytes are planned for moments of %d weights", part.Name, part.Bytes, trained)
		}
	}
}

// A name that freezes nothing, or all, must be refused with what there is.
func TestFreezeRefuses(t *testing.T) {
	for names, want := range map[string]string{
		"wtf":                `"wtf" names no weights`,
		"lm_head":            "names no weights", // the tied one is wte
		"h.0-5":              "names no weights", // there are two layers
		"h.1.attention":      "names no weights",
		"wte,wpe,h.0-1,ln_f": "nothing is left",
	} {
		o := testOptions(t, 16*20)
		o.Freeze = []string{names}
		if _, err := train.Run(t.Context(), o, train.Silent{}); fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", names, err)
		}
	}
}
