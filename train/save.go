package train

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"promptgen/internal/fault"
	"promptgen/model"
	"promptgen/model/checkpoint"
	"promptgen/tokenizer"
)

// settings are the options that decide what a run computes. They are stored
// with its state: a run goes on only with the same.
type settings struct {
	Epochs      int      `json:"epochs"`
	Step        int      `json:"sequences_per_step"`
	Stride      int      `json:"stride"`
	LR          float64  `json:"lr"`
	Warmup      int      `json:"warmup_steps"`
	Schedule    Schedule `json:"schedule"`
	MaxGradNorm float64  `json:"max_grad_norm"`
	WeightDecay float64  `json:"weight_decay"`
	DType       string   `json:"dtype"`
	MaxSteps    int      `json:"max_steps"`
}

// progress is what a state says in train's own form.
type progress struct {
	Settings settings `json:"settings"`
	Place    place    `json:"place"`
}

func (t *trainer) settings() settings {
	return settings{
		Epochs: t.o.Epochs, Step: t.sched.step, Stride: t.o.Stride, LR: t.o.LR, Warmup: t.sched.warmup,
		Schedule: t.o.Schedule, MaxGradNorm: t.o.MaxGradNorm, WeightDecay: t.o.WeightDecay,
		DType: t.o.DType.String(), MaxSteps: t.o.MaxSteps,
	}
}

// saveModel writes the model folder at dir, which can be used at once. The
// steps are done and must not be lost: an interrupt does not stop it.
func (t *trainer) saveModel(ctx context.Context, dir string) error {
	m := checkpoint.New(t.params, t.vocab, tokenizer.Level(t.set.Manifest.Level), t.set.Manifest.LowerCase)
	m.Meta.Compat = t.set.Manifest.Compat
	m.Meta.Training = &checkpoint.Training{
		Steps: int64(t.at.Step), Epochs: t.at.Epoch, Tokens: t.tokensSeen(), FinalLoss: t.finalLoss(),
		Seed: t.o.Seed, DType: t.o.DType.String(), DataHash: t.hash,
	}
	if t.at.ValLoss != nil {
		m.Meta.Training.ValLoss = *t.at.ValLoss
	}
	if path := t.set.UserDictPath(); path != "" {
		dict, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("user dictionary: %w", err)
		}
		m.UserDict = dict
	}
	if err := checkpoint.Save(context.WithoutCancel(ctx), dir, m); err != nil {
		return err
	}
	t.lastSave = dir
	t.obs.Saved(dir)
	return nil
}

// saveState writes what resuming needs.
func (t *trainer) saveState(ctx context.Context) error {
	own, err := json.Marshal(progress{t.settings(), t.at})
	if err != nil {
		return err
	}
	metrics, err := os.ReadFile(filepath.Join(t.o.Out, metricsName))
	if err != nil {
		return err
	}
	s := &checkpoint.State{
		Params: t.params, M: t.opt.M, V: t.opt.V,
		Step: int64(t.at.Step), Epoch: t.at.Epoch, Position: int64(t.at.Position), Seed: t.o.Seed,
		ConfigHash: configHash(t.cfg), DataHash: t.hash, VocabHash: t.set.VocabHash(),
		Settings: own, Metrics: metrics,
	}
	if err := checkpoint.SaveState(context.WithoutCancel(ctx), filepath.Join(t.o.Out, stateName), s); err != nil {
		return err
	}
	if t.lastSave == "" {
		t.lastSave = s.Dir
	}
	return nil
}

// configHash names a config.
func configHash(c model.Config) string {
	b, _ := json.Marshal(c) // a struct of numbers and strings: cannot fail
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// interrupted saves the state of a run that was asked to stop.
func (t *trainer) interrupted(ctx context.Context) error {
	if err := t.saveState(ctx); err != nil {
		return err
	}
	return fault.With(fault.CodeInterrupted, fmt.Errorf("interrupted after step %d of %d; the state is saved in %s, the same command goes on from it",
		t.at.Step, t.sched.steps, filepath.Join(t.o.Out, stateName)))
}

// findState is the state to go on from, or nil.
func (t *trainer) findState() (*checkpoint.State, error) {
	switch t.o.Resume {
	case "never":
		return nil, nil
	case "auto":
		return checkpoint.LatestState(filepath.Join(t.o.Out, stateName))
	}
	for _, dir := range []string{filepath.Join(t.o.Resume, stateName), t.o.Resume} {
		st, err := checkpoint.LatestState(dir)
		if st != nil || err != nil {
			return st, err
		}
	}
	return checkpoint.LoadState(t.o.Resume)
}

// resume takes over a state, if it is of this very run.
func (t *trainer) resume(st *checkpoint.State) error {
	other := func(what string) error {
		return fault.Usage("%s: the state there is of a run with other %s; give --resume never to start afresh, or another --out", st.Dir, what)
	}
	var was progress
	if err := json.Unmarshal(st.Settings, &was); err != nil {
		return fault.Corrupt("%s: the settings in its state cannot be read (%w); give --resume never to start afresh", st.Dir, err)
	}
	old, _ := json.Marshal(was.Settings)
	now, _ := json.Marshal(t.settings())
	switch {
	case st.VocabHash != t.set.VocabHash():
		return fault.With(fault.CodeCorrupt, other("vocabulary"))
	case st.DataHash != t.hash:
		return other("data")
	case st.ConfigHash != configHash(t.cfg):
		return other("config")
	case st.Seed != t.o.Seed:
		return other("seed")
	case !bytes.Equal(old, now):
		return other(fmt.Sprintf("settings (%s, now %s)", old, now))
	}
	t.params, t.at = st.Params, was.Place
	t.opt = NewAdamW(t.cpu, t.params)
	t.opt.M, t.opt.V, t.opt.Steps = st.M, st.V, t.at.Step-t.at.Skipped
	t.lastSave = st.Dir
	t.obs.Notice(fmt.Sprintf("going on from step %d (%s)", t.at.Step, st.Dir))
	return nil
}
