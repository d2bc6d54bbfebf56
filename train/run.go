package train

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"promptgen/data"
	"promptgen/internal/atomicdir"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model"
	"promptgen/model/checkpoint"
	"promptgen/tokenizer"
	"promptgen/train/dist"
	"promptgen/train/runlog"
)

// The folders of a run, under Options.Out.
const (
	stateName = "state"       // states for resuming
	finalName = "final_model" // the model after the last step
	bestName  = "best_model"  // the model of the lowest validation loss
)

// EpochModel is the folder that the model is saved in after an epoch (from 1).
func EpochModel(out string, epoch int) string {
	return filepath.Join(out, fmt.Sprintf("model_epoch%d", epoch))
}

// FinalModel is the folder of a finished run's model.
func FinalModel(out string) string { return filepath.Join(out, finalName) }

// BestModel is the folder of the model with the lowest validation loss.
func BestModel(out string) string { return filepath.Join(out, bestName) }

// trainer is a run in progress.
type trainer struct {
	o   Options
	cfg model.Config
	obs Observer

	set     *data.Set
	vocab   *tokenizer.Vocab
	windows *data.Windows
	hash    string // of the tokens
	sched   plan

	cpu     *kernel.CPU
	params  *model.Params
	graph   *model.Graph
	opt     *AdamW
	metrics *runlog.Log
	memory  memoryGauge
	budget  budget
	untied  bool            // the head has weights of its own
	base    checkpoint.Base // that adapters are trained on
	origin  string          // weights that the run began with: drawn, or the hash of InitFrom's; empty: not known
	sampler *sampler        // nil: without prompts
	facts   runlog.DataFacts
	recipe  []byte // of this run, for the model folders

	at        place
	changed   string    // settings, by going on from a state with others; empty: none
	lastSave  string    // newest model or state folder, for messages
	lastState string    // newest state folder, likewise
	savedAt   time.Time // when it was written
	bad       int       // steps in a row that were skipped
	spikeAt   int       // step of the last spike that was told
	checked   int       // step of the last validation

	ids, targets []int32 // of a micro-batch
	clock        clock

	group    *dist.Group // the ranks that train together; nil: this process alone
	sums     []gradSum   // where the gradients of shards are added up
	exchange exchange
}

// plan is the arithmetic of a run: what a step takes and how many there are.
type plan struct {
	windows int // in an epoch
	batch   int // sequences in a micro-batch
	step    int // sequences in an optimizer step
	shards  int // parts of a step, see Options.Shards
	micro   int // most sequences computed together: of one shard
	perStep int // optimizer steps in an epoch
	steps   int // in the whole run
	warmup  int
}

// Run trains as the options say and returns what came of it. Without an
// observer pass Silent{}. Faults of the options are usage (2), data that allows
// no step is fault.Data (3), a state or model that does not belong to the data
// is fault.Corrupt (5), and a cancelled ctx ends the run after the current step
// with everything saved (130).
func Run(ctx context.Context, o Options, obs Observer) (_ *Result, err error) {
	o = o.withDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	t := &trainer{o: o, obs: obs}
	if t.group, err = dist.Join(o.Dist); err != nil {
		return nil, err
	}
	if !t.group.Lead() {
		t.obs = Silent{}
	}
	defer func() {
		if cerr := t.close(); err == nil {
			err = cerr
		}
		if dist.Agreed(err) {
			if lerr := t.group.Leave(); err == nil {
				err = lerr
			}
		}
	}()
	if err := t.openTogether(); err != nil {
		return nil, err
	}
	unlock := func() {}
	defer func() { unlock() }()
	err = t.leadOnly(func() (err error) {
		release, err := atomicdir.Lock(o.Out)
		if err != nil {
			return err
		}
		unlock = release
		for _, dir := range []string{o.Out, filepath.Join(o.Out, stateName)} {
			if err := atomicdir.Sweep(dir); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = t.explainFull(err) }()
	if err := t.startTogether(ctx); err != nil {
		return nil, err
	}
	if t.done() {
		return t.finished(ctx)
	}
	if err := t.leadOnly(func() error { return t.placesFree(t.at.Epoch) }); err != nil {
		return nil, err
	}
	if err := t.prepare(); err != nil {
		return nil, err
	}
	if err := t.leadOnly(func() error { return t.startWatching(ctx) }); err != nil {
		return nil, err
	}
	if err := t.epochs(ctx); err != nil {
		return nil, err
	}
	return t.finish(ctx)
}

// openData opens the tokens and settles the config and the plan by them.
func (t *trainer) openData() (err error) {
	if t.set, err = OpenData(t.o.Data, t.o.Vocab); err != nil {
		return err
	}
	if t.vocab, err = t.set.Vocab(); err != nil {
		return err
	}
	if t.hash, err = dataHash(t.set); err != nil {
		return err
	}
	if err := t.repeats(); err != nil {
		return err
	}
	t.cfg = t.o.Config
	switch {
	case t.cfg.VocabSize == 0:
		t.cfg.VocabSize = t.set.VocabSize()
	case t.cfg.VocabSize != t.set.VocabSize():
		return fault.Usage("config: vocab_size is %d and the data's vocabulary has %d tokens; leave vocab_size out, or tokenize with the vocabulary it was written for",
			t.cfg.VocabSize, t.set.VocabSize())
	}
	return t.cut()
}

// cut lays the windows and counts the steps.
func (t *trainer) cut() (err error) {
	if t.windows, err = data.NewWindows(t.set.Train, t.cfg.NCtx, t.o.Stride); err != nil {
		return err
	}
	o := t.o
	if o.Shards == 0 && t.group != nil { // known before the memory is planned, in every rank
		o.Shards = defaultShards
	}
	t.sched, err = newPlan(o, t.windows.Len(), t.set.Train.Len())
	return err
}

// newPlan counts the steps; a run that would take none is refused.
func newPlan(o Options, windows int, tokens int64) (plan, error) {
	if windows == 0 {
		return plan{}, fault.Data("no optimizer step is possible: the data has %d training tokens and a window takes n_ctx %d; lower n_ctx to at most %d, give more text, or tokenize with a lower --min-length",
			tokens, o.Config.NCtx, max(2, tokens))
	}
	p := plan{windows: windows, batch: min(o.BatchSize, windows)}
	p.step = min(o.BatchSize*o.GradAccum, windows)
	p.shards = max(1, min(o.Shards, p.step))
	p.perStep = (windows + p.step - 1) / p.step
	p.steps = p.perStep * o.Epochs
	if o.MaxSteps > 0 {
		p.steps = min(p.steps, o.MaxSteps)
	}
	p.warmup = o.WarmupSteps
	if p.warmup < 0 {
		p.warmup = DefaultWarmup(p.steps)
	}
	if p.steps <= 1 && p.warmup >= p.steps {
		return plan{}, fault.Data("no optimizer step would change the weights: the run has %d step and warms up for %d; train more epochs, or give --warmup-steps 0", p.steps, p.warmup)
	}
	return p, nil
}

// OpenData opens a folder of token shards, or one of the original's
// tokenized_train_N.txt with the vocabulary file that it was made with.
func OpenData(dir, vocabPath string) (*data.Set, error) {
	if data.IsLegacy(dir) {
		return data.OpenLegacy(dir, vocabPath)
	}
	return data.OpenSet(dir)
}

// dataHash names the training tokens: the manifest's checksum, or that of the
// tokens themselves where there is no manifest.
func dataHash(s *data.Set) (string, error) {
	if s.Manifest.Checksum != "" {
		return s.Manifest.Checksum, nil
	}
	h := sha256.New()
	ids := make([]int32, 1<<14)
	for at := int64(0); at < s.Train.Len(); at += int64(len(ids)) {
		part := ids[:min(int64(len(ids)), s.Train.Len()-at)]
		if err := s.Train.ReadAt(part, at); err != nil {
			return "", err
		}
		if err := binary.Write(h, binary.LittleEndian, part); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// start makes weights, optimizer and log: new ones, or those of the state that
// the run goes on from, which is returned.
func (t *trainer) start(ctx context.Context) (*checkpoint.State, error) {
	st, err := t.findState()
	if err != nil {
		return nil, err
	}
	if st == nil {
		err = t.startAfresh(ctx)
	} else {
		err = t.resume(ctx, st)
	}
	if err != nil {
		return nil, err
	}
	t.opt.WeightDecay, t.opt.DecayAll = t.o.WeightDecay, t.o.DecayAll
	var written []byte
	if st != nil {
		written = st.Metrics
	}
	t.metrics, err = runlog.Open(ctx, t.o.Out, runlog.Options{Events: t.o.WriterDir, Written: written})
	return st, err
}

// prepare makes the graph and what else the steps need.
func (t *trainer) prepare() (err error) {
	t.warnSpace()
	t.savedAt = time.Now()
	t.sched.micro = min(t.budget.settings.Batch, t.sched.perShard())
	o := t.graphOptions()
	if o.Memory, err = t.graphMemory(o); err != nil {
		return err
	}
	t.budget.touch()
	if t.graph, err = model.NewGraph(t.cpu, t.params, o); err != nil {
		return err
	}
	if err := t.makeSums(); err != nil {
		return err
	}
	n := t.sched.micro * t.cfg.NCtx
	t.ids, t.targets = make([]int32, n), make([]int32, n)
	if t.o.DType == kernel.BF16 && !t.cpu.MultipliesBF16() {
		t.obs.Notice(fmt.Sprintf("bf16: the kernels' level %s has no products of bf16; operands are rounded to it and multiplied in fp32, which takes as long as --dtype fp32 or longer", t.cpu.ISA()))
	}
	if t.sched.warmup >= t.sched.steps {
		t.obs.Warning(fmt.Sprintf("the warm-up (%d steps) is as long as the whole run (%d steps): the learning rate never reaches its peak", t.sched.warmup, t.sched.steps))
	}
	return nil
}

// graphOptions are what the graph's memory and arithmetic depend on.
func (t *trainer) graphOptions() model.GraphOptions {
	o := t.budget.settings.Graph(t.cfg)
	o.Batch, o.Sequences = t.sched.micro, t.sched.perShard()
	o.LabelSmoothing = float32(t.o.LabelSmoothing)
	return o
}

// startAfresh draws the weights, or takes them from a model folder.
func (t *trainer) startAfresh(ctx context.Context) error {
	if err := t.enoughShards(); err != nil {
		return err
	}
	if err := t.placesFree(0); err != nil {
		return err
	}
	t.tellFormer()
	if err := checkpoint.RemoveStates(ctx, filepath.Join(t.o.Out, stateName), -1); err != nil {
		return err
	}
	if t.o.InitFrom != "" {
		if err := t.initFrom(t.o.InitFrom); err != nil {
			return err
		}
	} else {
		if err := t.takeMemory(false); err != nil {
			return err
		}
		t.params.Init(t.o.Seed)
		t.origin = drawn
	}
	var err error
	t.opt, err = t.newOptimizer()
	return err
}

// finish saves the final model.
func (t *trainer) finish(ctx context.Context) (*Result, error) {
	if err := t.guardSave(); err != nil {
		return nil, err
	}
	if err := t.saveModel(ctx, FinalModel(t.o.Out)); err != nil {
		return nil, err
	}
	if x := t.exchange; t.group.Size() > 1 && x.steps > 0 {
		t.obs.Notice(fmt.Sprintf("rank 0 waited %.1f %% of the steps' time for gradients from other ranks", 100*x.waited.Seconds()/x.steps.Seconds()))
	}
	return t.result(), nil
}

// finished is the result of a run that was done before; its model is written
// only where it is missing or not of the last step.
func (t *trainer) finished(ctx context.Context) (*Result, error) {
	t.obs.Notice(fmt.Sprintf("the training in %s is finished (%d steps, %d epochs); give more --epochs to go on, or --resume never to start afresh", t.o.Out, t.at.Step, t.at.Epoch))
	err := t.leadOnly(func() error {
		dir := FinalModel(t.o.Out)
		if in, err := checkpoint.Inspect(dir); err == nil && in.Whole && in.Training != nil && in.Training.Steps == int64(t.at.Step) {
			return nil
		}
		return t.writeModel(ctx, dir)
	})
	return t.result(), err
}

func (t *trainer) result() *Result {
	r := &Result{
		Steps: t.at.Step, Tokens: t.tokensSeen(), FinalLoss: t.finalLoss(), ValLoss: t.at.ValLoss,
		TokensPerSec: t.clock.overall(), PeakRSS: PeakRSS(), Planned: t.budget.parts.Total(), Model: FinalModel(t.o.Out), Skipped: t.at.Skipped,
		BestValLoss: t.at.Best, Stopped: t.stoppedEarly(), Elsewhere: !t.group.Lead(),
	}
	if t.at.Best != nil {
		r.BestModel = BestModel(t.o.Out)
	}
	return r
}

// close releases what the run held, whatever became of it.
func (t *trainer) close() error {
	var err error
	if t.graph != nil {
		err = t.graph.Close()
	}
	if t.metrics != nil {
		err = errors.Join(err, t.metrics.Close())
	}
	if t.cpu != nil {
		t.cpu.Close()
	}
	if t.set != nil {
		t.set.Close()
	}
	return errors.Join(err, t.releaseMemory())
}
