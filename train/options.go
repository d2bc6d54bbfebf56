package train

import (
	"time"

	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model"
	memory "promptgen/model/plan"
	"promptgen/train/dist"
)

// Options say what to train, on what, and how. The zero value of a field that
// has a default is replaced by it; Validate tells everything that is wrong.
type Options struct {
	Config   model.Config // VocabSize 0: the data's
	Data     string       // folder of token shards, or of the original's tokenized_train_N.txt
	Vocab    string       // vocabulary file, for the original's folder
	Out      string       // receives model_epochN/, final_model/, state/, metrics.jsonl
	InitFrom string       // model folder whose weights are the start; empty: random ones

	// Resume is "auto" (the default: go on where the run in Out stopped; only
	// Epochs may have grown), "never", or a folder with a state (another run's
	// output, say), which may also go on with a shorter n_ctx or another batch.
	Resume string

	Epochs      int     // default 5
	BatchSize   int     // sequences in a micro-batch, default 8
	GradAccum   int     // micro-batches in a step, default 1
	Stride      int     // tokens between the starts of two windows; 0: n_ctx
	LR          float64 // peak learning rate, default 1.5e-4
	WarmupSteps int     // -1: min(2000, a tenth of the steps)
	Schedule    Schedule
	MinLR       *float64 // rate that linear and cosine fall to; nil: the schedule's own
	MaxGradNorm float64  // 0: no clipping; the commands' default is 1
	WeightDecay float64  // on matrices only
	DecayAll    bool     // on gains and biases as well
	Freeze      []string // weights that stay as they are: wte, wpe, h.0-5, h.3.attn, ln_f
	// LoRA trains low-rank adapters beside the weights of InitFrom, which stay as
	// they are; models then are folders of adapters. Alpha and Targets have
	// defaults.
	LoRA model.LoRA `json:",omitzero"`
	// LabelSmoothing is the share of each target that is divided among all tokens;
	// the training loss then is that of the smoothed targets, validation's is not.
	LabelSmoothing float64
	Dropout        *float64 // nil: what Config says; else all three of Config's

	DType kernel.DType // kernel.FP32, or kernel.BF16: operands of products rounded to bf16
	// MaxMemory is the most that the process may take, in bytes; 0: no limit.
	// Smaller micro-batches and recomputing keep it, which change no number.
	MaxMemory int64
	Recompute memory.Recomputing // "auto" (default: where MaxMemory asks for it), "on" or "off"
	// OptimizerBF16 keeps AdamW's moments in bf16, rounded at random: half the
	// memory, other numbers.
	OptimizerBF16 bool
	Shrink        bool // where the config does not fit MaxMemory, train the nearest that does
	// Fitting, if not nil, is given the config that fits: Config, or the nearest.
	Fitting func(model.Config) error `json:"-"`
	Seed    uint64
	Threads int    // 0: the usable cores
	ISA     string // kernels' level; empty: the best

	LogEvery  int // steps between two metrics lines, default 1
	EvalEvery int // steps between two validations; 0: at the end of each epoch
	SaveEvery int // steps between two states for resuming; 0: at the end of each epoch

	SaveInterval  time.Duration // time between two states for resuming; 0: as SaveEvery says
	KeepEpochs    int           // epoch models that are kept, the newest; 0: all
	EarlyStop     int           // stop after that many validations in a row without a lower loss; 0: never
	SamplePrompts []string      // what the model goes on with at each validation
	WriterDir     string        // of TensorBoard's files; empty: tensorboard/ in Out
	Command       string        // the command line, for the report
	DataHash      string        // of the data that must be trained on; empty: any
	BaseHash      string        // of the weights that InitFrom must have; empty: any

	// Shards is the number of parts that the effective batch is divided into,
	// whose gradients are added up in a fixed tree, whichever rank computes
	// them. 0: those of the state that the run goes on from, else 1 for one
	// process and min(defaultShards, the effective batch) for the ranks of a job.
	Shards int
	Dist   dist.Options // training together with other processes

	MaxSteps int // stop after that many steps; 0: no limit
}

// defaultShards is how many ranks can share a step where Options.Shards says
// nothing.
const defaultShards = 8

// DefaultOptions are the defaults of the train command.
func DefaultOptions() Options {
	return Options{
		Epochs: 5, BatchSize: 8, GradAccum: 1, LR: 1.5e-4, WarmupSteps: -1, Schedule: Linear,
		MaxGradNorm: 1, WeightDecay: 0.01, Resume: "auto", LogEvery: 1,
	}
}

// withDefaults fills in what was left zero.
func (o Options) withDefaults() Options {
	def := DefaultOptions()
	setInt := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	setInt(&o.Epochs, def.Epochs)
	setInt(&o.BatchSize, def.BatchSize)
	setInt(&o.GradAccum, def.GradAccum)
	setInt(&o.LogEvery, def.LogEvery)
	if o.LR == 0 {
		o.LR = def.LR
	}
	if o.Schedule == "" {
		o.Schedule = def.Schedule
	}
	if o.Recompute == "" {
		o.Recompute = memory.Auto
	}
	if o.Resume == "" {
		o.Resume = def.Resume
	}
	o.LoRA = o.LoRA.WithDefaults()
	if o.Dropout != nil && isDropout(*o.Dropout) { // else it is one fault, and not each of the three
		o.Config.EmbdDrop, o.Config.AttnDrop, o.Config.ResidDrop = *o.Dropout, *o.Dropout, *o.Dropout
	}
	return o
}

// trainable says which weights a run with these options changes.
func (o Options) trainable() model.Trainable {
	return model.Trainable{Freeze: o.Freeze, LoRA: o.LoRA}
}

// floor is the rate that the schedule ends at, as a share of the peak.
func (o Options) floor() float64 {
	if o.MinLR == nil || o.LR == 0 {
		return o.Schedule.Floor()
	}
	return *o.MinLR / o.LR
}

// Validate lists every fault of the options at once (2); it does not look at
// the data.
func (o Options) Validate() error {
	l := o.Config.Faults()
	if len(l) == 0 {
		l = o.LoRA.Faults(o.Config)
	}
	if o.LoRA.On() {
		o.checkAdapters(&l)
	}
	atLeast := func(name string, v, limit int) {
		if v < limit {
			l.Addf("%s must be at least %d, not %d", name, limit, v)
		}
	}
	if o.Data == "" {
		l.Addf("data: no folder given")
	}
	if o.Out == "" {
		l.Addf("out: no folder given")
	}
	atLeast("epochs", o.Epochs, 0)
	atLeast("max-steps", o.MaxSteps, 0)
	atLeast("batch-size", o.BatchSize, 0)
	atLeast("grad-accum", o.GradAccum, 0)
	atLeast("stride", o.Stride, 0)
	atLeast("warmup-steps", o.WarmupSteps, -1)
	atLeast("log-every", o.LogEvery, 0)
	atLeast("eval-every", o.EvalEvery, 0)
	atLeast("save-every", o.SaveEvery, 0)
	atLeast("save-every", int(min(o.SaveInterval, 1)), 0)
	atLeast("keep-epochs", o.KeepEpochs, 0)
	atLeast("early-stop", o.EarlyStop, 0)
	atLeast("threads", o.Threads, 0)
	atLeast("shards", o.Shards, 0)
	if o.Shards > max(1, o.BatchSize)*max(1, o.GradAccum) {
		l.Addf("shards (%d) must not exceed the effective batch, batch-size times grad-accum (%d)", o.Shards, max(1, o.BatchSize)*max(1, o.GradAccum))
	}
	atLeast("max-memory", int(o.MaxMemory), 0)
	if o.Recompute != "" && o.Recompute != memory.Auto && o.Recompute != memory.On && o.Recompute != memory.Off {
		l.Addf("recompute %q is not known: use auto, on or off", o.Recompute)
	}
	if o.BatchSize > 1<<16 || o.GradAccum > 1<<16 {
		l.Addf("batch-size and grad-accum must be at most %d", 1<<16)
	}
	if o.Epochs > mostEpochs {
		l.Addf("epochs must be at most %d, not %d; --max-steps ends a run earlier", mostEpochs, o.Epochs)
	}
	if o.Stride > 0 && o.Config.NCtx > 0 && o.Stride > o.Config.NCtx {
		l.Addf("stride (%d) must not exceed n_ctx (%d), or tokens would be left out", o.Stride, o.Config.NCtx)
	}
	between := func(name string, v, lo, hi float64) {
		if !(v >= lo && v <= hi) {
			l.Addf("%s must be between %g and %g, not %g", name, lo, hi, v)
		}
	}
	between("lr", o.LR, 0, 1e6)
	between("max-grad-norm", o.MaxGradNorm, 0, 1e9)
	between("weight-decay", o.WeightDecay, 0, 1)
	between("label-smoothing", o.LabelSmoothing, 0, 0.99)
	if o.MinLR != nil {
		between("min-lr", *o.MinLR, 0, o.LR)
	}
	if o.Dropout != nil && !isDropout(*o.Dropout) {
		l.Addf("dropout must be between 0 and %g, not %g", MaxDropout, *o.Dropout)
	}
	if !o.Schedule.known() {
		l.Addf("schedule %q is not known: use linear, cosine or constant", o.Schedule)
	}
	if o.DType != kernel.FP32 && o.DType != kernel.BF16 {
		l.Addf("dtype %v cannot train: use fp32 or bf16", o.DType)
	}
	return fault.List(l).Err("training options")
}

// MaxDropout leaves a model something to learn from.
const MaxDropout = 0.999

func isDropout(p float64) bool { return p >= 0 && p <= MaxDropout }

// mostEpochs times the steps of an epoch is a number of steps that can be counted.
const mostEpochs = 1_000_000_000

// checkAdapters refuses what says nothing beside adapters.
func (o Options) checkAdapters(l *fault.List) {
	if o.InitFrom == "" {
		l.Addf("lora-rank takes init-from, the model that the adapters are trained on")
	}
	if len(o.Freeze) > 0 {
		l.Addf("freeze says nothing beside lora-rank, which leaves all weights but the adapters as they are")
	}
	if o.Shrink {
		l.Addf("shrink cannot stand beside lora-rank: the model of init-from keeps its shape; give a smaller batch-size, or a config with a smaller n_ctx")
	}
}
