package main

import (
	"context"
	"math"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"promptgen/cmd/promptgen/ui"
	"promptgen/data"
	"promptgen/generate"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model/checkpoint"
	"promptgen/train"
	"promptgen/train/runlog"
)

func (a *app) evalCommand() *cli.Command {
	return &cli.Command{
		Name:  "eval",
		Usage: "measure how well a model predicts text",
		Flags: append([]cli.Flag{
			modelFlag(),
			baseFlag(),
			&cli.StringFlag{Name: "data", Aliases: []string{"tokenized_data_path"}, Usage: "`FOLDER` that tokenize wrote (its held-out part, where it has one), or of the original's tokenized_train_N.txt"},
			vocabFlag("vocabulary `FILE`, for a model folder or data without one"),
			&cli.StringFlag{Name: "dtype", Value: "fp32", Usage: "number `FORMAT` of the weights, packed as generate packs them: " + oneOf(inferenceTypes)},
			deviceFlag(),
		}, corpusFlags()...),
		Action: func(c *cli.Context) error {
			var faults fault.List
			a.refuseDevice(&faults, c.String("device"))
			dt := dtype(&faults, c.String("dtype"), inferenceTypes)
			if (c.String("data") == "") == (len(c.StringSlice("corpus")) == 0) {
				faults.Addf("name what to measure with: either --data or --corpus")
			}
			if err := faults.Err("eval"); err != nil {
				return err
			}
			m, err := a.loadModel(c)
			if err != nil {
				return err
			}
			defer m.Close()
			set, err := a.openEvalData(c, m)
			if err != nil {
				return err
			}
			defer set.Close()
			if err := belongs(set, m, c.String("model")); err != nil {
				return err
			}
			cpu, err := kernel.New(a.computing(c))
			if err != nil {
				return fault.With(fault.CodeUsage, err)
			}
			defer cpu.Close()
			r, err := evaluate(c.Context, cpu, m, set, dt)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return a.console.JSON(r)
			}
			return a.console.Facts(r.facts()...)
		},
	}
}

// openEvalData opens --data, or tokenizes --corpus as the model does.
func (a *app) openEvalData(c *cli.Context, m *checkpoint.Model) (*data.Set, error) {
	if dir := c.String("data"); dir != "" {
		vocab := c.String("vocab")
		if vocab == "" {
			vocab = defaultVocab
		}
		return train.OpenData(dir, vocab)
	}
	tok, err := m.Tokenizer()
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "promptgen-eval-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp) // what is open stays readable
	dir := filepath.Join(tmp, "tokens")
	bar := a.console.Bar("tokenize", "bytes", 0)
	defer bar.Done()
	co := a.corpusOptions(c)
	_, err = data.Tokenize(c.Context, data.TokenizeOptions{
		Corpus: c.StringSlice("corpus"), Out: dir, Tokenizer: tok, DocPerLine: co.DocPerLine, TextField: co.TextField,
		Threads: c.Int("threads"), Notice: co.Notice, Progress: progress(bar), Stdin: a.in,
	})
	if err != nil {
		return nil, err
	}
	return data.OpenSet(dir)
}

// progress shows done of total on a bar.
func progress(bar *ui.Bar) func(done, total int64) {
	return func(done, total int64) {
		bar.Total(total)
		bar.Set(done, "")
	}
}

// belongs refuses data whose ids count in another vocabulary than the model's.
func belongs(set *data.Set, m *checkpoint.Model, dir string) error {
	switch {
	case m.Vocab != nil && m.Vocab.Hash() != set.VocabHash():
		return fault.Corrupt("%s: the data was tokenized with another vocabulary than the model's; tokenize it with the model folder's vocab.txt", dir)
	case set.VocabSize() > m.Params.Config.VocabSize:
		return fault.Corrupt("%s: the data's vocabulary has %d tokens, the model %d", dir, set.VocabSize(), m.Params.Config.VocabSize)
	}
	return nil
}

// evaluation is what eval prints.
type evaluation struct {
	train.EvalResult
	Perplexity     *float64 `json:"perplexity"`      // null where it is beyond all numbers
	UnigramEntropy float64  `json:"unigram_entropy"` // nats a token: what a model that knows only the frequencies of these tokens reaches
	Split          string   `json:"split"`           // heldout, or all where nothing was held out
}

func (e evaluation) facts() []ui.Fact {
	return []ui.Fact{
		{Name: "loss", Value: e.Loss},
		{Name: "perplexity", Value: e.EvalResult.Perplexity},
		{Name: "bits per character", Value: e.BitsPerChar},
		{Name: "unigram entropy", Value: e.UnigramEntropy},
		{Name: "[UNK] share", Value: e.UnkShare},
		{Name: "tokens", Value: e.Tokens},
		{Name: "measured on", Value: map[string]string{"heldout": "the held-out part", "all": "all tokens"}[e.Split]},
	}
}

// evaluate measures on what was held out, or on everything; in fp32 by the graph
// that training uses, else with weights packed as generation's are.
func evaluate(ctx context.Context, cpu *kernel.CPU, m *checkpoint.Model, set *data.Set, d kernel.DType) (evaluation, error) {
	tokens, split := set.Val, "heldout"
	if tokens.Len() == 0 {
		tokens, split = set.Train, "all"
	}
	r, err := measure(ctx, cpu, m, tokens, d)
	if err != nil {
		return evaluation{}, err
	}
	if runlog.Number(r.Loss) == nil {
		return evaluation{}, fault.Corrupt("the model's loss on this text is %v: its weights are damaged, or diverged while it was trained", r.Loss)
	}
	entropy, err := unigramEntropy(tokens)
	return evaluation{r, runlog.Number(r.Perplexity), entropy, split}, err
}

func measure(ctx context.Context, cpu *kernel.CPU, m *checkpoint.Model, tokens *data.Tokens, d kernel.DType) (train.EvalResult, error) {
	if d == kernel.FP32 {
		return train.Evaluate(ctx, cpu, m.Params, tokens)
	}
	reader, err := generate.NewReader(generate.FromParams(m.Params, nil), cpu, d)
	if err != nil {
		return train.EvalResult{}, err
	}
	defer reader.Close()
	return train.EvaluateBy(ctx, reader.Loss, m.Params.Config.NCtx, tokens)
}

// unigramEntropy is the entropy, in nats, of the tokens' own frequencies.
func unigramEntropy(tokens *data.Tokens) (float64, error) {
	counts := make([]int64, tokens.VocabSize())
	buf := make([]int32, 1<<16)
	for off := int64(0); off < tokens.Len(); off += int64(len(buf)) {
		part := buf[:min(int64(len(buf)), tokens.Len()-off)]
		if err := tokens.ReadAt(part, off); err != nil {
			return 0, err
		}
		for _, id := range part {
			counts[id]++
		}
	}
	h := 0.0
	for _, n := range counts {
		if p := float64(n) / float64(tokens.Len()); n > 0 {
			h -= p * math.Log(p)
		}
	}
	return h, nil
}
