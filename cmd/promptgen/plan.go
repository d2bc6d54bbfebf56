package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/urfave/cli/v2"

	"promptgen/cmd/promptgen/ui"
	"promptgen/configs"
	"promptgen/internal/atomicdir"
	"promptgen/internal/bench"
	"promptgen/internal/bytesize"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/internal/sysmem"
	"promptgen/model"
	"promptgen/model/plan"
	"promptgen/train"
)

const memoryCategory = "Memory"

// memoryFlags say how much memory a training may take and what it may do to
// keep to it.
func memoryFlags() []cli.Flag {
	return append(keepingFlags(memoryCategory),
		&cli.StringFlag{Name: "write-config", Category: memoryCategory, Usage: "write the config that fits to `FILE`"})
}

func keepingFlags(category string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "max-memory", Category: category, Usage: "keep within `SIZE` (2GiB, 512MiB; default: 90 % of what is usable here)"},
		&cli.StringFlag{Name: "recompute", Category: category, Value: string(plan.Auto), Usage: "compute values again in the backward pass: `auto` (where memory asks for it), on or off"},
		&cli.StringFlag{Name: "optimizer-state", Category: category, Value: kernel.FP32.String(), Usage: "number format of AdamW's moments: `fp32`, or bf16 with random rounding (half the memory, other results)"},
	}
}

func freezeFlag(category string) cli.Flag {
	return &cli.StringSliceFlag{Name: "freeze", Category: category, Usage: "`WEIGHTS` that stay as they are: wte,h.0-5 (also wpe, ln_f, h.3.attn)"}
}

// adapterFlags describe low-rank adapters.
func adapterFlags(category string) []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "lora-rank", Category: category, Usage: "train low-rank adapters of that `RANK` instead of the weights"},
		&cli.Float64Flag{Name: "lora-alpha", Category: category, Usage: "weight of the adapters, in units of 1/rank", DefaultText: "twice the rank"},
		&cli.Float64Flag{Name: "lora-dropout", Category: category, Usage: "dropout of what the adapters read"},
		&cli.StringSliceFlag{Name: "lora-target", Category: category, Usage: "`MATRIX` of the layers that gets an adapter, repeat for more: c_attn, c_proj, c_fc, attn.c_proj, mlp.c_proj (default: all)"},
	}
}

// adapters reads them.
func adapters(c *cli.Context) model.LoRA {
	l := model.LoRA{Rank: c.Int("lora-rank"), Alpha: c.Float64("lora-alpha"), Dropout: c.Float64("lora-dropout"), Targets: c.StringSlice("lora-target")}
	return l.WithDefaults()
}

// optimizerBF16 reads --optimizer-state.
func optimizerBF16(faults *fault.List, c *cli.Context) bool {
	choice(faults, c, "optimizer-state", trainingTypes...)
	return c.String("optimizer-state") == kernel.BF16.String()
}

// recomputing reads --recompute.
func recomputing(faults *fault.List, c *cli.Context) plan.Recomputing {
	choice(faults, c, "recompute", string(plan.Auto), string(plan.On), string(plan.Off))
	return plan.Recomputing(c.String("recompute"))
}

// defaultLimit is what a training keeps within unless told otherwise: 90 % of
// what is usable, and no limit (0) where the system does not tell.
func defaultLimit(u sysmem.Usable) int64 { return u.Bytes - u.Bytes/10 }

// maxMemory reads --max-memory.
func maxMemory(faults *fault.List, c *cli.Context) (limit int64, usable sysmem.Usable) {
	usable = sysmem.Find()
	if !c.IsSet("max-memory") {
		return defaultLimit(usable), usable
	}
	limit, ok := bytesize.Parse(c.String("max-memory"))
	if !ok {
		faults.Addf("--max-memory must be a size like 2GiB or 512MiB, not %q", c.String("max-memory"))
	}
	return limit, usable
}

// writeConfig writes a config that configs.Load reads. It replaces a config, and
// no file of another kind.
func writeConfig(ctx context.Context, path string, cfg model.Config) error {
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
		if _, err := configs.Load(path); err != nil {
			return fault.Usage("%s: is there and no model config, it would be replaced; choose another name for --write-config", path)
		}
	}
	cfg.VocabSize = 0 // the data's
	b, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return err
	}
	return atomicdir.WriteFile(ctx, path, func(w io.Writer) error { _, err := w.Write(append(b, '\n')); return err })
}

func (a *app) planCommand() *cli.Command {
	d := train.DefaultOptions()
	return &cli.Command{
		Name:  "plan",
		Usage: "say what memory a training will need, before it starts",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "config", Aliases: []string{"model_config"}, Value: "small", Usage: "model config: a `FILE` or a preset (test, mini, small, base)"},
			vocabSizeFlag(),
			&cli.IntFlag{Name: "batch-size", Aliases: []string{"batch_size"}, Value: d.BatchSize, Usage: "windows computed together"},
			&cli.IntFlag{Name: "grad-accum", Aliases: []string{"gradient_accumulation"}, Value: d.GradAccum, Usage: "batches in one optimizer step"},
			dtypeFlag("", trainingTypes),
			freezeFlag(""),
		}, append(adapterFlags("Adapters"), memoryFlags()...)...),
		Action: func(c *cli.Context) error {
			r, err := newPlanReport(c)
			if err != nil {
				return err
			}
			fits := r.Fits || len(r.Nearest) > 0
			if file := c.String("write-config"); file != "" && fits {
				if err := writeConfig(c.Context, file, r.chosen()); err != nil {
					return err
				}
			}
			if c.Bool("json") {
				err = a.console.JSON(r)
			} else {
				err = a.showPlan(r)
			}
			if err == nil && !r.Fits && (c.IsSet("max-memory") || !fits && c.IsSet("write-config")) {
				err = train.TooLarge(r.cfg, r.settings, r.Limit, r.Nearest)
			}
			return err
		},
	}
}

// planReport is the result of plan.
type planReport struct {
	Planned  int64           `json:"planned_peak_bytes"`
	Parts    plan.Parts      `json:"parts"`
	Settings planSettings    `json:"settings"`
	Limit    int64           `json:"max_memory_bytes"` // 0: none is known
	Usable   sysmem.Usable   `json:"usable"`
	Fits     bool            `json:"fits"`
	Levers   []lever         `json:"levers"`
	Nearest  []plan.Proposal `json:"nearest,omitempty"` // where nothing fits

	cfg      model.Config
	settings plan.Settings
}

// planSettings are the chosen settings as they are shown.
type planSettings struct {
	MicroBatch      int    `json:"micro_batch"`
	EffectiveBatch  int    `json:"effective_batch"`
	DType           string `json:"dtype"`
	Recompute       string `json:"recompute"` // off, sublayers or layers
	RecomputeLayers int    `json:"recompute_layers"`
	StoreBF16       bool   `json:"operands_kept_in_bf16"`
	OptimizerState  string `json:"optimizer_state"`
	Threads         int    `json:"threads"`
}

// lever is one thing that saves memory, by itself, from the wanted settings on.
type lever struct {
	Name  string `json:"name"`
	Saves int64  `json:"saves_bytes"`
	Costs string `json:"costs"`
}

func newPlanReport(c *cli.Context) (*planReport, error) {
	var faults fault.List
	dt := dtype(&faults, c.String("dtype"), trainingTypes)
	positive(&faults, c, "batch-size", "grad-accum")
	if c.Int("batch-size") > 1<<16 || c.Int("grad-accum") > 1<<16 {
		faults.Addf("--batch-size and --grad-accum must be at most %d", 1<<16)
	}
	how, moments := recomputing(&faults, c), optimizerBF16(&faults, c)
	cfg, err := configs.Load(c.String("config"))
	if err != nil {
		faults.Addf("%v", err)
	}
	if c.IsSet("vocab-size") {
		positive(&faults, c, "vocab-size")
		cfg.VocabSize = c.Int("vocab-size")
	} else if cfg.VocabSize == 0 {
		cfg.VocabSize = bench.DefaultVocab
	}
	r := &planReport{cfg: cfg}
	r.Limit, r.Usable = maxMemory(&faults, c)
	if err := faults.Err("plan"); err != nil {
		return nil, err
	}
	want := plan.Settings{Batch: c.Int("batch-size"), Sequences: c.Int("batch-size") * c.Int("grad-accum"),
		Threads: planThreads(c), BF16: dt == kernel.BF16, OptimizerBF16: moments, Trainable: model.Trainable{Freeze: c.StringSlice("freeze"), LoRA: adapters(c)}}
	if r.settings, r.Fits, err = plan.Fit(cfg, want, how, r.Limit); err != nil {
		return nil, err
	}
	if !r.Fits {
		r.Nearest = plan.Nearest(cfg, want, how, r.Limit)
	}
	if r.Parts, err = plan.Of(cfg, r.settings); err != nil {
		return nil, err
	}
	s := r.settings
	r.Planned = r.Parts.Total()
	r.Settings = planSettings{MicroBatch: s.Batch, EffectiveBatch: max(s.Batch, s.Sequences), DType: dt.String(),
		Recompute: s.Recompute.String(), RecomputeLayers: s.Recomputed(cfg), StoreBF16: s.StoreBF16, OptimizerState: c.String("optimizer-state"), Threads: s.Threads}
	r.Levers = levers(cfg, want)
	return r, nil
}

func planThreads(c *cli.Context) int {
	if n := c.Int("threads"); n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}

// levers are what each of the means saves by itself.
func levers(cfg model.Config, want plan.Settings) (all []lever) {
	base, err := plan.Of(cfg, want)
	if err != nil {
		return nil
	}
	add := func(name string, change func(*plan.Settings), costs string) {
		s := want
		change(&s)
		if p, err := plan.Of(cfg, s); err == nil && p.Total() < base.Total() {
			all = append(all, lever{name, base.Total() - p.Total(), costs})
		}
	}
	add("micro-batches of 1", func(s *plan.Settings) { s.Sequences, s.Batch = max(s.Batch, s.Sequences), 1 }, "a little time")
	if want.BF16 {
		add("operands kept in bf16", func(s *plan.Settings) { s.StoreBF16 = true }, "a little time")
	}
	add("recomputing sublayers", func(s *plan.Settings) { s.Recompute = model.RecomputeSublayers }, "about a fifth of the speed")
	add("recomputing layers", func(s *plan.Settings) { s.Recompute = model.RecomputeLayers }, "a little more")
	add("--optimizer-state bf16", func(s *plan.Settings) { s.OptimizerBF16 = true }, "other results, and only if asked for")
	return all
}

// chosen is the config that fits: the one asked for, or the nearest.
func (r *planReport) chosen() model.Config {
	if !r.Fits && len(r.Nearest) > 0 {
		return r.Nearest[0].Config
	}
	return r.cfg
}

func (a *app) showPlan(r *planReport) error {
	p, s := r.Parts, r.Settings
	recompute := s.Recompute
	if s.RecomputeLayers > 0 {
		recompute = fmt.Sprintf("%s (%d of %d layers)", s.Recompute, s.RecomputeLayers, r.cfg.NLayer)
	}
	fits := "no limit is known"
	switch {
	case r.Limit > 0 && r.Fits:
		fits = "fits " + bytesize.Format(r.Limit)
	case r.Limit > 0:
		fits = "does not fit " + bytesize.Format(r.Limit)
	}
	facts := []ui.Fact{
		{Name: "weights", Value: bytesize.Format(p.Weights)},
		{Name: "gradients", Value: bytesize.Format(p.Gradients)},
		{Name: "optimizer", Value: bytesize.Format(p.Optimizer)},
		{Name: "activations", Value: bytesize.Format(p.Activations)},
		{Name: "workspace", Value: bytesize.Format(p.Workspace)},
		{Name: "runtime and mapped files", Value: bytesize.Format(p.Runtime)},
		{Name: "planned peak", Value: bytesize.Format(r.Planned) + ", " + fits},
		{Name: "batch", Value: fmt.Sprintf("%d at a time of %d, %s", s.MicroBatch, s.EffectiveBatch, s.DType)},
		{Name: "recompute", Value: recompute},
	}
	if s.StoreBF16 {
		facts = append(facts, ui.Fact{Name: "kept in bf16", Value: "operands of products"})
	}
	if s.OptimizerState != kernel.FP32.String() {
		facts = append(facts, ui.Fact{Name: "moments in", Value: s.OptimizerState})
	}
	if r.Usable.Bytes > 0 {
		facts = append(facts, ui.Fact{Name: "usable here", Value: fmt.Sprintf("%s (%s)", bytesize.Format(r.Usable.Bytes), r.Usable.From)})
	}
	for _, l := range r.Levers {
		facts = append(facts, ui.Fact{Name: "  " + l.Name, Value: fmt.Sprintf("would save %s for %s", bytesize.Format(l.Saves), l.Costs)})
	}
	for _, n := range r.Nearest {
		facts = append(facts, ui.Fact{Name: "  would fit", Value: fmt.Sprintf("%s, %s", n.Change, bytesize.Format(n.Bytes))})
	}
	return a.console.Facts(facts...)
}
