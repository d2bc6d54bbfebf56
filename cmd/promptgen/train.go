package main

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"promptgen/cmd/promptgen/ui"
	"promptgen/configs"
	"promptgen/internal/bytesize"
	"promptgen/internal/fault"
	"promptgen/model"
	"promptgen/model/checkpoint"
	"promptgen/train"
	"promptgen/train/dist"
)

func (a *app) trainCommand() *cli.Command {
	d := train.DefaultOptions()
	const several = "Several machines"
	const run, rate, files = "Run", "Learning rate and regularization", "Logs and checkpoints"
	return &cli.Command{
		Name:  "train",
		Usage: "train a model on tokens",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "config", Aliases: []string{"model_config"}, Value: "small", Usage: "model config: a `FILE` or a preset (test, mini, small, base)"},
			&cli.StringFlag{Name: "data", Aliases: []string{"tokenized_data_path"}, Value: defaultData, Usage: "`FOLDER` that tokenize wrote, or of the original's tokenized_train_N.txt"},
			&cli.StringFlag{Name: "vocab", Aliases: []string{"vocab_file", "vocab_filename"}, Value: defaultVocab, Usage: "vocabulary `FILE`, for the original's folder"},
			&cli.StringFlag{Name: "out", Aliases: []string{"output_dir"}, Value: defaultOut, Usage: "`FOLDER` for the models and logs"},
			&cli.StringFlag{Name: "init-from", Aliases: []string{"pretrained_model"}, Usage: "start from the weights of a model `FOLDER`, of its shape or, with --config, carried over to a smaller one"},
			&cli.StringFlag{Name: "resume", Value: d.Resume, Usage: "`auto` (go on where the output folder's run stopped), never, or a folder whose state may go on with a smaller n_ctx or another batch"},
			&cli.StringFlag{Name: "from-report", Usage: "repeat the training of a report.html, run.json or model `FOLDER`, to the bit (with --out, --data, --vocab alone)"},
			deviceFlag(),

			&cli.IntFlag{Name: "epochs", Category: run, Value: d.Epochs, Usage: "passes over the data"},
			&cli.IntFlag{Name: "max-steps", Category: run, Usage: "end after `N` optimizer steps, however many passes that are (0: no limit)"},
			&cli.IntFlag{Name: "batch-size", Aliases: []string{"batch_size"}, Category: run, Value: d.BatchSize, Usage: "windows computed together"},
			&cli.IntFlag{Name: "grad-accum", Aliases: []string{"gradient_accumulation"}, Category: run, Value: d.GradAccum, Usage: "batches in one optimizer step"},
			&cli.IntFlag{Name: "stride", Category: run, Usage: "tokens from one window's start to the next's", DefaultText: "n_ctx"},
			dtypeFlag(run, trainingTypes),
			&cli.BoolFlag{Name: "fp16", Category: run, Usage: "the original's name for --dtype bf16"},
			&cli.StringFlag{Name: "fp16_opt_level", Category: run, Usage: "taken for the original's sake, without effect"},

			&cli.Float64Flag{Name: "lr", Category: rate, Value: d.LR, Usage: "peak learning rate"},
			&cli.IntFlag{Name: "warmup-steps", Aliases: []string{"warmup_steps"}, Category: rate, Value: -1, Usage: "steps until the peak (-1: a tenth of all, at most 2000)"},
			&cli.StringFlag{Name: "schedule", Category: rate, Value: string(d.Schedule), Usage: "`linear`, cosine or constant after the warm-up"},
			&cli.Float64Flag{Name: "min-lr", Category: rate, Usage: "rate that linear and cosine fall to", DefaultText: "0; cosine: a tenth of the peak"},
			&cli.Float64Flag{Name: "max-grad-norm", Aliases: []string{"max_grad_norm"}, Category: rate, Value: d.MaxGradNorm, Usage: "clip the gradient to this norm (0: do not)"},
			&cli.Float64Flag{Name: "weight-decay", Category: rate, Value: d.WeightDecay, Usage: "decay of the matrices"},
			&cli.BoolFlag{Name: "decay-all", Category: rate, Usage: "let gains and biases decay too"},
			freezeFlag(rate),
			&cli.Float64Flag{Name: "label-smoothing", Category: rate, Usage: "share of each target that is divided among all tokens"},
			&cli.Float64Flag{Name: "dropout", Category: rate, Usage: "all dropouts", DefaultText: "the config's"},
		}, slices.Concat(adapterFlags("Adapters (on the model of --init-from)"), []cli.Flag{
			&cli.IntFlag{Name: "log-every", Aliases: []string{"log_step"}, Category: files, Value: d.LogEvery, Usage: "steps between two lines of metrics.jsonl"},
			&cli.IntFlag{Name: "eval-every", Category: files, Usage: "steps between two validations (0: after each epoch)"},
			&cli.StringFlag{Name: "save-every", Category: files, Value: "0", Usage: "`STEPS`, or time such as 10m, between two states for resuming (0: after each epoch)"},
			&cli.IntFlag{Name: "keep-epochs", Category: files, Usage: "keep the models of the last `N` epochs only (0: of all)"},
			&cli.IntFlag{Name: "early-stop", Category: files, Usage: "end after `N` validations in a row without a lower loss (0: never)"},
			&cli.StringSliceFlag{Name: "sample-prompt", Category: files, Usage: "`TEXT` that the model goes on with at each validation, repeat for more"},
			&cli.StringFlag{Name: "writer_dir", Category: files, Usage: "`FOLDER` for TensorBoard's files (default: tensorboard in the output folder)"},

			&cli.StringFlag{Name: "dist", Category: several, Value: string(dist.Auto), Usage: "train together with the other processes of an MPI job: `auto` (if a launcher started this one), off or mpi"},
			&cli.IntFlag{Name: "shards", Category: several, Usage: "parts of a step that ranks share, whose number fixes the result", DefaultText: "1; under MPI 8, at most the effective batch"},
			&cli.DurationFlag{Name: "dist-timeout", Category: several, Value: dist.DefaultTimeout, Usage: "end this rank (75) when the others keep it waiting for so long, or thrice its own share of a step"},
			&cli.BoolFlag{Name: "shrink", Category: memoryCategory, Usage: "where the config does not fit, train the nearest that does"},
		}, memoryFlags())...),
		Action: func(c *cli.Context) error {
			o, err := a.trainOptions(c)
			if err != nil {
				return err
			}
			obs := &trainObserver{app: a}
			defer obs.done()
			result, err := train.Run(c.Context, o, obs)
			obs.done()
			if err != nil || result.Elsewhere {
				return err
			}
			if c.Bool("json") {
				return a.console.JSON(result)
			}
			return a.console.Facts(trainFacts(result)...)
		},
	}
}

// trainingConfig is the shape that is asked for: without --config, that of the
// weights to begin with.
func trainingConfig(c *cli.Context) (cfg model.Config, err error) {
	from := c.String("init-from")
	if from != "" && !c.IsSet("config") {
		cfg, err = checkpoint.ShapeOf(from)
	} else {
		cfg, err = configs.Load(c.String("config"))
	}
	if from != "" {
		cfg.VocabSize = 0 // the data's: tokens that both vocabularies have are carried over
	}
	return cfg, err
}

// trainOptions reads the flags; every fault is named at once.
func (a *app) trainOptions(c *cli.Context) (train.Options, error) {
	if from := c.String("from-report"); from != "" {
		return a.repeatOptions(c, from)
	}
	var faults fault.List
	a.refuseDevice(&faults, c.String("device"))
	if level := c.String("fp16_opt_level"); level != "" {
		a.said("fp16_opt_level %s is taken, without effect", level)
	}
	dtypeName := c.String("dtype")
	if c.Bool("fp16") {
		if c.IsSet("dtype") && dtypeName != "bf16" {
			faults.Addf("--fp16 means --dtype bf16, and --dtype %s was given too: leave one out", dtypeName)
		}
		a.said("fp16: training with --dtype bf16")
		dtypeName = "bf16"
	}
	dt := dtype(&faults, dtypeName, trainingTypes)
	positive(&faults, c, "epochs", "batch-size", "grad-accum", "log-every")
	if c.Float64("lr") <= 0 {
		faults.Addf("--lr must be positive, not %g", c.Float64("lr"))
	}
	cfg, err := trainingConfig(c)
	if code := fault.Code(err); code != fault.CodeDone && code != fault.CodeUsage {
		return train.Options{}, err
	} else if err != nil {
		faults.Addf("%v", err)
	}
	limit, _ := maxMemory(&faults, c)
	o := train.Options{
		MaxMemory: limit, Recompute: recomputing(&faults, c), OptimizerBF16: optimizerBF16(&faults, c), Shrink: c.Bool("shrink"),
		Config: cfg, Data: c.String("data"), Vocab: c.String("vocab"), Out: c.String("out"),
		InitFrom: c.String("init-from"), Resume: c.String("resume"),
		Epochs: c.Int("epochs"), MaxSteps: c.Int("max-steps"), BatchSize: c.Int("batch-size"), GradAccum: c.Int("grad-accum"), Stride: c.Int("stride"),
		LR: c.Float64("lr"), WarmupSteps: c.Int("warmup-steps"), Schedule: train.Schedule(c.String("schedule")),
		MaxGradNorm: c.Float64("max-grad-norm"), WeightDecay: c.Float64("weight-decay"),
		DType: dt, Seed: c.Uint64("seed"), Threads: threads(c), ISA: a.env["ISA"],
		Shards:   c.Int("shards"),
		Dist:     dist.Options{Mode: dist.Mode(c.String("dist")), Library: a.env["MPI_LIB"], Timeout: c.Duration("dist-timeout")},
		LogEvery: c.Int("log-every"), EvalEvery: c.Int("eval-every"), KeepEpochs: c.Int("keep-epochs"),
		Freeze: c.StringSlice("freeze"), LoRA: adapters(c), DecayAll: c.Bool("decay-all"), LabelSmoothing: c.Float64("label-smoothing"), EarlyStop: c.Int("early-stop"),
		SamplePrompts: c.StringSlice("sample-prompt"), WriterDir: c.String("writer_dir"), Command: a.typed,
	}
	if file := c.String("write-config"); file != "" {
		o.Fitting = func(cfg model.Config) error { return writeConfig(c.Context, file, cfg) }
	}
	if c.IsSet("min-lr") {
		rate := c.Float64("min-lr")
		o.MinLR = &rate
	}
	o.SaveEvery, o.SaveInterval = saveEvery(&faults, c.String("save-every"))
	o.Dropout = dropout(&faults, c)
	return o, faults.Err("train")
}

// repeatOptions are those of a former training; only where things lie, and what this
// machine gives, may be said anew: threads and memory, which change no result.
func (a *app) repeatOptions(c *cli.Context, from string) (train.Options, error) {
	o, err := train.FromReport(from)
	if err != nil {
		return o, err
	}
	var faults fault.List
	places := map[string]*string{"out": &o.Out, "data": &o.Data, "vocab": &o.Vocab, "writer_dir": &o.WriterDir, "resume": &o.Resume}
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		if dst, ok := places[name]; ok && c.IsSet(name) {
			*dst = c.String(name)
		} else if !ok && c.IsSet(name) && !slices.Contains([]string{"from-report", "threads", "max-memory", "quiet", "json"}, name) {
			faults.Addf("--%s cannot stand beside --from-report, which repeats a training as it was", name)
		}
	}
	if !c.IsSet("out") {
		o.Out += "-again"
	}
	o.MaxMemory, _ = maxMemory(&faults, c)
	o.Threads, o.ISA, o.Dist.Library, o.Command = threads(c), a.env["ISA"], a.env["MPI_LIB"], a.typed
	return o, faults.Err("train")
}

// saveEvery reads --save-every: a number of steps, or a time.
func saveEvery(faults *fault.List, text string) (steps int, interval time.Duration) {
	steps, err := strconv.Atoi(text)
	if err == nil {
		return steps, 0
	}
	if interval, err = time.ParseDuration(text); err != nil || interval < 0 {
		faults.Addf("--save-every must be a number of steps, or a time such as 10m or 1h30m, not %q", text)
	}
	return 0, interval
}

// threads is --threads, or this rank's share of the machine's cores.
func threads(c *cli.Context) int {
	n, ranks := c.Int("threads"), dist.LocalRanks()
	if n == 0 && ranks > 1 && c.String("dist") != string(dist.Off) {
		n = max(1, runtime.GOMAXPROCS(0)/ranks)
	}
	return n
}

// positive checks whole-number flags that must be at least 1.
func positive(faults *fault.List, c *cli.Context, flags ...string) {
	for _, f := range flags {
		if c.Int(f) < 1 {
			faults.Addf("--%s must be at least 1, not %d", f, c.Int(f))
		}
	}
}

func trainFacts(r *train.Result) []ui.Fact {
	facts := []ui.Fact{
		{Name: "steps", Value: r.Steps},
		{Name: "tokens", Value: r.Tokens},
		{Name: "final loss", Value: r.FinalLoss},
	}
	if r.ValLoss != nil {
		facts = append(facts, ui.Fact{Name: "validation loss", Value: *r.ValLoss})
	}
	if r.BestValLoss != nil && *r.BestValLoss < *r.ValLoss {
		facts = append(facts, ui.Fact{Name: "best", Value: fmt.Sprintf("%.6g in %s", *r.BestValLoss, r.BestModel)})
	}
	return append(facts,
		ui.Fact{Name: "tokens/s", Value: fmt.Sprintf("%.0f", r.TokensPerSec)},
		ui.Fact{Name: "peak memory", Value: fmt.Sprintf("%s of %s planned", bytesize.Format(r.PeakRSS), bytesize.Format(r.Planned))},
		ui.Fact{Name: "model", Value: r.Model})
}

// trainObserver shows a run: a bar on a terminal, else a line every few seconds.
type trainObserver struct {
	app *app
	bar *ui.Bar
}

func (t *trainObserver) Step(s train.StepInfo) {
	if t.bar == nil {
		t.bar = t.app.console.Bar("train", "steps", int64(s.Steps))
	}
	t.bar.Set(int64(s.Step), fmt.Sprintf("epoch %d/%d loss %.3f lr %.2e %.0f tokens/s %s",
		s.Epoch, s.Epochs, s.Loss, s.LR, s.TokensPerSec, bytesize.Format(s.PeakRSS)))
}

func (t *trainObserver) Validation(v train.ValidationInfo) {
	t.app.console.Log.Info("validation", "epoch", v.Epoch, "step", v.Step,
		"loss", fmt.Sprintf("%.4f", v.Loss), "perplexity", fmt.Sprintf("%.4g", v.Perplexity),
		"bits_per_char", fmt.Sprintf("%.4g", v.BitsPerChar), "best", v.Best)
}

func (t *trainObserver) Sample(s train.SampleInfo) {
	t.app.console.Log.Info("sample", "epoch", s.Epoch, "step", s.Step, "text", s.Text)
}

func (t *trainObserver) Saved(dir string) { t.app.console.Log.Info("saved", "model", dir) }

func (t *trainObserver) Notice(line string) { t.app.console.Log.Info(line) }

func (t *trainObserver) Warning(line string) { t.app.console.Log.Warn(line) }

func (t *trainObserver) done() {
	if t.bar != nil {
		t.bar.Done()
	}
}
