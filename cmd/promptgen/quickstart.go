package main

import (
	"context"
	_ "embed"
	"fmt"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/urfave/cli/v2"

	"promptgen/data"
	"promptgen/generate"
	"promptgen/internal/atomicdir"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model"
	"promptgen/model/checkpoint"
	"promptgen/tokenizer"
	"promptgen/train"
)

// sampleCorpus is a few hundred short questions and answers on everyday health
// and life, written for this project.
//
//go:embed sample/qa.txt
var sampleCorpus string

func (a *app) quickstartCommand() *cli.Command {
	return &cli.Command{
		Name:      "quickstart",
		Usage:     "run the whole chain on a sample corpus, or on your own text",
		ArgsUsage: "[TEXT FILE…]",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "dir", Value: "promptgen-quickstart", Usage: "`FOLDER` for the vocabulary, the tokens and the model"},
		}, readingFlags()...),
		Action: func(c *cli.Context) error {
			q := quickstart{app: a, dir: c.String("dir"), corpus: c.Args().Slice(), reading: a.corpusOptions(c),
				seed: c.Uint64("seed"), threads: c.Int("threads")}
			r, err := q.run(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return a.console.JSON(r)
			}
			return q.print(r)
		},
	}
}

// quickstart is one run of the whole chain.
type quickstart struct {
	app     *app
	dir     string
	corpus  []string // empty: the sample
	reading data.CorpusOptions
	seed    uint64
	threads int
}

// quickstartResult is what it prints.
type quickstartResult struct {
	Dir        string          `json:"dir"`
	Vocabulary int             `json:"vocabulary"`
	Level      tokenizer.Level `json:"level"`
	Config     model.Config    `json:"config"`
	Epochs     int             `json:"epochs"`
	Train      *train.Result   `json:"train"`
	Eval       evaluation      `json:"eval"`
	Samples    []promptJSON    `json:"samples"`
}

func (q *quickstart) path(elem ...string) string {
	return filepath.Join(append([]string{q.dir}, elem...)...)
}

func (q *quickstart) run(ctx context.Context) (*quickstartResult, error) {
	if err := q.mayBegin(); err != nil {
		return nil, err
	}
	unlock, err := atomicdir.Lock(q.dir) // the places below belong together
	if err != nil {
		return nil, err
	}
	defer unlock()
	if len(q.corpus) == 0 {
		if err := q.writeSample(ctx); err != nil {
			return nil, err
		}
		q.corpus = []string{q.path(samplePath)}
	}
	vocab, level, documents, err := q.vocabulary(ctx)
	if err != nil {
		return nil, err
	}
	if err := q.tokenize(ctx, vocab, level, documents); err != nil { // it refuses a folder of somebody else's
		return nil, err
	}
	if err := vocab.WriteFile(ctx, q.path(defaultVocab)); err != nil {
		return nil, err
	}
	r := &quickstartResult{Dir: q.dir, Vocabulary: vocab.Len(), Level: level}
	if err := q.train(ctx, r); err != nil {
		return nil, err
	}
	return r, q.measure(ctx, r)
}

// Below so many occurrences of each word there is too little to learn about
// most of them, and a model of characters does better.
const enoughOfAWord = 10

// vocabulary is one of words, or of characters where the text is too short.
func (q *quickstart) vocabulary(ctx context.Context) (*tokenizer.Vocab, tokenizer.Level, int64, error) {
	paths, err := data.ExpandGlobs(q.corpus)
	if err != nil {
		return nil, "", 0, err
	}
	o := tokenizer.BuildOptions{Size: 20_000, Level: tokenizer.LevelWord, Threads: q.threads}
	v, report, err := q.app.buildVocab(ctx, paths, q.reading, o)
	if err == nil && report.Words < enoughOfAWord*int64(v.Len()) {
		o.Level = tokenizer.LevelChar
		v, report, err = q.app.buildVocab(ctx, paths, q.reading, o)
	}
	if err != nil {
		return nil, "", 0, err
	}
	q.app.console.Log.Info("vocabulary", "level", o.Level, "tokens", v.Len(), "documents", report.Documents)
	return v, o.Level, report.Documents, nil
}

// tokenize holds a tenth of the documents out, where there are enough.
func (q *quickstart) tokenize(ctx context.Context, vocab *tokenizer.Vocab, level tokenizer.Level, documents int64) error {
	tok, err := tokenizer.New(vocab, tokenizer.Options{Level: level, LowerCase: vocab.LowerCaseByDefault()})
	if err != nil {
		return err
	}
	o := data.TokenizeOptions{
		Corpus: q.corpus, Out: q.path(defaultData), Tokenizer: tok, Threads: q.threads,
		DocPerLine: q.reading.DocPerLine, TextField: q.reading.TextField,
	}
	if documents >= 20 {
		o.ValFraction = 0.1
	}
	bar := q.app.console.Bar("tokenize", "bytes", 0)
	defer bar.Done()
	o.Progress = progress(bar)
	_, err = data.Tokenize(ctx, o)
	return err
}

// train sizes the model and its training to the text.
func (q *quickstart) train(ctx context.Context, r *quickstartResult) error {
	set, err := data.OpenSet(q.path(defaultData))
	if err != nil {
		return err
	}
	defer set.Close()
	tokens := set.Train.Len()
	work, err := q.work()
	if err != nil {
		return err
	}
	o := sizedTo(tokens, r.Vocabulary, work)
	o.Data, o.Out, o.Seed, o.Threads, o.ISA = q.path(defaultData), q.path(defaultOut), q.seed, q.threads, q.app.env["ISA"]
	if !begun(o, set) {
		o.Resume = "never"
	}
	q.app.console.Log.Info("training", "tokens", tokens, "epochs", o.Epochs, "n_layer", o.Config.NLayer, "n_embd", o.Config.NEmbd, "n_ctx", o.Config.NCtx)
	obs := &trainObserver{app: q.app}
	defer obs.done()
	r.Train, err = train.Run(ctx, o, obs)
	r.Config, r.Epochs = o.Config, o.Epochs
	return err
}

// The work that a quickstart may take, in floating-point operations: half a
// minute of two cores with AVX-512, and without vector instructions a minute.
const (
	quickstartWork       = 2.5e12
	quickstartWorkPureGo = 4e11
)

// mostEpochs is how often a small text is read at most.
const mostEpochs = 20

// sizedTo chooses a model and a training for so many tokens: wide enough to
// learn the text, small enough for the work allowed, and ended before a small
// text is learnt by heart.
func sizedTo(tokens int64, vocab int, work float64) train.Options {
	o := train.DefaultOptions()
	o.Config = model.Config{NCtx: 64, NEmbd: 160, NHead: 4, NLayer: 3, LayerNormEpsilon: 1e-5, InitializerRange: 0.02,
		EmbdDrop: 0.1, AttnDrop: 0.1, ResidDrop: 0.1}
	o.BatchSize, o.LR = 4, 1.5e-3
	if tokens > 200_000 {
		o.Config.NCtx, o.Config.NEmbd, o.Config.NHead, o.Config.NLayer = 128, 192, 4, 4
		o.BatchSize, o.LR = 8, 1e-3
	}
	for o.Config.NCtx > 8 && int64(o.Config.NCtx)*8 > tokens {
		o.Config.NCtx /= 2
	}
	o.Config.NPositions = o.Config.NCtx
	width := float64(o.Config.NEmbd)
	perToken := 6 * (12*float64(o.Config.NLayer)*width*width + float64(vocab)*width)
	o.Epochs = int(min(mostEpochs, max(1, work/(perToken*float64(tokens)))))
	return o
}

// work is what this machine can do in the time that a quickstart may take.
func (q *quickstart) work() (float64, error) {
	cpu, err := kernel.New(kernel.Options{Threads: q.threads, ISA: q.app.env["ISA"]})
	if err != nil {
		return 0, fault.With(fault.CodeUsage, err)
	}
	defer cpu.Close()
	if cpu.ISA() == "go" {
		return quickstartWorkPureGo, nil
	}
	return quickstartWork, nil
}

// measure evaluates the model and lets it write.
func (q *quickstart) measure(ctx context.Context, r *quickstartResult) error {
	m, err := checkpoint.Load(r.Train.Model, checkpoint.LoadOptions{})
	if err != nil {
		return err
	}
	defer m.Close()
	cpu, err := kernel.New(kernel.Options{Threads: q.threads, ISA: q.app.env["ISA"]})
	if err != nil {
		return fault.With(fault.CodeUsage, err)
	}
	defer cpu.Close()
	set, err := data.OpenSet(q.path(defaultData))
	if err != nil {
		return err
	}
	defer set.Close()
	if r.Eval, err = evaluate(ctx, cpu, m, set, kernel.FP32); err != nil {
		return err
	}
	return q.sample(ctx, m, cpu, r)
}

// A small model rambles less when it draws from what it is sure of.
const (
	quickstartTemperature = 0.7
	quickstartTopK        = 10
)

// sample writes on from beginnings of the corpus.
func (q *quickstart) sample(ctx context.Context, m *checkpoint.Model, cpu *kernel.CPU, r *quickstartResult) error {
	prompts, err := q.beginnings(ctx)
	if err != nil {
		return err
	}
	tok, err := m.Tokenizer()
	if err != nil {
		return err
	}
	engine, err := generate.NewEngine(m.Params, tok, cpu, generate.EngineOptions{BOS: &m.BOS, EOS: &m.EOS})
	if err != nil {
		return err
	}
	defer engine.Close()
	for _, p := range prompts {
		req := generate.Defaults()
		req.Prompt, req.Samples, req.Length, req.Seed = p, 2, 60, q.seed
		req.Temperature, req.TopK = quickstartTemperature, quickstartTopK
		resp, err := engine.Generate(ctx, req)
		if err != nil {
			return err
		}
		r.Samples = append(r.Samples, (&printer{}).answerJSON(p, resp))
	}
	return nil
}

// beginnings are the first words of two documents, as prompts.
func (q *quickstart) beginnings(ctx context.Context) ([]string, error) {
	paths, err := data.ExpandGlobs(q.corpus)
	if err != nil {
		return nil, err
	}
	const length, apart = 6, 100 // characters; documents
	var prompts []string
	n := 0
	for d, err := range data.Documents(ctx, paths, q.reading) {
		if err != nil {
			return nil, err
		}
		if n++; n%apart != 1 {
			continue
		}
		words := []rune(strings.TrimSpace(d.Text))
		if i := strings.IndexFunc(string(words), unicode.IsPunct); i > 0 {
			words = []rune(string(words)[:i])
		}
		prompts = append(prompts, string(words[:min(length, len(words))]))
		if len(prompts) == 2 {
			break
		}
	}
	return prompts, nil
}

// print shows what came of it and how to go on.
func (q *quickstart) print(r *quickstartResult) error {
	out := q.app.text
	fmt.Fprintf(out, "%d tokens in the vocabulary; %d steps over %d epochs; loss %.3f\n",
		r.Vocabulary, r.Train.Steps, r.Epochs, r.Train.FinalLoss)
	if r.Eval.Split == "heldout" {
		fmt.Fprintf(out, "on text held out: loss %.3f, perplexity %.1f (knowing only how frequent each token is: loss %.3f)\n",
			r.Eval.Loss, r.Eval.EvalResult.Perplexity, r.Eval.UnigramEntropy)
	}
	for _, p := range r.Samples {
		fmt.Fprintf(out, "\n%s …\n", p.Prompt)
		for _, s := range p.Samples {
			fmt.Fprintln(out, "  - "+strings.ReplaceAll(s.Text, "\n", "\n    "))
		}
	}
	model := r.Train.Model
	fmt.Fprintf(out, `
Go on with:
  %[1]s generate --model %[2]s --temperature %[4]g --top-k %[5]d
  %[1]s generate --model %[2]s --prompt %[3]s --samples 3 --length 60
  %[1]s serve --model %[2]s
  %[1]s quickstart --dir my-model my-text.txt
`, q.app.name(), shellQuote(model), shellQuote(r.Samples[0].Prompt), quickstartTemperature, quickstartTopK)
	return nil
}
