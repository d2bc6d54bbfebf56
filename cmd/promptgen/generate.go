package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"promptgen/cmd/promptgen/ui"
	"promptgen/generate"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model/checkpoint"
)

// promptLine is what the original asks with.
const promptLine = "请输入文本，回车退出: "

func (a *app) generateCommand() *cli.Command {
	const text = "Prompts and output"
	return &cli.Command{
		Name:  "generate",
		Usage: "let a model go on with prompts",
		Flags: slices.Concat([]cli.Flag{
			modelFlag(),
			baseFlag(),
			vocabFlag("vocabulary `FILE`, for a model folder without one"),
			dtypeFlag("", inferenceTypes),
			deviceFlag(),
			&cli.StringSliceFlag{Name: "prompt", Category: text, Usage: "`TEXT` to go on with, repeat for more (default: ask, or read one a line from a pipe)"},
			&cli.StringFlag{Name: "prompts-file", Category: text, Usage: "`FILE` with one prompt a line"},
			&cli.BoolFlag{Name: "jsonl", Category: text, Usage: "print one JSON object a line for each prompt (of --prompts-file as soon as it is done, in any order)"},
			&cli.IntFlag{Name: "logprobs", Category: text, Usage: "with --json or --jsonl: each token's log-probability, and the `N` most probable tokens beside it"},
			&cli.BoolFlag{Name: "stream", Category: text, Usage: "print the first text of a prompt while it is written"},
		}, samplingFlags(), frameFlags()),
		Action: func(c *cli.Context) error {
			req, err := a.request(c)
			if err != nil {
				return err
			}
			prompts, given, err := promptsGiven(c)
			if err != nil {
				return err
			}
			g, err := a.openGenerator(c, generate.EngineOptions{})
			if err != nil {
				return err
			}
			defer g.close()
			w := &writing{console: a.console, engine: g.engine, req: req, out: a.printer(c),
				fixedSeed: c.IsSet("seed"), fixedSamples: c.IsSet("samples")}
			switch {
			case given:
				bar := a.console.Bar("generate", "prompts", int64(len(prompts)))
				defer bar.Done()
				bar.Set(0, "") // the first answer may take a while
				err = w.all(c.Context, each(prompts), c.IsSet("prompts-file") && c.Bool("jsonl"), bar)
			case ui.IsTerminal(a.in):
				err = w.converse(c.Context, a.in)
			default:
				err = w.all(c.Context, func(yield func(string) bool) error { return promptLines(a.in, "standard input", yield) }, false, nil)
			}
			if err != nil {
				return err
			}
			return w.out.end()
		},
	}
}

// writing answers prompts with one engine.
type writing struct {
	console *ui.Console
	engine  *generate.Engine
	out     *printer
	req     generate.Request

	fixedSeed, fixedSamples bool // the user has chosen them
}

// request is what is asked for a prompt.
func (w *writing) request(prompt string) generate.Request {
	r := w.req
	r.Prompt = prompt
	if !w.fixedSeed {
		r.Seed = rand.Uint64() >> 11 // any reader of JSON holds it
	}
	if r.Beams > 0 && !w.fixedSamples {
		r.Samples = min(r.Samples, r.Beams)
	}
	return r
}

// one answers a prompt.
func (w *writing) one(ctx context.Context, prompt string) error {
	r := w.request(prompt)
	if w.out.stream {
		r = w.out.streaming(r)
	}
	resp, err := w.engine.Generate(ctx, r)
	if err != nil {
		return err
	}
	return w.out.answer(prompt, resp)
}

// all answers the prompts, many at once unless their texts are streamed.
func (w *writing) all(ctx context.Context, prompts func(yield func(string) bool) error, anyOrder bool, bar *ui.Bar) error {
	done := int64(0)
	progress := func() {
		if done++; bar != nil {
			bar.Set(done, "")
		}
	}
	if w.out.stream {
		var failed error
		err := prompts(func(prompt string) bool {
			failed = w.one(ctx, prompt)
			progress()
			return failed == nil
		})
		return cmp.Or(failed, err)
	}
	ask := func(ctx context.Context, prompt string) (*generate.Response, error) {
		return w.engine.Generate(ctx, w.request(prompt))
	}
	return answerAll(ctx, prompts, !anyOrder, ask, func(q question) error {
		defer progress()
		return w.out.answer(q.prompt, q.resp)
	})
}

// each hands out the strings of a list.
func each(list []string) func(yield func(string) bool) error {
	return func(yield func(string) bool) error {
		for _, s := range list {
			if !yield(s) {
				break
			}
		}
		return nil
	}
}

// notUTF8 answers a text of another encoding.
const notUTF8 = "not UTF-8; convert it first (iconv -f GB18030 -t UTF-8)"

// promptLines hands out the lines of in that are not blank.
func promptLines(in io.Reader, name string, yield func(string) bool) error {
	n := 0
	err := ui.Lines(in, func(line string) (bool, error) {
		if n++; n == 1 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		if !utf8.ValidString(line) {
			return false, fault.Usage("%s, line %d: %s", name, n, notUTF8)
		}
		return strings.TrimSpace(line) == "" || yield(line), nil
	})
	if errors.Is(err, bufio.ErrTooLong) {
		return fault.Usage("%s, line %d: too long for a prompt", name, n+1)
	}
	return err
}

// frameFlags name the tokens that begin and end a text.
func frameFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "bos", Usage: "`TOKEN` put before the prompt (default: the model's; none for nothing)"},
		&cli.StringFlag{Name: "eos", Usage: "`TOKEN` that ends a text (default: the model's; none for nothing)"},
	}
}

// request reads the sampling flags, which are checked whole.
func (a *app) request(c *cli.Context) (generate.Request, error) {
	var faults fault.List
	a.refuseDevice(&faults, c.String("device"))
	r := samplingRequest(c)
	r.Seed, r.TopLogProbs = c.Uint64("seed"), c.Int("logprobs")
	asJSON := c.Bool("json") || c.Bool("jsonl")
	if c.Bool("json") && c.Bool("jsonl") {
		faults.Addf("--json is one document and --jsonl one line for each prompt: leave one out")
	}
	switch {
	case c.Bool("stream") && asJSON:
		faults.Addf("--stream prints text: leave out --json and --jsonl")
	case c.Bool("stream") && r.Beams > 0:
		faults.Addf("a beam search knows its texts only at the end: leave out --stream")
	case c.IsSet("logprobs") && !asJSON:
		faults.Addf("--logprobs are part of the JSON: add --json or --jsonl")
	}
	if len(c.StringSlice("prompt")) > 0 && c.String("prompts-file") != "" {
		faults.Addf("--prompt and --prompts-file: name one of them")
	}
	for i, prompt := range c.StringSlice("prompt") {
		if !utf8.ValidString(prompt) {
			faults.Addf("--prompt number %d: %s", i+1, notUTF8)
		}
	}
	positive(&faults, c, "samples")
	checked := r
	if r.Beams > 0 && !c.IsSet("samples") {
		checked.Samples = min(r.Samples, r.Beams)
	}
	if err := checked.Validate(); err != nil {
		faults.Addf("%v", err)
	}
	return r, faults.Err("generate")
}

// promptsGiven are the prompts of the flags; given says that there are flags.
func promptsGiven(c *cli.Context) (prompts []string, given bool, err error) {
	path := c.String("prompts-file")
	if path == "" {
		prompts = c.StringSlice("prompt")
		return prompts, len(prompts) > 0, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, true, fault.Usage("--prompts-file: %w", err)
	}
	defer f.Close()
	err = promptLines(f, path, func(line string) bool {
		prompts = append(prompts, line)
		return true
	})
	if err == nil && len(prompts) == 0 {
		err = fmt.Errorf("--prompts-file %s: no prompt is in it", path)
	}
	return prompts, true, fault.With(fault.CodeUsage, err)
}

// generator is a model that is ready to write.
type generator struct {
	model  *checkpoint.Model
	cpu    *kernel.CPU
	engine *generate.Engine
}

// close may follow a Close of the engine's own.
func (g *generator) close() {
	g.engine.Close()
	g.cpu.Close()
	g.model.Close()
}

// loadModel reads the model that the flags name.
func (a *app) loadModel(c *cli.Context) (*checkpoint.Model, error) {
	return a.load(c, checkpoint.LoadOptions{})
}

// loadForEngine does too, for packing: what is quantized is left so.
func (a *app) loadForEngine(c *cli.Context) (*checkpoint.Model, error) {
	return a.load(c, checkpoint.LoadOptions{KeepEncoded: true})
}

// computing is what the flags and PROMPTGEN_ISA say of the kernels.
func (a *app) computing(c *cli.Context) kernel.Options {
	return kernel.Options{Threads: c.Int("threads"), ISA: a.env["ISA"]}
}

func (a *app) load(c *cli.Context, o checkpoint.LoadOptions) (*checkpoint.Model, error) {
	o.VocabPath, o.Base = c.String("vocab"), c.String("base")
	o.Kernel = a.computing(c)
	m, err := checkpoint.Load(c.String("model"), o)
	if err != nil {
		return nil, err
	}
	for _, n := range m.Notes {
		a.console.Log.Info(n)
	}
	return m, nil
}

// openGenerator loads the model that the flags name and makes it ready.
func (a *app) openGenerator(c *cli.Context, o generate.EngineOptions) (_ *generator, err error) {
	var faults fault.List
	o.Name, o.Log = c.String("model"), a.console.Log
	o.DType = dtype(&faults, c.String("dtype"), inferenceTypes)
	if err := faults.Err(c.Command.Name); err != nil {
		return nil, err
	}
	m, err := a.loadForEngine(c)
	if err != nil {
		return nil, err
	}
	g := &generator{model: m}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	tok, err := m.Tokenizer()
	if err != nil {
		return nil, err
	}
	if o.BOS, err = frameToken(c, m, "bos", m.BOS); err != nil {
		return nil, err
	}
	if o.EOS, err = frameToken(c, m, "eos", m.EOS); err != nil {
		return nil, err
	}
	if g.cpu, err = kernel.New(a.computing(c)); err != nil {
		return nil, fault.With(fault.CodeUsage, err)
	}
	if g.engine, err = generate.NewEngineFrom(generate.FromModel(m), tok, g.cpu, o); err != nil {
		g.cpu.Close()
		return nil, err
	}
	return g, nil
}

// frameToken is the id of --bos or --eos, or the model's own.
func frameToken(c *cli.Context, m *checkpoint.Model, flag string, own int32) (*int32, error) {
	switch name := c.String(flag); name {
	case "":
		return &own, nil
	case "none":
		none := checkpoint.NoToken
		return &none, nil
	default:
		id, ok := m.Vocab.ID(name)
		if !ok {
			return nil, fault.Usage("--%s %s: the vocabulary has no such token", flag, name)
		}
		return &id, nil
	}
}

func (a *app) printer(c *cli.Context) *printer {
	return &printer{
		console: a.console, json: c.Bool("json"), jsonl: c.Bool("jsonl"), stream: c.Bool("stream"),
		logProbs: c.IsSet("logprobs"), all: []promptJSON{},
	}
}
