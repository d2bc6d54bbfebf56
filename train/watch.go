package train

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"unicode/utf8"

	"promptgen/generate"
	"promptgen/internal/host"
	"promptgen/internal/kernel"
	"promptgen/tokenizer"
	"promptgen/train/report"
	"promptgen/train/runlog"
)

// startWatching readies what looks at the run besides its steps.
func (t *trainer) startWatching(ctx context.Context) error {
	if err := t.learnFacts(ctx); err != nil {
		return err
	}
	if err := t.describe(ctx); err != nil {
		return err
	}
	if len(t.o.SamplePrompts) == 0 {
		return nil
	}
	m, err := t.asModel()
	if err != nil {
		return err
	}
	tok, err := m.Tokenizer()
	if err != nil {
		return fmt.Errorf("sample prompts: %w", err)
	}
	t.sampler = &sampler{prompts: t.o.SamplePrompts, tok: tok, bos: m.BOS, eos: m.EOS, seed: t.o.Seed, dtype: t.o.DType}
	return nil
}

// describe writes run.json: what this run is, and what repeats it.
func (t *trainer) describe(ctx context.Context) error {
	options := t.o
	options.Shards = t.sched.shards // the default depends on how many train together
	o, err := json.Marshal(options)
	if err != nil {
		return err
	}
	machine := host.ReadMachine()
	machine.ISA, machine.Threads = t.cpu.ISA(), t.cpu.Threads()
	r := &runlog.Run{
		Command: t.o.Command, Options: o, Changed: t.changed, Plan: t.planned(), Data: t.facts,
		Program: host.ReadProgram(), Host: machine,
	}
	if t.recipe, err = r.Encode(); err != nil {
		return err
	}
	return runlog.WriteRun(ctx, t.o.Out, r)
}

// writeReport makes report.html of what the run has left so far.
func (t *trainer) writeReport(ctx context.Context) error {
	return t.leadOnly(func() error {
		if err := t.metrics.Flush(); err != nil {
			return err
		}
		run, err := report.Read(t.o.Out)
		if err != nil {
			return err
		}
		return report.WriteFile(context.WithoutCancel(ctx), filepath.Join(t.o.Out, report.Name), run)
	})
}

// planned is what the run amounts to.
func (t *trainer) planned() runlog.Plan {
	p := runlog.Plan{
		Parameters: t.cfg.NumParams(), Trained: t.opt.Trained(),
		Windows: t.sched.windows, PerStep: t.sched.step, MicroBatch: t.sched.micro,
		Steps: t.sched.steps, StepsEpoch: t.sched.perStep, Warmup: t.sched.warmup,
	}
	s := t.budget.settings
	if p.Recomputed = s.Recomputed(t.cfg); p.Recomputed > 0 {
		p.Recompute = s.Recompute.String()
	}
	if t.o.OptimizerBF16 {
		p.Moments = kernel.BF16.String()
	}
	m := t.budget.parts
	p.Bytes = m.Total()
	p.Parts = []runlog.Part{
		{Name: "weights", Bytes: m.Weights}, {Name: "gradients", Bytes: m.Gradients}, {Name: "optimizer", Bytes: m.Optimizer},
		{Name: "activations", Bytes: m.Activations}, {Name: "workspace", Bytes: m.Workspace}, {Name: "runtime", Bytes: m.Runtime},
	}
	return p
}

// validate measures the model on the held-out tokens, if there are any, keeps
// it where it is the best so far, and lets it write. A second call at the same
// step does nothing. An interrupt ends it; the next start then does it first.
func (t *trainer) validate(ctx context.Context) error {
	if t.checked == t.at.Step {
		return nil
	}
	t.checked = t.at.Step
	if t.set.Val != nil && t.set.Val.Len() >= 2 {
		r, err := t.evaluate(ctx)
		if err != nil && ctx.Err() != nil && t.group.Size() == 1 {
			t.at.EvalDue = t.at.Position < t.sched.windows // else the end of the epoch is due as a whole
			return t.interrupted(ctx)
		}
		if err != nil {
			return fmt.Errorf("validation: %w", err)
		}
		if err := t.validated(ctx, r); err != nil {
			return err
		}
	}
	t.at.EvalDue = false
	return t.leadOnly(func() error {
		if err := t.sample(context.WithoutCancel(ctx)); err != nil {
			return fmt.Errorf("sample prompts: %w", err)
		}
		return t.metrics.Flush()
	})
}

// validated takes note of a validation.
func (t *trainer) validated(ctx context.Context, r EvalResult) error {
	if err := t.guardValidation(r.Loss); err != nil {
		return err
	}
	t.at.ValLoss = &r.Loss
	info := ValidationInfo{Step: t.at.Step, Epoch: t.epochNow(), EvalResult: r}
	info.Best = t.at.Best == nil || r.Loss < *t.at.Best
	if err := t.metrics.Add(info.line()); err != nil {
		return err
	}
	t.obs.Validation(info)
	if !info.Best {
		t.at.Stale++
		if t.stoppedEarly() {
			t.obs.Notice(fmt.Sprintf("stopping early after step %d: %d validations without a lower loss than %.4f, whose model is in %s",
				t.at.Step, t.at.Stale, *t.at.Best, BestModel(t.o.Out)))
		}
		return nil
	}
	if err := t.guardSave(); err != nil {
		return err
	}
	t.at.Best, t.at.Stale = &r.Loss, 0
	return t.saveModel(ctx, BestModel(t.o.Out))
}

// stoppedEarly says whether the validations have stopped getting better.
func (t *trainer) stoppedEarly() bool { return t.o.EarlyStop > 0 && t.at.Stale >= t.o.EarlyStop }

// sampleLength is how many tokens a sample has at most.
const sampleLength = 50

// sampler lets the model write during its training.
type sampler struct {
	prompts  []string
	tok      *tokenizer.Tokenizer
	bos, eos int32
	seed     uint64
	dtype    kernel.DType
}

// samplesNeed is the memory that sample takes (generate.Need) and its tokenizer.
func (t *trainer) samplesNeed() (weights []int, mapped, heap int64) {
	tokens := 0
	for _, p := range t.o.SamplePrompts {
		tokens = max(tokens, utf8.RuneCountInString(p)+1+sampleLength) // a token is a character or more
	}
	weights, mapped, heap = generate.Need(t.cfg, t.untied, t.o.DType, min(tokens, t.cfg.NCtx))
	var userDict int64
	if info, err := os.Stat(t.set.UserDictPath()); err == nil {
		userDict = info.Size()
	}
	return weights, mapped, heap + tokenizer.Bytes(t.vocab, tokenizer.Level(t.set.Manifest.Level), userDict)
}

// sample writes on from each prompt.
func (t *trainer) sample(ctx context.Context) error {
	s := t.sampler
	if s == nil {
		return nil
	}
	engine, err := generate.NewEngine(t.params, s.tok, t.cpu, generate.EngineOptions{
		DType: s.dtype, Slots: 1, PrefixTokens: -1, BOS: &s.bos, EOS: &s.eos, Lent: t.graph.Spare(),
	})
	if err != nil {
		return err
	}
	defer engine.Close()
	for _, p := range s.prompts {
		req := generate.Defaults()
		req.Prompt, req.Samples, req.Length, req.Seed = p, 1, sampleLength, s.seed
		answer, err := engine.Generate(ctx, req)
		if err != nil {
			return err
		}
		info := SampleInfo{Step: t.at.Step, Epoch: t.epochNow(), Prompt: p, Text: answer.Samples[0].Text}
		if err := t.metrics.Add(runlog.Line{Step: info.Step, Epoch: info.Epoch, Prompt: p, Text: info.Text}); err != nil {
			return err
		}
		t.obs.Sample(info)
	}
	return nil
}
