package train

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"promptgen/internal/arena"
	"promptgen/internal/bytesize"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model"
	memory "promptgen/model/plan"
	"promptgen/train/dist"
)

// budget is the memory of a run: what was planned, and the piece that weights,
// moments and the graph's buffers are cut from.
type budget struct {
	settings memory.Settings
	parts    memory.Parts
	arena    *arena.Arena
	more     *arena.Arena // for a graph that a state's shards make larger
	restore  func()
}

// planMemory chooses the settings that keep the run within the limit. With
// Options.Shrink a config that does not fit gives way to the nearest that does;
// without, it is fault.CodeMemory.
func (t *trainer) planMemory() error {
	want := t.wantedMemory()
	s, ok, err := memory.Fit(t.cfg, want, t.o.Recompute, t.o.MaxMemory)
	if err != nil {
		return err
	}
	if !ok {
		nearest := memory.Nearest(t.cfg, want, t.o.Recompute, t.o.MaxMemory)
		if len(nearest) > 0 {
			if err := t.fitting(nearest[0].Config); err != nil {
				return err
			}
		}
		if !t.o.Shrink || len(nearest) == 0 {
			return TooLarge(t.cfg, s, t.o.MaxMemory, nearest)
		}
		t.obs.Notice(fmt.Sprintf("the config does not fit %s: training with %s", planSize(t.o.MaxMemory), nearest[0].Change))
		t.cfg, s = nearest[0].Config, nearest[0].Settings
		t.o.Config = t.cfg
		if t.o.Stride > t.cfg.NCtx {
			t.o.Stride = 0
		}
		if err := t.cut(); err != nil {
			return err
		}
	}
	if ok {
		if err := t.fitting(t.cfg); err != nil {
			return err
		}
	}
	t.budget.settings = s
	t.budget.parts, err = memory.Of(t.cfg, s)
	return err
}

// fitting tells which config fits.
func (t *trainer) fitting(c model.Config) error {
	if t.o.Fitting == nil || !t.group.Lead() {
		return nil
	}
	return t.o.Fitting(c)
}

// wantedMemory is what the options ask for if there is room.
func (t *trainer) wantedMemory() memory.Settings {
	first, end := dist.Share(t.sched.shards, t.group.Rank(), t.group.Size())
	trainable := t.o.trainable()
	grads := 4 * trainable.Len(t.cfg, t.untied)
	beside := max(1, dist.Sums(t.sched.shards, first, end)) - 1 // a rank without a shard is refused once a state has had its say
	s := memory.Settings{
		Batch: min(t.sched.batch, t.sched.perShard()), Sequences: t.sched.perShard(), Threads: t.cpu.Threads(),
		BF16: t.o.DType == kernel.BF16, OptimizerBF16: t.o.OptimizerBF16, Trainable: trainable, Untied: t.untied,
		Data: 4*int64(t.sched.windows) + grads*int64(beside),
	}
	if t.set != nil {
		s.Data += t.set.InMemory()
	}
	if len(t.o.SamplePrompts) > 0 {
		weights, mapped, heap := t.samplesNeed()
		s.Guests, s.Beside, s.Data = weights, mapped, s.Data+heap
	}
	return s
}

// TooLarge is the error of a config that fits no setting: what it takes at
// least, and what would fit.
func TooLarge(c model.Config, least memory.Settings, limit int64, nearest []memory.Proposal) error {
	p, err := memory.Of(c, least)
	if err != nil {
		return err
	}
	line := fmt.Sprintf("memory: the training takes at least %s and %s are allowed", planSize(p.Total()), planSize(limit))
	var would []string
	for _, n := range nearest {
		what := "parameters"
		if n.Config.NCtx < c.NCtx {
			what = "context"
		}
		would = append(would, fmt.Sprintf("%s (%.0f %% fewer %s, %s)", n.Change, 100*n.Lost, what, planSize(n.Bytes)))
	}
	if len(would) == 0 {
		line += "; no smaller config of this kind fits: give more --max-memory"
	} else {
		line += "; these fit: " + strings.Join(would, ", or ") + "; train --shrink takes the first, --write-config FILE writes it"
	}
	return fault.With(fault.CodeMemory, fmt.Errorf("%s", line))
}

// takeMemory reserves the arena and lays parameters over it, once it is known
// whether their head is tied: where it is not, the plan is made anew.
func (t *trainer) takeMemory(untied bool) (err error) {
	if untied != t.untied {
		t.untied = untied
		if err := t.planMemory(); err != nil {
			return err
		}
	}
	if t.budget.restore == nil {
		t.keepHeap()
	}
	if t.budget.arena, err = arena.New(memory.ArenaBytes(t.cfg, t.budget.settings)); err != nil {
		return err
	}
	f := t.budget.arena.Floats(int(memory.Params(t.cfg, untied)))
	if f == nil {
		return errPlan
	}
	t.params = model.ParamsOver(t.cfg, untied, f)
	if t.o.LoRA.On() {
		if f = t.budget.arena.Floats(int(t.o.LoRA.Len(t.cfg))); f == nil {
			return errPlan
		}
		t.params = t.params.Adapt(t.o.LoRA, f)
	}
	return nil
}

// keepHeap holds Go's heap to its share of the plan until the run is over.
func (t *trainer) keepHeap() {
	percent := debug.SetGCPercent(50)
	limit := debug.SetMemoryLimit(memory.HeapBytes(t.cfg, t.budget.settings))
	t.budget.restore = func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}
}

// planSize rounds up, as a limit must be read.
func planSize(n int64) string {
	if n < 1<<20 {
		return bytesize.Format(n)
	}
	return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20)
}

var errPlan = fmt.Errorf("memory: the run takes more than its plan says; this is a fault of the program, please report it")

// newMoments is a moment of every trained weight, in the arena.
func (t *trainer) newMoments() (*model.Moments, error) {
	trainable := t.budget.settings.Trainable
	n := int(trainable.Len(t.cfg, t.untied))
	var f32 []float32
	var bf16 []uint16
	if t.o.OptimizerBF16 {
		bf16 = t.budget.arena.Halves(n)
	} else {
		f32 = t.budget.arena.Floats(n)
	}
	if f32 == nil && bf16 == nil {
		return nil, errPlan
	}
	return trainable.Moments(t.cfg, t.untied, f32, bf16), nil
}

// newOptimizer is AdamW with its moments in the arena.
func (t *trainer) newOptimizer() (*AdamW, error) {
	m, err := t.newMoments()
	if err != nil {
		return nil, err
	}
	v, err := t.newMoments()
	if err != nil {
		return nil, err
	}
	opt := newAdamW(t.cpu, m, v)
	opt.Seed = t.o.Seed
	return opt, nil
}

// graphMemory is what the graph lies over.
func (t *trainer) graphMemory(o model.GraphOptions) (_ []float32, err error) {
	n := model.Bytes(model.Buffers(t.cfg, !t.params.HeadTied, o))
	if f := t.budget.arena.Floats(int(n / 4)); f != nil {
		return f, nil
	}
	if t.budget.more, err = arena.New(n); err != nil {
		return nil, err
	}
	return t.budget.more.Floats(int(n / 4)), nil
}

// touch takes all that was reserved.
func (b *budget) touch() {
	b.arena.Touch()
	if b.more != nil {
		b.more.Touch()
	}
}

// releaseMemory gives everything back.
func (t *trainer) releaseMemory() error {
	if t.budget.restore != nil {
		t.budget.restore()
	}
	return errors.Join(t.budget.arena.Close(), t.budget.more.Close())
}
