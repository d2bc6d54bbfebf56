package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"promptgen/internal/atomicdir"
	"promptgen/internal/bytesize"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model/checkpoint"
	"promptgen/tokenizer"
	"promptgen/train/runlog"
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
	Shards      int      `json:"shards"`

	Floor     float64 `json:"lr_floor,omitempty"`
	DecayAll  bool    `json:"decay_all,omitempty"`
	Freeze    string  `json:"freeze,omitempty"`
	LoRA      string  `json:"lora,omitempty"`
	Base      string  `json:"base,omitempty"`      // hash of the weights that adapters are trained on
	Origin    string  `json:"init_from,omitempty"` // of the run; a state of before it was kept has none
	Smoothing float64 `json:"label_smoothing,omitempty"`
	Moments   string  `json:"optimizer_state,omitempty"` // bf16; empty: fp32
	EvalEvery int     `json:"eval_every,omitempty"`      // with EarlyStop it decides where the run ends
	EarlyStop int     `json:"early_stop,omitempty"`
}

// progress is what a state says in train's own form.
type progress struct {
	Settings settings `json:"settings"`
	Place    place    `json:"place"`
	Changed  string   `json:"changed,omitempty"` // settings, on the way to here
}

func (t *trainer) settings() settings {
	s := settings{
		Floor: t.o.floor(), DecayAll: t.o.DecayAll, Freeze: strings.Join(t.o.Freeze, ","), Smoothing: t.o.LabelSmoothing, EarlyStop: t.o.EarlyStop,
		Epochs: t.o.Epochs, Step: t.sched.step, Stride: t.o.Stride, LR: t.o.LR, Warmup: t.sched.warmup,
		Schedule: t.o.Schedule, MaxGradNorm: t.o.MaxGradNorm, WeightDecay: t.o.WeightDecay,
		DType: t.o.DType.String(), MaxSteps: t.o.MaxSteps, Shards: t.sched.shards, Origin: t.origin,
	}
	if t.o.OptimizerBF16 {
		s.Moments = kernel.BF16.String()
	}
	if l := t.o.LoRA; l.On() {
		s.LoRA = fmt.Sprintf("rank %d, alpha %g, dropout %g, %s", l.Rank, l.Alpha, l.Dropout, strings.Join(l.Targets, ","))
		s.Base = t.base.Hash
	}
	if s.EarlyStop > 0 {
		s.EvalEvery = t.o.EvalEvery
	}
	return s
}

// saveModel writes the model folder at dir, which can be used at once. The
// steps are done and must not be lost: an interrupt does not stop it.
func (t *trainer) saveModel(ctx context.Context, dir string) error {
	return t.leadOnly(func() error { return t.writeModel(ctx, dir) })
}

func (t *trainer) writeModel(ctx context.Context, dir string) error {
	m, err := t.asModel()
	if err != nil {
		return err
	}
	if t.recipe == nil { // the run was finished before
		t.recipe, _ = os.ReadFile(filepath.Join(t.o.Out, runlog.RunName))
	}
	m.Meta.Training = &checkpoint.Training{
		Steps: int64(t.at.Step), Epochs: t.at.Epoch, Tokens: t.tokensSeen(), FinalLoss: t.finalLoss(),
		Seed: t.o.Seed, DType: t.o.DType.String(), DataHash: t.hash, Run: t.recipe,
	}
	if t.at.ValLoss != nil {
		m.Meta.Training.ValLoss = *t.at.ValLoss
	}
	if err := checkpoint.Save(context.WithoutCancel(ctx), dir, m); err != nil {
		return err
	}
	t.lastSave = dir
	t.obs.Saved(dir)
	return nil
}

// saveEpoch writes the model of the epoch that was just done, and removes those
// that KeepEpochs does not keep.
func (t *trainer) saveEpoch(ctx context.Context) error {
	if err := t.saveModel(ctx, EpochModel(t.o.Out, t.at.Epoch)); err != nil {
		return err
	}
	if t.o.KeepEpochs == 0 {
		return nil
	}
	return t.leadOnly(func() error {
		for _, e := range epochsIn(t.o.Out) {
			if e > t.at.Epoch-t.o.KeepEpochs {
				break
			}
			dir := EpochModel(t.o.Out, e)
			if err := checkpoint.MayReplace(dir); err != nil {
				t.obs.Warning(fmt.Sprintf("an old epoch's model is not removed: %v", err))
				continue
			}
			if err := atomicdir.Remove(context.WithoutCancel(ctx), dir); err != nil {
				return fmt.Errorf("removing an old epoch's model: %w", err)
			}
		}
		return nil
	})
}

// asModel is the model as it stands, with what is needed to read and write text.
func (t *trainer) asModel() (*checkpoint.Model, error) {
	m := checkpoint.New(t.params, t.vocab, tokenizer.Level(t.set.Manifest.Level), t.set.Manifest.LowerCase)
	m.Meta.Compat = t.set.Manifest.Compat
	if t.o.LoRA.On() {
		m.Base = &t.base
	}
	if path := t.set.UserDictPath(); path != "" {
		dict, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("user dictionary: %w", err)
		}
		m.UserDict = dict
	}
	return m, nil
}

// saveState writes what resuming needs.
func (t *trainer) saveState(ctx context.Context) error {
	return t.leadOnly(func() error { return t.writeState(ctx) })
}

func (t *trainer) writeState(ctx context.Context) error {
	own, err := json.Marshal(progress{t.settings(), t.at, t.changed})
	if err != nil {
		return err
	}
	metrics, err := os.ReadFile(filepath.Join(t.o.Out, runlog.MetricsName))
	if err != nil {
		return err
	}
	s := &checkpoint.State{
		Params: t.params, M: t.opt.M, V: t.opt.V,
		Step: int64(t.at.Step), Epoch: t.at.Epoch, Seed: t.o.Seed,
		DataHash: t.hash, VocabHash: t.set.VocabHash(),
		Settings: own, Metrics: metrics,
	}
	if err := checkpoint.SaveState(context.WithoutCancel(ctx), filepath.Join(t.o.Out, stateName), s); err != nil {
		return err
	}
	t.lastSave, t.lastState, t.savedAt = s.Dir, s.Dir, time.Now()
	return nil
}

// stateDue tells that SaveEvery or SaveInterval asks for a state now.
func (t *trainer) stateDue() bool {
	return t.o.SaveEvery > 0 && t.at.Step%t.o.SaveEvery == 0 ||
		t.intervalOver()
}

// stateBytes and modelBytes are what a training state and a model folder take
// on the disk, but for some kilobytes.
func (t *trainer) modelBytes() int64 {
	if t.o.LoRA.On() {
		return 4 * t.o.LoRA.Len(t.cfg)
	}
	return t.budget.parts.Weights
}
func (t *trainer) stateBytes() int64 { return t.modelBytes() + t.budget.parts.Optimizer }

// explainFull says of a full disk what is needed and where the run stands.
func (t *trainer) explainFull(err error) error {
	if !atomicdir.IsFull(err) {
		return err
	}
	need := t.stateBytes() + t.modelBytes()
	takes := fmt.Sprintf("a training state takes %s and a model %s", bytesize.Format(t.stateBytes()), bytesize.Format(t.modelBytes()))
	line := fmt.Sprintf("the disk of %s is full: %s", t.o.Out, takes)
	if errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) { // whatever is free
		line = fmt.Sprintf("%s: a limit forbids to write more: %s; raise it (quota, ulimit -f)", t.o.Out, takes)
	} else {
		if free, ok := atomicdir.FreeSpace(t.o.Out); ok {
			line += fmt.Sprintf(", and %s are free", bytesize.Format(free))
		}
		line += fmt.Sprintf("; free %s", bytesize.Format(need))
	}
	line += " and give the same command again"
	switch {
	case t.lastState != "":
		line += ", it goes on from " + t.lastState
	case t.lastSave != "":
		line += "; it begins anew, and what was saved is the model " + t.lastSave
	default:
		line += "; nothing was saved yet"
	}
	return fmt.Errorf("%s (%w)", line, err)
}

// warnSpace tells before the training that its first save will not fit.
func (t *trainer) warnSpace() {
	need := t.stateBytes() + t.modelBytes()
	if free, ok := atomicdir.FreeSpace(t.o.Out); ok && free < need {
		t.obs.Notice(fmt.Sprintf("the disk of %s has %s free, and saving takes %s: free some before the first save", t.o.Out, bytesize.Format(free), bytesize.Format(need)))
	}
}

// interrupted saves the state of a run that was asked to stop.
func (t *trainer) interrupted(ctx context.Context) error {
	if err := t.saveState(ctx); err != nil {
		return err
	}
	return t.group.Together(fault.With(fault.CodeInterrupted, fmt.Errorf("interrupted after step %d of %d; the state is saved in %s, the same command goes on from it",
		t.at.Step, t.sched.steps, filepath.Join(t.o.Out, stateName))))
}
