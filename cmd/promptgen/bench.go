package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"promptgen/cmd/promptgen/ui"
	"promptgen/internal/bench"
	"promptgen/internal/bytesize"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/train"
)

// benchKind is one of the things that bench measures.
type benchKind struct {
	name string
	run  func(c *cli.Context) error
}

// benchFlags are the flags that not every kind takes, with the kinds that do.
var benchFlags = map[string][]string{
	"batch-size": {"train", "gemm"}, "steps": {"train", "gemm"},
	"dropout": {"train"}, "max-memory": {"train"}, "recompute": {"train"}, "optimizer-state": {"train"},
	"model": {"infer"}, "vocab": {"infer"},
}

func (a *app) benchKinds() []benchKind {
	return []benchKind{
		{"train", a.benchTrain},
		{"infer", a.benchInfer},
		{"gemm", a.benchGemm},
	}
}

func (a *app) benchCommand() *cli.Command {
	kinds := a.benchKinds()
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return &cli.Command{
		Name:      "bench",
		Usage:     "measure how fast this machine computes, as a share of its own limit",
		ArgsUsage: strings.Join(names, "|"),
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "config", Value: "mini", Usage: "model config: a `FILE`, a preset, or a shape that peers are measured at (" + strings.Join(bench.Names(), ", ") + ")"},
			vocabSizeFlag(),
			&cli.IntFlag{Name: "batch-size", Aliases: []string{"batch_size"}, Usage: "train, gemm: windows computed together", DefaultText: "the shape's, else 8"},
			dtypeFlag("", inferenceTypes),
			&cli.StringFlag{Name: "model", Usage: "infer: a model `FOLDER` or GGUF file instead of random weights"},
			vocabFlag("infer: vocabulary `FILE` of --model"),
			&cli.Float64Flag{Name: "dropout", Usage: "train: all dropouts", DefaultText: "the config's"},
			&cli.IntFlag{Name: "steps", Usage: "train, gemm: measure `N` steps", DefaultText: "as many as take a few seconds"},
		}, keepingFlags("Memory of train")...),
		Action: func(c *cli.Context) error {
			if c.NArg() == 1 {
				for _, k := range kinds {
					if k.name == c.Args().First() {
						if err := a.benchStray(c, k.name); err != nil {
							return err
						}
						return k.run(c)
					}
				}
			}
			return fault.Usage("bench: say what to measure: promptgen bench %s", strings.Join(names, ", or promptgen bench "))
		},
	}
}

// benchStray refuses the flags of other kinds.
func (a *app) benchStray(c *cli.Context, kind string) error {
	var faults fault.List
	for _, flag := range sortedKeys(benchFlags) {
		if kinds := benchFlags[flag]; !slices.Contains(kinds, kind) && a.stray(c, flag) {
			faults.Addf("--%s is for bench %s", flag, oneOf(kinds))
		}
	}
	return faults.Err("bench " + kind)
}

// benchShape reads the flags of what is measured; types are the number formats
// that it can compute in.
func benchShape(faults *fault.List, c *cli.Context, types []string) (bench.Shape, kernel.DType) {
	shape, err := bench.LoadShape(c.String("config"))
	if err != nil {
		faults.Addf("%v", err)
	}
	for flag, dst := range map[string]*int{"vocab-size": &shape.Config.VocabSize, "batch-size": &shape.Batch} {
		if c.IsSet(flag) {
			positive(faults, c, flag)
			*dst = c.Int(flag)
		}
	}
	if c.IsSet("steps") {
		positive(faults, c, "steps")
	}
	return shape, dtype(faults, c.String("dtype"), types)
}

func (a *app) benchTrain(c *cli.Context) error {
	var faults fault.List
	shape, dt := benchShape(&faults, c, trainingTypes)
	o := train.DefaultOptions()
	o.MaxMemory, _ = maxMemory(&faults, c)
	o.Recompute, o.OptimizerBF16, o.Dropout = recomputing(&faults, c), optimizerBF16(&faults, c), dropout(&faults, c)
	if err := faults.Err("bench train"); err != nil {
		return err
	}
	o.Config, o.BatchSize, o.DType = shape.Config, shape.Batch, dt
	o.Seed, o.Threads, o.ISA = c.Uint64("seed"), c.Int("threads"), a.env["ISA"]
	r, err := bench.Train(c.Context, bench.TrainOptions{Train: o, Steps: c.Int("steps")})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.console.JSON(r)
	}
	return a.console.Facts(append([]ui.Fact{
		{Name: "tokens/s", Value: fmt.Sprintf("%.0f (best step %.0f)", r.TokensPerSec, r.Best)},
		{Name: "step", Value: fmt.Sprintf("%.1f ms, %d tokens, median of %d", r.StepMS, r.Tokens, r.Steps)},
		{Name: "GFLOP/s", Value: fmt.Sprintf("%.1f", r.GFlops)},
		{Name: "share of the limit", Value: fmt.Sprintf("%.1f %% of %.1f GFLOP/s in %s", 100*r.MFU, r.LimitGFlops, limitOf(r.Machine, r.DType))},
		{Name: "peak memory", Value: bytesize.Format(r.PeakRSS) + " of " + bytesize.Format(r.Planned) + " planned"},
	}, machineFacts(r.Machine, r.Threads, r.ISA)...)...)
}

func (a *app) benchGemm(c *cli.Context) error {
	var faults fault.List
	shape, dt := benchShape(&faults, c, trainingTypes)
	if err := faults.Err("bench gemm"); err != nil {
		return err
	}
	r, err := bench.Gemm(c.Context, bench.GemmOptions{Config: shape.Config, Batch: shape.Batch, DType: dt,
		Threads: c.Int("threads"), ISA: a.env["ISA"], Seed: c.Uint64("seed"), Steps: c.Int("steps")})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.console.JSON(r)
	}
	var rows [][]string
	for _, p := range r.Products {
		rows = append(rows, []string{p.Name, fmt.Sprintf("%dx%dx%d", p.M, p.N, p.K), fmt.Sprintf("%.1f", p.GFlops), fmt.Sprintf("%.1f %%", 100*p.MFU)})
	}
	if err := a.console.Table([]string{"product", "M x N x K", "GFLOP/s", "of the limit"}, rows); err != nil {
		return err
	}
	return a.console.Facts(append([]ui.Fact{
		{Name: "a step's products", Value: fmt.Sprintf("%.1f GFLOP/s, %.1f %% of %.1f in %s", r.GFlops, 100*r.MFU, r.LimitGFlops, limitOf(r.Machine, r.DType))},
	}, machineFacts(r.Machine, r.Threads, r.ISA)...)...)
}

// limitOf names what a share is of.
func limitOf(m bench.Machine, dtype string) string {
	if dtype == kernel.BF16.String() && m.BF16 == m.FP32 {
		return "fp32, which bf16 is multiplied in here"
	}
	return dtype
}

// machineFacts are the limits that a share is of.
func machineFacts(m bench.Machine, threads int, isa string) []ui.Fact {
	return []ui.Fact{
		{Name: "this machine", Value: fmt.Sprintf("fp32 %.0f GFLOP/s, bf16 %.0f GFLOP/s, memory %.1f GB/s (%d threads, %s)",
			m.FP32, m.BF16, m.Bytes/1e9, threads, isa)},
	}
}
