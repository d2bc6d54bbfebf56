package train

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/cpu"

	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model"
	"promptgen/model/checkpoint"
)

// What the ranks of a run do together: they start alike, rank 0 alone touches
// the output folder and talks to the user, and all go on or stop as one. With
// one process (a nil group) all of it is what one rank does.

// leadOnly has rank 0 do something; all ranks hear how it went.
func (t *trainer) leadOnly(f func() error) error {
	var err error
	if t.group.Lead() {
		err = f()
	}
	return t.group.Agree(err)
}

// computing is what the options say of the kernels.
func (t *trainer) computing() kernel.Options {
	return kernel.Options{Threads: t.o.Threads, ISA: t.o.ISA}
}

// openTogether opens the data in every rank and refuses ranks that differ.
func (t *trainer) openTogether() error {
	err := t.openData()
	if err == nil && t.o.Shards > 0 { // else a state may have its own number
		err = t.enoughShards()
	}
	if err == nil {
		t.cpu, err = kernel.New(t.computing())
		err = fault.With(fault.CodeUsage, err)
	}
	if err == nil {
		err = t.planMemory()
	}
	if err := t.group.Agree(err); err != nil || t.group == nil {
		return err
	}
	facts, err := t.likeness()
	if err := t.group.Agree(err); err != nil {
		return err
	}
	return t.group.Same(facts)
}

// likeness is what must be equal in all ranks for them to compute the same.
func (t *trainer) likeness() (map[string]string, error) {
	program, err := programHash()
	if err != nil {
		return nil, fmt.Errorf("reading this program: %w", err)
	}
	f := map[string]string{
		"the program (SHA-256)":      program,
		"the processor":              fmt.Sprintf("%s, %s, FMA %v", runtime.GOARCH, t.cpu.ISA(), runtime.GOARCH != "amd64" || cpu.X86.HasFMA),
		"the data (hash)":            t.hash,
		"the vocabulary (hash)":      t.set.VocabHash(),
		"the validation tokens":      "none",
		"the seed":                   strconv.FormatUint(t.o.Seed, 10),
		"--shards":                   strconv.Itoa(t.o.Shards),
		"--eval-every, --save-every": fmt.Sprint(t.o.EvalEvery, t.o.SaveEvery, t.o.SaveInterval),
		"--recompute, --keep-epochs": fmt.Sprint(t.o.Recompute, t.o.KeepEpochs),
	}
	if t.set.Val != nil {
		f["the validation tokens"] = strconv.FormatInt(t.set.Val.Len(), 10)
	}
	for prefix, v := range map[string]any{"config ": t.cfg, "setting ": t.settings()} {
		for key, value := range fieldsOf(v) {
			f[prefix+key] = value
		}
	}
	return f, nil
}

// programHash names the running program by its file.
func programHash() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// begin is what rank 0 tells the others of where the run begins.
type begin struct {
	Place         place
	Resumed       bool
	Copied        bool // weights that are not drawn from the seed
	Untied        bool
	Shards        int
	Steps, Warmup int
}

// startTogether has rank 0 find or draw the weights, and passes on to the others
// what they cannot draw themselves: the output folder is rank 0's alone.
func (t *trainer) startTogether(ctx context.Context) error {
	var st *checkpoint.State
	err := t.leadOnly(func() (err error) {
		st, err = t.start(ctx)
		return err
	})
	if err != nil || t.group.Size() == 1 {
		return err
	}
	var b begin
	if t.group.Lead() {
		b = begin{t.at, st != nil, st != nil || t.o.InitFrom != "", !t.params.HeadTied, t.sched.shards, t.sched.steps, t.sched.warmup}
	}
	mine, err := json.Marshal(b)
	if err != nil {
		return err
	}
	all, err := t.group.Gather(mine)
	if err != nil {
		return err
	}
	if !t.group.Lead() {
		if err := json.Unmarshal(all[0], &b); err != nil {
			return fmt.Errorf("what rank 0 says of the start cannot be read: %w", err)
		}
		if err := t.follow(b); err != nil {
			return err
		}
	}
	t.obs.Notice(fmt.Sprintf("training in %s, %d shards a step", t.group, t.sched.shards))
	if b.Copied {
		err = t.receive(t.params)
	}
	if b.Resumed {
		err = errors.Join(err, t.receiveMoments(t.opt.M), t.receiveMoments(t.opt.V))
	}
	return err
}

// follow starts as rank 0 says.
func (t *trainer) follow(b begin) error {
	t.at = b.Place
	t.sched.shards, t.sched.steps, t.sched.warmup = b.Shards, b.Steps, b.Warmup
	err := t.takeMemory(b.Untied)
	if err != nil {
		return err
	}
	if !b.Copied {
		t.params.Init(t.o.Seed)
	}
	if t.opt, err = t.newOptimizer(); err != nil {
		return err
	}
	t.opt.Steps = t.at.Step - t.at.Skipped
	t.opt.WeightDecay, t.opt.DecayAll = t.o.WeightDecay, t.o.DecayAll
	return nil
}

// receive makes p what it is at rank 0.
func (t *trainer) receive(p *model.Params) error {
	for _, tensor := range p.Tensors {
		if err := t.group.Broadcast(tensor.Data); err != nil {
			return err
		}
	}
	return nil
}

// receiveMoments does the same with moments.
func (t *trainer) receiveMoments(m *model.Moments) error {
	var wide []float32 // bfloat16 widens exactly
	for _, moment := range m.Tensors {
		if moment.F32 != nil {
			if err := t.group.Broadcast(moment.F32); err != nil {
				return err
			}
		}
		const piece = 1 << 18
		wide = slices.Grow(wide[:0], piece)
		for h := range slices.Chunk(moment.BF16, piece) {
			f := wide[:len(h)]
			t.cpu.UnpackBF16(f, h)
			if err := t.group.Broadcast(f); err != nil {
				return err
			}
			t.cpu.PackBF16(h, f)
		}
	}
	return nil
}

// agree adds up the ranks' losses, whose sum is exact in any order, and settles
// what depends on clocks and signals. It also compares the gradient norms of the
// step before, which every rank computes from the same sums.
func (t *trainer) agree(ctx context.Context, loss float64) (float64, error) {
	x := &t.exchange
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	x.stop = ctx.Err() != nil
	x.save = t.o.SaveInterval > 0 && time.Since(t.savedAt) >= t.o.SaveInterval
	if t.group.Size() == 1 {
		return loss, nil
	}
	all, err := t.group.Floats(loss, flag(x.stop), flag(x.save), x.norm)
	if err != nil {
		return 0, err
	}
	loss = 0
	for rank, f := range all {
		loss += f[0]
		x.stop = x.stop || f[1] != 0
		if math.Float64bits(f[3]) != math.Float64bits(all[0][3]) {
			return 0, t.group.Together(fmt.Errorf("step %d: the gradient norm of rank %d was %v, that of rank 0 %v: a rank computes wrongly; the last checkpoint may be wrong too", t.at.Step, rank, f[3], all[0][3]))
		}
	}
	x.save = all[0][2] != 0
	return loss, nil
}

// stopAsked says whether to stop before the next step: what all ranks agreed on
// in the last.
func (t *trainer) stopAsked(ctx context.Context) bool {
	if t.group.Size() == 1 {
		return ctx.Err() != nil
	}
	return t.exchange.stop
}

// intervalOver says whether SaveInterval asks for a state.
func (t *trainer) intervalOver() bool {
	return t.exchange.save
}

// evaluate measures the model on the held-out tokens, each rank on its part.
func (t *trainer) evaluate(ctx context.Context) (EvalResult, error) {
	if t.group.Size() > 1 {
		ctx = context.WithoutCancel(ctx) // all go through with it
	}
	sum, count, err := evaluate(ctx, t.graph, t.set.Val, t.sched.micro, t.cfg.NCtx, t.group.Rank(), t.group.Size())
	if err != nil || t.group.Size() == 1 {
		return newEvalResult(sum, count, t.set.Val.Stats()), err
	}
	all, err := t.group.Floats(sum, float64(count))
	if err != nil {
		return EvalResult{}, err
	}
	sum, count = 0, 0
	for _, f := range all {
		sum += f[0]
		count += int64(f[1])
	}
	return newEvalResult(sum, count, t.set.Val.Stats()), nil
}
