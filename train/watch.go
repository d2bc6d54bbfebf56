package train

import (
	"context"
	"fmt"

	"promptgen/generate"
	"promptgen/internal/kernel"
	"promptgen/tokenizer"
	"promptgen/train/runlog"
)

// startWatching readies what looks at the run besides its steps.
func (t *trainer) startWatching() error {
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

// validate measures the model on the held-out tokens, if there are any, keeps
// it where it is the best so far, and lets it write. A second call at the same
// step does nothing. An interrupt ends it; the next start then does it first.
func (t *trainer) validate(ctx context.Context) error {
	if t.checked == t.at.Step {
		return nil
	}
	t.checked = t.at.Step
	if t.set.Val != nil && t.set.Val.Len() >= 2 {
		r, err := evaluate(ctx, t.graph, t.set.Val, t.sched.batch, t.cfg.NCtx)
		if err != nil && ctx.Err() != nil {
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
	if err := t.sample(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("sample prompts: %w", err)
	}
	return t.metrics.Flush()
}

// validated takes note of a validation.
func (t *trainer) validated(ctx context.Context, r EvalResult) error {
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

// sample writes on from each prompt.
func (t *trainer) sample(ctx context.Context) error {
	s := t.sampler
	if s == nil {
		return nil
	}
	engine, err := generate.NewEngine(t.params, s.tok, t.cpu, generate.EngineOptions{
		DType: s.dtype, Slots: len(s.prompts), BOS: &s.bos, EOS: &s.eos,
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
