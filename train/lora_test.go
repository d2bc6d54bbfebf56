package train_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model"
	"promptgen/model/checkpoint"
	"promptgen/train"
	"promptgen/train/runlog"
)

// adapterOptions train adapters on a model that was trained before, with dropout
// on both branches.
func adapterOptions(t testing.TB) train.Options {
	base := testOptions(t, 16*20)
	base.Epochs = 1
	o := base
	o.InitFrom = mustRun(t, base, train.Silent{}).Model
	o.Out, o.Epochs, o.Seed = filepath.Join(t.TempDir(), "adapters"), 2, 11
	o.LoRA = model.LoRA{Rank: 4, Dropout: 0.1}
	return o
}

// adapterFile is the file of a run's last adapters.
func adapterFile(t testing.TB, out string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(train.FinalModel(out), "adapter_model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func load(t testing.TB, path string) *checkpoint.Model {
	t.Helper()
	m, err := checkpoint.Load(path, checkpoint.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// Adapters learn, are saved alone, leave their base as it is, and have gradients
// and moments of their own only; the model that is read again is what was
// trained.
func TestAdapters(t *testing.T) {
	o := adapterOptions(t)
	o.Epochs = 4
	before := load(t, o.InitFrom)
	hash := checkpoint.WeightsHash(before.Params)
	var rec recorder
	res := mustRun(t, o, &rec)
	if first, last := rec.steps[0].Loss, rec.steps[len(rec.steps)-1].Loss; !(last < first) {
		t.Errorf("the loss went from %v to %v", first, last)
	}
	for _, dir := range []string{res.Model, train.EpochModel(o.Out, 1)} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if want := []string{"adapter_config.json", "adapter_model.safetensors", "promptgen.json"}; !slices.Equal(names, want) {
			t.Errorf("%s holds %v, not %v", dir, names, want)
		}
	}
	after := load(t, o.InitFrom)
	if checkpoint.WeightsHash(after.Params) != hash {
		t.Error("training adapters changed their base")
	}
	m := load(t, res.Model)
	if m.Base.Hash != hash {
		t.Errorf("the adapters say they belong to %.12s, and their base is %.12s", m.Base.Hash, hash)
	}
	all := model.LoRA{Rank: 1, Alpha: 1, Targets: model.DefaultTargets()}
	for i, tensor := range after.Params.Tensors {
		if same := slices.Equal(tensor.Data, m.Params.Tensors[i].Data); same == all.Adapts(tensor.TensorSpec) {
			t.Errorf("%s: as in the base %v", tensor.Name, same)
		}
	}
	run, err := runlog.ReadRun(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	c := after.Params.Config
	trained := model.LoRA{Rank: 4, Alpha: 8, Targets: model.DefaultTargets()}.Len(c)
	want := map[string]int64{"weights": 4 * (c.NumParams() + trained), "optimizer": 8 * trained}
	for _, part := range run.Plan.Parts {
		if w, ok := want[part.Name]; ok && part.Bytes != w {
			t.Errorf("%d bytes of %s are planned, not %d", part.Bytes, part.Name, w)
		}
	}
	if run.Plan.Trained != trained {
		t.Errorf("%d weights are said to be trained, %d are", run.Plan.Trained, trained)
	}
}

// What a training of adapters computes does not depend on interruptions, on how
// the work is cut, or on whether it is repeated from its report.
func TestAdaptersToTheBit(t *testing.T) {
	o := adapterOptions(t)
	o.GradAccum, o.BatchSize = 2, 4
	mustRun(t, o, train.Silent{})
	want := adapterFile(t, o.Out)

	for k := 1; k <= 3; k++ {
		cut := o
		cut.Out = filepath.Join(t.TempDir(), "interrupted")
		ctx, cancel := context.WithCancel(t.Context())
		rec := recorder{onStep: func(s train.StepInfo) {
			if s.Step == k {
				cancel()
			}
		}}
		if _, err := train.Run(ctx, cut, &rec); fault.Code(err) != fault.CodeInterrupted {
			t.Fatal(err)
		}
		mustRun(t, cut, train.Silent{})
		if !bytes.Equal(adapterFile(t, cut.Out), want) {
			t.Errorf("other adapters after an interruption at step %d", k)
		}
	}
	for name, change := range map[string]func(*train.Options){
		"whole batches":       func(o *train.Options) { o.GradAccum, o.BatchSize = 1, 8 },
		"recomputed":          func(o *train.Options) { o.Recompute = "on" },
		"three threads":       func(o *train.Options) { o.Threads = 3 },
		"from its own report": nil,
	} {
		again := o
		if change == nil {
			var err error
			if again, err = train.FromReport(filepath.Join(o.Out, "report.html")); err != nil {
				t.Fatal(err)
			}
		} else {
			change(&again)
		}
		again.Out = filepath.Join(t.TempDir(), "again")
		mustRun(t, again, train.Silent{})
		if !bytes.Equal(adapterFile(t, again.Out), want) {
			t.Errorf("other adapters with %s", name)
		}
	}
}

// Other precisions train as well, and come back to the same bits.
func TestAdaptersInBF16(t *testing.T) {
	o := adapterOptions(t)
	o.DType, o.OptimizerBF16 = kernel.BF16, true
	mustRun(t, o, train.Silent{})
	want := adapterFile(t, o.Out)
	o.Out = filepath.Join(t.TempDir(), "again")
	ctx, cancel := context.WithCancel(t.Context())
	rec := recorder{onStep: func(s train.StepInfo) { cancel() }}
	if _, err := train.Run(ctx, o, &rec); fault.Code(err) != fault.CodeInterrupted {
		t.Fatal(err)
	}
	mustRun(t, o, train.Silent{})
	if !bytes.Equal(adapterFile(t, o.Out), want) {
		t.Error("other adapters after an interruption")
	}
}

// A base that changed or is gone must be told, for going on, for repeating, and
// for using the adapters.
func TestAdaptersFindTheirBase(t *testing.T) {
	o := adapterOptions(t)
	res := mustRun(t, o, train.Silent{})
	more := o
	more.Epochs = 3
	report := filepath.Join(o.Out, "report.html")
	using := func() error {
		m, err := checkpoint.Load(res.Model, checkpoint.LoadOptions{})
		if err == nil {
			m.Close()
		}
		return err
	}
	repeating := func() error {
		again, err := train.FromReport(report)
		if err != nil {
			return err
		}
		again.Out = filepath.Join(t.TempDir(), "again")
		_, err = train.Run(t.Context(), again, train.Silent{})
		return err
	}
	goingOn := func() error { _, err := train.Run(t.Context(), more, train.Silent{}); return err }
	check := func(what string, code int, text string, do ...func() error) {
		t.Helper()
		for i, f := range do {
			if err := f(); fault.Code(err) != code || !strings.Contains(err.Error(), text) {
				t.Errorf("%s, %d: %v (code %d)", what, i, err, fault.Code(err))
			}
		}
	}
	file := filepath.Join(o.InitFrom, "model.safetensors")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Clone(whole)
	other[len(other)-3] ^= 1
	if err := os.WriteFile(file, other, 0o666); err != nil {
		t.Fatal(err)
	}
	check("another base", fault.CodeCorrupt, "weights", using, repeating)
	check("another base", fault.CodeCorrupt, "base", goingOn)
	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.Rename(o.InitFrom, moved); err != nil {
		t.Fatal(err)
	}
	check("no base", fault.CodeUsage, o.InitFrom, using, repeating, goingOn)
	if err := os.WriteFile(filepath.Join(moved, "model.safetensors"), whole, 0o666); err != nil {
		t.Fatal(err)
	}
	m, err := checkpoint.Load(res.Model, checkpoint.LoadOptions{Base: moved})
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
}

// What cannot be trained with adapters must be refused, all of it at once.
func TestAdapterOptionsRefused(t *testing.T) {
	o := testOptions(t, 16*20)
	o.LoRA, o.Freeze, o.Shrink = model.LoRA{Rank: 3, Targets: []string{"c_atn"}}, []string{"wte"}, true
	_, err := train.Run(t.Context(), o, train.Silent{})
	for _, want := range []string{"init-from", "freeze", "shrink", `"c_atn"`} {
		if fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), want) {
			t.Errorf("%v (want %s)", err, want)
		}
	}
	o = adapterOptions(t)
	o.InitFrom = mustRun(t, o, train.Silent{}).Model
	o.Out = filepath.Join(t.TempDir(), "onAdapters")
	if _, err := train.Run(t.Context(), o, train.Silent{}); fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), "--merge") {
		t.Errorf("adapters on adapters: %v", err)
	}
}
