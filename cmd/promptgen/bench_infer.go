package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"promptgen/cmd/promptgen/ui"
	"promptgen/generate"
	"promptgen/internal/bench"
	"promptgen/internal/bytesize"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
)

// benchInfer measures generation, of random weights in the shape of --config or
// of the model that --model names.
func (a *app) benchInfer(c *cli.Context) error {
	var faults fault.List
	shape, dt := benchShape(&faults, c, inferenceTypes)
	o := bench.InferOptions{Config: shape.Config, DType: dt, Seed: c.Uint64("seed")}
	switch {
	case !c.IsSet("model") && a.stray(c, "vocab"):
		faults.Addf("--vocab is the vocabulary of --model, which is missing")
	case c.IsSet("model") && c.IsSet("config"):
		faults.Addf("name either --config or --model")
	case c.IsSet("model") && a.stray(c, "vocab-size"):
		faults.Addf("--vocab-size is for --config: the vocabulary of --model has its own size")
	}
	if err := faults.Err("bench infer"); err != nil {
		return err
	}
	if c.IsSet("model") {
		m, err := a.loadForEngine(c)
		if err != nil {
			return err
		}
		defer m.Close()
		o.Source = generate.FromModel(m)
	}
	cpu, err := kernel.New(a.computing(c))
	if err != nil {
		return fault.With(fault.CodeUsage, err)
	}
	defer cpu.Close()
	o.CPU = cpu
	r, err := bench.Infer(c.Context, o)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.console.JSON(r)
	}
	return a.console.Facts(append([]ui.Fact{
		{Name: "prefill", Value: fmt.Sprintf("%.0f tokens/s (%d tokens)", r.Prefill, r.PrefillLen)},
		{Name: "decode", Value: fmt.Sprintf("%.1f tokens/s", r.Decode)},
		{Name: "share of the limit", Value: fmt.Sprintf("%.1f %% (%s of weights a token, %.1f GB/s)", 100*r.Share, bytesize.Format(int64(r.DecodeBytes)), r.LimitBytes/1e9)},
		{Name: fmt.Sprintf("decode at %d tokens", r.LongLen), Value: fmt.Sprintf("%.1f tokens/s (%.0f %%)", r.DecodeLong, 100*r.LongShare)},
		{Name: "5 samples together", Value: fmt.Sprintf("%.0f tokens/s", r.Batch5)},
		{Name: "5 samples of 50 tokens", Value: fmt.Sprintf("%.0f ms (first token after %.0f ms)", r.Request, r.First)},
		{Name: "packing the weights", Value: fmt.Sprintf("%.0f ms", r.LoadMS)},
		{Name: "peak memory", Value: bytesize.Format(r.PeakRSS)},
	}, machineFacts(r.Machine, r.Threads, r.ISA)...)...)
}
