package train_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model"
	"promptgen/model/checkpoint"
	"promptgen/train"
	"promptgen/train/runlog"
)

// stateOf are the bytes of the newest state in out: weights and both moments.
func stateOf(t testing.TB, out string) []byte {
	t.Helper()
	states, err := filepath.Glob(filepath.Join(out, "state", "step-*", "state.safetensors"))
	if err != nil || len(states) == 0 {
		t.Fatalf("no state in %s: %v", out, err)
	}
	b, err := os.ReadFile(states[len(states)-1])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A run stopped after any step and gone on with, with another number of threads,
// takes the same steps to the same weights and moments as one that was not:
// dropout on, both number formats, moments in both.
func TestResumeAnywhereToTheBit(t *testing.T) {
	every := 1
	if testing.Short() {
		every = 6
	}
	for _, kind := range []struct {
		dtype   kernel.DType
		moments bool
	}{{kernel.FP32, false}, {kernel.BF16, false}, {kernel.FP32, true}} {
		dtype := kind.dtype
		o := testOptions(t, 16*20)
		o.Epochs, o.DType, o.OptimizerBF16, o.Threads = 7, dtype, kind.moments, 2 // 21 steps, three in an epoch
		var straight recorder
		mustRun(t, o, &straight)
		wantWeights, wantState := weights(t, o.Out), stateOf(t, o.Out)
		for k := 1; k <= 20; k += every {
			o.Out = filepath.Join(t.TempDir(), "out")
			ctx, cancel := context.WithCancel(context.Background())
			first := recorder{onStep: func(s train.StepInfo) {
				if s.Step == k {
					cancel()
				}
			}}
			o.Threads = 1
			if _, err := train.Run(ctx, o, &first); fault.Code(err) != fault.CodeInterrupted {
				t.Fatalf("stopped after step %d: %v", k, err)
			}
			var second recorder
			o.Threads = 3
			mustRun(t, o, &second)
			if !bytes.Equal(weights(t, o.Out), wantWeights) || !bytes.Equal(stateOf(t, o.Out), wantState) {
				t.Errorf("%v, stopped after step %d: other weights or moments", dtype, k)
			}
			steps := append(first.steps, second.steps...)
			if len(first.steps) != k || len(steps) != len(straight.steps) {
				t.Fatalf("%v, stopped after step %d: %d and %d steps of %d", dtype, k, len(first.steps), len(second.steps), len(straight.steps))
			}
			for i, s := range steps {
				if w := straight.steps[i]; s.Step != w.Step || s.Loss != w.Loss || s.GradNorm != w.GradNorm || s.LR != w.LR {
					t.Errorf("%v, stopped after step %d: step %+v, want %+v", dtype, k, s, w)
				}
			}
		}
	}
}

// A second writer of an output folder is refused, and the first is not disturbed.
func TestOneWriter(t *testing.T) {
	o := testOptions(t, 16*20)
	var second error
	mustRun(t, o, &recorder{onStep: func(s train.StepInfo) {
		if s.Step == 2 {
			_, second = train.Run(context.Background(), o, train.Silent{})
		}
	}})
	if fault.Code(second) != fault.CodeUsage || !strings.Contains(second.Error(), "another process") {
		t.Errorf("a second writer: %v", second)
	}
}

// A training that is killed again and again ends with the right weights, never
// goes back behind a state that was complete, and leaves nothing lying about.
// scripts/crash does the same to the program itself, at every system call.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("TRAIN_AND_BE_KILLED"); dir != "" {
		o := testOptions(t, 1)
		o.Data, o.Vocab, o.Out = dir, filepath.Join(dir, "vocab.txt"), filepath.Join(dir, "out")
		o.Epochs, o.SaveEvery, o.KeepEpochs = 4, 1, 1
		if _, err := train.Run(context.Background(), o, train.Silent{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(fault.Code(err))
		}
		os.Exit(0)
	}
	o := testOptions(t, 16*40)
	o.Epochs = 4
	mustRun(t, o, train.Silent{})
	want := weights(t, o.Out)
	out := filepath.Join(o.Data, "out")
	newest := func() string {
		states, _ := filepath.Glob(filepath.Join(out, "state", "step-*"))
		if len(states) == 0 {
			return ""
		}
		return states[len(states)-1]
	}
	ended := false
	for saves := 0; !ended; saves++ {
		before := newest()
		var errs bytes.Buffer
		child := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		child.Env = append(os.Environ(), "TRAIN_AND_BE_KILLED="+o.Data, "TMPDIR="+o.Data) // the killed tidy nothing
		child.Stderr = &errs
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		exited := make(chan error, 1)
		go func() { exited <- child.Wait() }()
		// The moment of the kill: some states further on, wherever the save stands.
		for ; !ended && (newest() == before || saves%2 == 1 && !saving(out)); time.Sleep(200 * time.Microsecond) {
			select {
			case err := <-exited:
				if err != nil {
					t.Fatalf("a start after a kill: %v: %s", err, errs.String())
				}
				ended = true
			default:
			}
		}
		if !ended {
			child.Process.Kill()
			<-exited
		}
		if newest() < before {
			t.Fatalf("%s was complete, and now %s is the newest", before, newest())
		}
	}
	if !bytes.Equal(weights(t, out), want) {
		t.Error("other weights than the undisturbed run")
	}
	for _, dir := range []string{out, filepath.Join(out, "state")} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") {
				t.Errorf("left behind: %s", e.Name())
			}
		}
	}
}

// saving tells that a half-built folder lies among the states.
func saving(out string) bool {
	half, _ := filepath.Glob(filepath.Join(out, "state", ".*.tmp-*"))
	return len(half) > 0
}

// A run goes on from its state whatever --init-from says: one that began with
// other weights must be refused, and what run.json says of them must be true.
func TestResumeBegunOtherwise(t *testing.T) {
	base := testOptions(t, 16*20)
	whole := mustRun(t, base, train.Silent{}).Model
	refused := func(what string, o train.Options, words ...string) {
		t.Helper()
		_, err := train.Run(t.Context(), o, train.Silent{})
		if fault.Code(err) != fault.CodeUsage {
			t.Fatalf("%s: %v", what, err)
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: no %q in %v", what, w, err)
			}
		}
	}
	fresh := base
	fresh.Epochs, fresh.InitFrom = 3, whole
	refused("a run from scratch with --init-from", fresh, `init_from "none", now "`)

	o := base
	o.Out, o.InitFrom, o.Epochs = filepath.Join(t.TempDir(), "out"), filepath.Join(t.TempDir(), "base"), 1
	if err := os.Rename(whole, o.InitFrom); err != nil {
		t.Fatal(err)
	}
	mustRun(t, o, train.Silent{})
	o.Epochs = 2
	none, other := o, o
	none.InitFrom = ""
	refused("without the --init-from it had", none, `now "none"`)
	other.InitFrom = train.EpochModel(base.Out, 1)
	refused("with another --init-from", other, "init_from")

	// A folder that is gone since is not needed, and told by what it was.
	if err := os.RemoveAll(o.InitFrom); err != nil {
		t.Fatal(err)
	}
	mustRun(t, o, train.Silent{})
	again, err := runlog.ReadRun(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	var options train.Options
	if err := json.Unmarshal(again.Options, &options); err != nil || len(options.BaseHash) != 64 {
		t.Errorf("run.json has the hash %q (%v)", options.BaseHash, err)
	}
}

// A state that does not say what its run began with is gone on from.
func TestResumeOldState(t *testing.T) {
	o := testOptions(t, 16*20)
	mustRun(t, o, train.Silent{})
	states := filepath.Join(o.Out, "state")
	st, err := checkpoint.LatestState(states)
	if err != nil {
		t.Fatal(err)
	}
	st.Params = model.NewParams(st.Config, st.Untied)
	st.M, st.V = model.NewMoments(st.Config, st.Untied, false), model.NewMoments(st.Config, st.Untied, false)
	if err := st.Read(st.Params, st.M, st.V); err != nil {
		t.Fatal(err)
	}
	old := bytes.Replace(st.Settings, []byte(`"init_from"`), []byte(`"init_from_of_later"`), 1)
	if bytes.Equal(old, st.Settings) {
		t.Fatalf("the state does not say what its run began with: %s", old)
	}
	st.Settings = old
	if err := checkpoint.SaveState(t.Context(), states, st); err != nil {
		t.Fatal(err)
	}
	o.Epochs = 3
	mustRun(t, o, train.Silent{})
}

// What is no training state at all must be told as that, with what to give
// instead; only a state that is damaged is damage.
func TestResumeFromWhatIsNoState(t *testing.T) {
	o := testOptions(t, 16*20)
	made := mustRun(t, o, train.Silent{})
	states, err := filepath.Glob(filepath.Join(o.Out, "state", "step-*"))
	if err != nil || len(states) == 0 {
		t.Fatal(states, err)
	}
	if err := os.Remove(filepath.Join(states[0], "state.json")); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	for path, want := range map[string]struct {
		code int
		text string
	}{
		filepath.Join(empty, "nowhere"): {fault.CodeUsage, "nowhere"},
		o.Vocab:                         {fault.CodeUsage, "is a file"},
		empty:                           {fault.CodeUsage, "holds no training state"},
		made.Model:                      {fault.CodeUsage, "--init-from " + made.Model},
		states[0]:                       {fault.CodeCorrupt, states[0]},
	} {
		again := o
		again.Resume, again.Out = path, filepath.Join(t.TempDir(), "again")
		_, err := train.Run(t.Context(), again, train.Silent{})
		if fault.Code(err) != want.code || !strings.Contains(err.Error(), want.text) || want.code == fault.CodeUsage && !strings.Contains(err.Error(), "state/step-N") {
			t.Errorf("%s: %v (code %d)", path, err, fault.Code(err))
		}
	}
}

// A run ends after the steps that it may take, with a model and a state, in the
// middle of an epoch too; with more of them it goes on as one that had them from
// the beginning, where the learning rate does not follow the length.
func TestMaxSteps(t *testing.T) {
	o := testOptions(t, 16*20)
	o.Schedule, o.WarmupSteps = train.Constant, 0
	out := o.Out
	o.Out = filepath.Join(t.TempDir(), "whole")
	whole := mustRun(t, o, train.Silent{})
	want := weights(t, o.Out)
	o.Out = out
	for _, steps := range []int{2, 5, 0} {
		o.MaxSteps = steps
		r := mustRun(t, o, train.Silent{})
		if steps > 0 && r.Steps != steps {
			t.Errorf("%d steps of %d", r.Steps, steps)
		}
		if steps == 0 && (r.Steps != whole.Steps || !bytes.Equal(weights(t, o.Out), want)) {
			t.Errorf("in the end %d steps, want %d, or other weights", r.Steps, whole.Steps)
		}
	}
	o.MaxSteps = 5
	if _, err := train.Run(t.Context(), o, train.Silent{}); fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), "max_steps") {
		t.Errorf("fewer steps than were done: %v", err)
	}
}

// A finished run says so, and writes only what is missing; more epochs go on,
// fewer are refused by name.
func TestResumeFinished(t *testing.T) {
	o := testOptions(t, 16*20)
	o.KeepEpochs = 1
	first := mustRun(t, o, train.Silent{})
	want := weights(t, o.Out)
	var again recorder
	res := mustRun(t, o, &again)
	if len(again.steps) != 0 || len(again.saved) != 0 || res.Steps != first.Steps || res.FinalLoss != first.FinalLoss || !strings.Contains(strings.Join(again.notices, " "), "finished") {
		t.Errorf("a finished run: %+v, told %q", res, again.notices)
	}
	if err := os.RemoveAll(train.FinalModel(o.Out)); err != nil {
		t.Fatal(err)
	}
	mustRun(t, o, train.Silent{})
	if !bytes.Equal(weights(t, o.Out), want) {
		t.Error("the final model that was missing has other weights")
	}
	o.Epochs = 4
	var more recorder
	if res = mustRun(t, o, &more); res.Steps != 2*first.Steps || len(more.steps) != first.Steps || more.steps[0].Step != first.Steps+1 {
		t.Errorf("two more epochs: %+v, %d steps", res, len(more.steps))
	}
	for epoch := range 5 {
		_, err := os.Stat(train.EpochModel(o.Out, epoch))
		if there := err == nil; there != (epoch == 4) {
			t.Errorf("the model of epoch %d: there %v", epoch, there)
		}
	}
	// What a user keeps in such a folder is not removed with it.
	notes := filepath.Join(train.EpochModel(o.Out, 4), "notes.txt")
	if err := os.WriteFile(notes, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	o.Epochs = 5
	var kept recorder
	mustRun(t, o, &kept)
	if _, err := os.Stat(notes); err != nil || !strings.Contains(strings.Join(kept.warned, " "), "notes.txt") {
		t.Errorf("notes in an old epoch's model: %v; warned %q", err, kept.warned)
	}
	o.Epochs = 3
	if _, err := train.Run(context.Background(), o, train.Silent{}); fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), "epochs 5, now 3") {
		t.Errorf("fewer epochs: %v", err)
	}
}

// A state that is named goes on in another folder, with a shorter n_ctx and
// another batch, weights and moments carried; left to itself, or with more, it is
// refused by name. Its own folder stays as it is.
func TestResumeNamed(t *testing.T) {
	o := testOptions(t, 16*20)
	o.Epochs = 3
	ctx, cancel := context.WithCancel(context.Background())
	stop := recorder{onStep: func(s train.StepInfo) {
		if s.Step == 4 {
			cancel()
		}
	}}
	if _, err := train.Run(ctx, o, &stop); fault.Code(err) != fault.CodeInterrupted {
		t.Fatal(err)
	}
	from := o.Out
	small := o
	small.Config.NCtx, small.Config.NPositions, small.BatchSize = 8, 8, 2
	if _, err := train.Run(context.Background(), small, train.Silent{}); fault.Code(err) != fault.CodeUsage ||
		!strings.Contains(err.Error(), "n_ctx 16, now 8") || !strings.Contains(err.Error(), "sequences_per_step 8, now 2") {
		t.Errorf("other settings without being asked: %v", err)
	}
	small.Out, small.Resume = filepath.Join(t.TempDir(), "smaller"), from
	var rec recorder
	res := mustRun(t, small, &rec)
	last := stop.steps[len(stop.steps)-1]
	if rec.steps[0].Step != 5 || rec.steps[0].Epoch != 2 || math.Abs(rec.steps[0].Loss-last.Loss) > 0.5 {
		t.Errorf("goes on at %+v after %+v", rec.steps[0], last)
	}
	// 320 tokens are 40 windows of 8: half of the second epoch is left, and the third.
	if want := 4 + 13 + 20; res.Steps > want || res.Steps < want-1 || rec.steps[0].Steps != res.Steps {
		t.Errorf("%d steps of %d, want about %d", res.Steps, rec.steps[0].Steps, want)
	}
	if told := strings.Join(rec.notices, " "); !strings.Contains(told, "n_ctx 16, now 8") || !strings.Contains(told, "n_positions 16, now 8") {
		t.Errorf("told %q", told)
	}
	small.Out, small.Config.NEmbd = filepath.Join(t.TempDir(), "narrower"), 8
	if _, err := train.Run(context.Background(), small, train.Silent{}); fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), "n_embd 16, now 8") {
		t.Errorf("another width: %v", err)
	}
	st, err := checkpoint.LatestState(filepath.Join(from, "state"))
	if err != nil || st.Step != 4 {
		t.Errorf("the state that was named: %+v, %v", st, err)
	}
}

// A newest state that is damaged is told of and passed over.
func TestResumePassesOverDamage(t *testing.T) {
	o := testOptions(t, 16*20)
	mustRun(t, o, train.Silent{})
	want := weights(t, o.Out)
	states, err := filepath.Glob(filepath.Join(o.Out, "state", "step-*"))
	if err != nil || len(states) != 2 {
		t.Fatalf("%v, %v", states, err)
	}
	if err := os.Truncate(filepath.Join(states[1], "state.safetensors"), 100); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(o.Out, ".metrics.jsonl.tmp-1"), "left by one that was killed")
	var rec recorder
	mustRun(t, o, &rec)
	if told := strings.Join(rec.warned, " "); len(rec.steps) == 0 || !strings.Contains(told, "not whole") {
		t.Errorf("%d steps, told %q", len(rec.steps), told)
	}
	if !bytes.Equal(weights(t, o.Out), want) {
		t.Error("other weights")
	}
	if left, _ := filepath.Glob(filepath.Join(o.Out, ".*")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
