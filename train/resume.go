package train

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"promptgen/data"
	"promptgen/internal/fault"
	"promptgen/model/checkpoint"
)

// findState is the state to go on from, or nil.
func (t *trainer) findState() (*checkpoint.State, error) {
	switch t.o.Resume {
	case "never":
		return nil, nil
	case "auto":
		return checkpoint.LatestState(filepath.Join(t.o.Out, stateName))
	}
	return namedState(t.o.Resume)
}

// namedState is the state that the user named: the newest of a run's or of its
// state/, or one of them. What is none at all is a fault of usage, not damage.
func namedState(path string) (*checkpoint.State, error) {
	const give = "give --resume the output folder of a training, or one of its state/step-N"
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fault.Usage("resume: %w; %s", err, give)
	case !info.IsDir():
		return nil, fault.Usage("resume: %s is a file and no training state; %s", path, give)
	}
	for _, dir := range []string{filepath.Join(path, stateName), path} {
		st, err := checkpoint.LatestState(dir)
		if st != nil || err != nil {
			return st, err
		}
	}
	has := func(name string) bool { _, err := os.Stat(filepath.Join(path, name)); return err == nil }
	switch {
	case has("state.json") || has("state.safetensors") || strings.HasPrefix(filepath.Base(path), "step-"):
		return checkpoint.LoadState(path)
	case has("config.json") || has("promptgen.json") || has("adapter_config.json"):
		return nil, fault.Usage("resume: %s is a model and no training state; %s, or begin a new training with --init-from %s", path, give, path)
	}
	return nil, fault.Usage("resume: %s holds no training state; %s", path, give)
}

// resume takes over a state. It must be of this very run: only more epochs may
// be asked for. A state that was named may also go on in smaller steps: with a
// shorter n_ctx or another batch, for a machine with less memory.
func (t *trainer) resume(ctx context.Context, st *checkpoint.State) error {
	var was progress
	if err := json.Unmarshal(st.Settings, &was); err != nil {
		return fault.Corrupt("%s: the settings in its state cannot be read (%w); give --resume never to start afresh", st.Dir, err)
	}
	if t.o.WarmupSteps < 0 { // the default follows from the length of the run, which may have grown
		t.sched.warmup = was.Settings.Warmup
	}
	was.Settings.Shards = max(1, was.Settings.Shards) // a state of before there were any does not say
	if t.o.Shards == 0 {
		t.sched.shards = min(was.Settings.Shards, t.sched.step)
	}
	if err := t.enoughShards(); err != nil {
		return err
	}
	if t.o.LoRA.On() { // the base of adapters is not in the state
		if err := t.initFrom(t.o.InitFrom); err != nil {
			return err
		}
		if was.Settings.Origin == "" {
			t.origin = ""
		}
	} else if err := t.asBegun(was.Settings.Origin); err != nil {
		return err
	}
	changed, err := t.changes(st, was.Settings)
	if err != nil {
		return err
	}
	t.at = was.Place
	t.changed = was.Changed
	if len(changed) > 0 {
		if t.changed != "" {
			t.changed += "; "
		}
		t.changed += fmt.Sprintf("from step %d on %s", t.at.Step, strings.Join(changed, ", "))
	}
	if !t.o.LoRA.On() {
		if err := t.takeMemory(st.Untied); err != nil {
			return err
		}
	}
	if t.opt, err = t.newOptimizer(); err != nil {
		return err
	}
	if err := st.Read(t.params, t.opt.M, t.opt.V); err != nil {
		return err
	}
	t.opt.Steps = t.at.Step - t.at.Skipped
	t.replan(st, was.Settings)
	t.lastSave, t.lastState = st.Dir, st.Dir
	states := filepath.Join(t.o.Out, stateName)
	if err := checkpoint.RemoveStates(ctx, states, t.keepUpTo(st)); err != nil {
		return err
	}
	if err := checkpoint.PruneStates(ctx, states); err != nil {
		return err
	}
	for _, d := range st.Damaged {
		t.obs.Warning(fmt.Sprintf("a newer training state is not whole and is passed over: %v", d))
	}
	line := fmt.Sprintf("going on from step %d (%s)", t.at.Step, st.Dir)
	if len(changed) > 0 {
		line += fmt.Sprintf(", with other settings: %s; the learning rate follows the new length of %d steps", strings.Join(changed, ", "), t.sched.steps)
	}
	t.obs.Notice(line)
	return nil
}

// explicit tells that the user named the state to go on from.
func (t *trainer) explicit() bool { return t.o.Resume != "auto" && t.o.Resume != "never" }

// keepUpTo is the step up to which the states in the output folder are of the
// history that st belongs to: none where st comes from elsewhere.
func (t *trainer) keepUpTo(st *checkpoint.State) int64 {
	if same, err := filepath.Rel(filepath.Join(t.o.Out, stateName), filepath.Dir(st.Dir)); err == nil && same == "." {
		return st.Step
	}
	return -1
}

// changes lists what differs between the state's run and this one, and refuses,
// naming all of it, what may not.
func (t *trainer) changes(st *checkpoint.State, was settings) (allowed []string, err error) {
	code := fault.CodeUsage
	var refused []string
	if st.VocabHash != t.set.VocabHash() {
		code = fault.CodeCorrupt
		refused = append(refused, fmt.Sprintf("another vocabulary (hash %.12s, now %.12s)", st.VocabHash, t.set.VocabHash()))
	} else if st.DataHash != t.hash {
		refused = append(refused, fmt.Sprintf("other data (hash %.12s, now %.12s)", st.DataHash, t.hash))
	}
	if st.Seed != t.o.Seed {
		refused = append(refused, fmt.Sprintf("other settings: seed %d, now %d", st.Seed, t.o.Seed))
	}
	judge := func(kind string, ds []difference, may func(difference) bool) {
		for _, d := range ds {
			if may(d) {
				allowed = append(allowed, d.String())
			} else {
				refused = append(refused, kind+": "+d.String())
			}
		}
	}
	from := st.Config
	judge("another config", differences(from, t.cfg), func(d difference) bool {
		return t.explicit() && (d.key == "n_ctx" && t.cfg.NCtx < from.NCtx || d.key == "n_positions" && t.cfg.NPositions < from.NPositions)
	})
	judge("other settings", differences(was, t.settings()), func(d difference) bool {
		switch d.key {
		case "epochs":
			return t.o.Epochs > was.Epochs
		case "max_steps":
			return was.MaxSteps > 0 && (t.o.MaxSteps == 0 || t.o.MaxSteps > was.MaxSteps)
		case "sequences_per_step", "stride", "shards", "optimizer_state":
			return t.explicit()
		}
		return false
	})
	if was.Base != t.settings().Base {
		code = fault.CodeCorrupt
	}
	if len(refused) > 0 {
		return nil, fault.With(code, fmt.Errorf("%s: the state there is of a run with %s; give what it had, --resume never to start afresh, or another --out", st.Dir, strings.Join(refused, "; ")))
	}
	return allowed, nil
}

// difference is a key with the values that it had and has.
type difference struct{ key, was, now string }

func (d difference) String() string { return fmt.Sprintf("%s %s, now %s", d.key, d.was, d.now) }

// fieldsOf are the values of a struct of plain values by the keys of its JSON.
func fieldsOf(v any) map[string]string {
	var raw map[string]json.RawMessage
	b, _ := json.Marshal(v) // numbers and strings: cannot fail
	json.Unmarshal(b, &raw)
	m := make(map[string]string, len(raw))
	for key, value := range raw {
		m[key] = string(value)
	}
	return m
}

// differences compares two structs of plain values by the keys of their JSON.
func differences(was, now any) (ds []difference) {
	a, b := fieldsOf(was), fieldsOf(now)
	all := maps.Clone(a)
	maps.Copy(all, b)
	keys := make([]string, 0, len(all))
	for key := range all {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		if a[key] != b[key] {
			ds = append(ds, difference{key, cmp.Or(a[key], "unset"), cmp.Or(b[key], "unset")})
		}
	}
	return ds
}

// replan counts the steps of the run from where the state stands. With other
// windows the running epoch goes on at the same share of them.
func (t *trainer) replan(st *checkpoint.State, was settings) {
	s := &t.sched
	stride := was.Stride
	if stride == 0 {
		stride = st.Config.NCtx
	}
	if windows := data.CountWindows(t.set.Train.Len(), st.Config.NCtx, stride); windows != s.windows && windows > 0 {
		t.at.Position = int(int64(t.at.Position) * int64(s.windows) / int64(windows))
	}
	s.steps = t.at.Step
	if left := t.o.Epochs - t.at.Epoch; left > 0 {
		s.steps += (s.windows-t.at.Position+s.step-1)/s.step + (left-1)*s.perStep
	}
	if t.o.MaxSteps > 0 {
		s.steps = min(s.steps, t.o.MaxSteps)
	}
}

// done tells that nothing is left to do but to save the final model.
func (t *trainer) done() bool {
	return !t.at.EvalDue && (t.stoppedEarly() || t.at.Epoch >= t.o.Epochs || t.at.Step >= t.sched.steps && t.at.Position < t.sched.windows)
}
