package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

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
	d := generate.Defaults()
	const text, sampling = "Prompts and output", "Sampling"
	return &cli.Command{
		Name:  "generate",
		Usage: "let a model go on with prompts",
		Flags: append([]cli.Flag{
			modelFlag(),
			vocabFlag("vocabulary `FILE`, for a model folder without one"),
			dtypeFlag("", inferenceTypes),
			deviceFlag(),
			&cli.StringSliceFlag{Name: "prompt", Category: text, Usage: "`TEXT` to go on with, repeat for more (default: ask, or read one a line from a pipe)"},
			&cli.StringFlag{Name: "prompts-file", Category: text, Usage: "`FILE` with one prompt a line"},
			&cli.BoolFlag{Name: "jsonl", Category: text, Usage: "print one JSON object a line for each prompt, as soon as it is done"},
			&cli.BoolFlag{Name: "stream", Category: text, Usage: "print the text while it is written"},
			&cli.IntFlag{Name: "length", Category: sampling, Value: d.Length, Usage: "tokens to write at most"},
			&cli.IntFlag{Name: "min-length", Category: sampling, Usage: "tokens before which a text does not end"},
			&cli.IntFlag{Name: "samples", Category: sampling, Value: d.Samples, Usage: "texts for each prompt"},
			&cli.Float64Flag{Name: "temperature", Category: sampling, Value: d.Temperature, Usage: "below 1: more of the same; above: more of the rare; 0: greedy"},
			&cli.IntFlag{Name: "top-k", Category: sampling, Value: d.TopK, Usage: "draw from the `K` most probable tokens (0: all)"},
			&cli.Float64Flag{Name: "top-p", Category: sampling, Usage: "draw from the most probable tokens that make up `P` together (0: all)"},
			&cli.Float64Flag{Name: "repetition-penalty", Category: sampling, Value: d.RepetitionPenalty, Usage: "above 1: what was written becomes less probable"},
			&cli.BoolFlag{Name: "greedy", Category: sampling, Usage: "always the most probable token"},
			&cli.StringSliceFlag{Name: "stop", Category: sampling, Usage: "end before this `TEXT`, repeat for more"},
		}, frameFlags()...),
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
			out := a.printer(c)
			one := func(prompt string) error {
				r := req
				r.Prompt = prompt
				if !c.IsSet("seed") {
					r.Seed = rand.Uint64()
				}
				return out.generate(c.Context, g.engine, r)
			}
			switch {
			case given:
				for _, p := range prompts {
					if err := one(p); err != nil {
						return err
					}
				}
			case ui.IsTerminal(a.in):
				err = a.console.Ask(a.in, promptLine, one)
			default:
				err = ui.Lines(a.in, func(line string) (bool, error) {
					if strings.TrimSpace(line) == "" {
						return true, nil
					}
					return true, one(line)
				})
			}
			if err != nil {
				return err
			}
			return out.end()
		},
	}
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
	r := generate.Request{
		Length: c.Int("length"), MinLength: c.Int("min-length"), Samples: c.Int("samples"),
		Temperature: c.Float64("temperature"), TopK: c.Int("top-k"), TopP: c.Float64("top-p"),
		RepetitionPenalty: c.Float64("repetition-penalty"), Greedy: c.Bool("greedy"),
		Stop: c.StringSlice("stop"), Seed: c.Uint64("seed"),
	}
	if c.Bool("stream") && (c.Bool("json") || c.Bool("jsonl")) {
		faults.Addf("--stream prints text: leave out --json and --jsonl")
	}
	if len(c.StringSlice("prompt")) > 0 && c.String("prompts-file") != "" {
		faults.Addf("--prompt and --prompts-file: name one of them")
	}
	positive(&faults, c, "samples")
	if err := r.Validate(); err != nil {
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
	err = ui.Lines(f, func(line string) (bool, error) {
		if strings.TrimSpace(line) != "" {
			prompts = append(prompts, line)
		}
		return true, nil
	})
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
	m, err := checkpoint.Load(c.String("model"), checkpoint.LoadOptions{VocabPath: c.String("vocab")})
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
	o.DType = dtype(&faults, c.String("dtype"), inferenceTypes)
	if err := faults.Err(c.Command.Name); err != nil {
		return nil, err
	}
	m, err := a.loadModel(c)
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
	if g.cpu, err = kernel.New(kernel.Options{Threads: c.Int("threads"), ISA: a.env["ISA"]}); err != nil {
		return nil, fault.With(fault.CodeUsage, err)
	}
	if g.engine, err = generate.NewEngine(m.Params, tok, g.cpu, o); err != nil {
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

// sampleJSON and promptJSON are the answer in JSON.
type sampleJSON struct {
	Text    string          `json:"text"`
	Tokens  []int32         `json:"tokens"`
	Finish  generate.Finish `json:"finish_reason"`
	LogProb float64         `json:"logprob"`
}

type promptJSON struct {
	Prompt  string       `json:"prompt"`
	Samples []sampleJSON `json:"samples"`
}

// printer prints answers in the form asked for.
type printer struct {
	console             *ui.Console
	json, jsonl, stream bool
	all                 []promptJSON // for json: one document at the end
}

func (a *app) printer(c *cli.Context) *printer {
	return &printer{console: a.console, json: c.Bool("json"), jsonl: c.Bool("jsonl"), stream: c.Bool("stream"), all: []promptJSON{}}
}

// generate answers one request and prints it.
func (p *printer) generate(ctx context.Context, e *generate.Engine, r generate.Request) error {
	if p.stream {
		p.heading(r, 0)
		fmt.Fprint(p.console.Out, r.Prompt)
		r.OnToken = func(piece generate.Piece) {
			if piece.Sample == 0 {
				fmt.Fprint(p.console.Out, piece.Text)
			}
		}
	}
	resp, err := e.Generate(ctx, r)
	if err != nil {
		return err
	}
	if p.json || p.jsonl {
		return p.asJSON(r.Prompt, resp)
	}
	for i, s := range resp.Samples {
		if p.stream && i == 0 {
			fmt.Fprintln(p.console.Out)
			continue
		}
		p.heading(r, i)
		fmt.Fprintln(p.console.Out, s.Text)
	}
	return nil
}

// heading numbers the samples where there are several.
func (p *printer) heading(r generate.Request, i int) {
	if r.Samples > 1 {
		fmt.Fprintf(p.console.Out, "[%d] ", i+1)
	}
}

func (p *printer) asJSON(prompt string, resp *generate.Response) error {
	answer := answerJSON(prompt, resp)
	if p.jsonl {
		return p.console.JSONLine(answer)
	}
	p.all = append(p.all, answer)
	return nil
}

func answerJSON(prompt string, resp *generate.Response) promptJSON {
	out := promptJSON{Prompt: prompt, Samples: []sampleJSON{}}
	for _, s := range resp.Samples {
		if s.Tokens == nil {
			s.Tokens = []int32{} // [], not null
		}
		out.Samples = append(out.Samples, sampleJSON{s.Text, s.Tokens, s.Finish, s.LogProb})
	}
	return out
}

// end prints what was kept for one document.
func (p *printer) end() error {
	if !p.json || p.jsonl {
		return nil
	}
	return p.console.JSON(p.all)
}
