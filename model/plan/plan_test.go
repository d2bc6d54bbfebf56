package plan

import (
	"math"
	"testing"

	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model"
)

func small() model.Config {
	return model.Config{VocabSize: 21128, NPositions: 1024, NCtx: 1024, NEmbd: 768, NHead: 12, NLayer: 12,
		LayerNormEpsilon: 1e-5, InitializerRange: 0.02, EmbdDrop: 0.1, AttnDrop: 0.1, ResidDrop: 0.1}
}

// The forecast of the kernels' memory holds for the step that it forecasts.
func TestKernelMemoryWithinForecast(t *testing.T) {
	for _, bf16 := range []bool{false, true} {
		for _, c := range []model.Config{
			{VocabSize: 500, NPositions: 32, NCtx: 32, NEmbd: 24, NHead: 2, NLayer: 1},
			{VocabSize: 4000, NPositions: 100, NCtx: 100, NEmbd: 128, NHead: 2, NLayer: 2, NInner: 300},
			{VocabSize: 700, NPositions: 256, NCtx: 256, NEmbd: 64, NHead: 1, NLayer: 1},
		} {
			c.LayerNormEpsilon, c.InitializerRange, c.EmbdDrop, c.AttnDrop = 1e-5, 0.02, 0.1, 0.1
			s := Settings{Batch: 2, BF16: bf16, Threads: 2}
			cpu, err := kernel.New(kernel.Options{Threads: 2})
			if err != nil {
				t.Fatal(err)
			}
			defer cpu.Close()
			p := model.NewParams(c, false)
			p.Init(1)
			g, err := model.NewGraph(cpu, p, s.Graph(c))
			if err != nil {
				t.Fatal(err)
			}
			ids := make([]int32, 2*c.NCtx)
			for range 2 {
				if _, err := g.Step(ids, ids, 1, model.DropKey{}); err != nil {
					t.Fatal(err)
				}
			}
			if _, _, err := g.Eval(ids, ids); err != nil {
				t.Fatal(err)
			}
			if got, want := cpu.Scratch(), kernel.ScratchBytes(shape(c, s)); got > want || want-got > 4<<20 {
				t.Errorf("bf16 %v, %+v: the kernels keep %d bytes, %d were forecast", bf16, c, got, want)
			}
		}
	}
}

// Every part adds up to the arena and the heap that a training takes.
func TestPartsAreWhatIsAllocated(t *testing.T) {
	c := small()
	for _, s := range []Settings{
		{Batch: 8, Threads: 2},
		{Batch: 1, Sequences: 8, Threads: 2, BF16: true, StoreBF16: true, Recompute: model.RecomputeSublayers, RecomputeLast: 3},
		{Batch: 1, Sequences: 8, Threads: 2, Recompute: model.RecomputeLayers, OptimizerBF16: true},
		{Batch: 2, Threads: 2, Trainable: model.Trainable{Freeze: []string{"wte,wpe,h.0-2"}}},
		{Batch: 2, Threads: 2, OptimizerBF16: true, Trainable: model.Trainable{LoRA: model.LoRA{Rank: 7, Alpha: 8, Dropout: 0.1, Targets: model.DefaultTargets()}}},
	} {
		p, err := Of(c, s)
		if err != nil {
			t.Fatal(err)
		}
		allocated := ArenaBytes(c, s) + HeapBytes(c, s) - heapLimit
		if d := p.Total() - p.Runtime - allocated; d < -256 || d > 2<<20 {
			t.Errorf("%+v: the plan and what is allocated differ by %d", s, d)
		}
	}
}

// Fit stays below its limit, keeps the effective batch, does nothing where
// nothing must be done, and takes more drastic means only for tighter limits.
func TestFit(t *testing.T) {
	c := small()
	want := Settings{Batch: 8, Threads: 2, BF16: true}
	if s, ok, err := Fit(c, want, Auto, 0); err != nil || !ok || s.Batch != 8 || s.Recompute != model.RecomputeOff {
		t.Errorf("without a limit: %+v %v %v", s, ok, err)
	}
	before := 0.0
	for _, limit := range []int64{16 << 30, 6 << 30, 4 << 30, 3 << 30, 5 << 29, 9 << 28, 1 << 31, 15 << 27} {
		s, ok, err := Fit(c, want, Auto, limit)
		if err != nil || !ok {
			t.Fatalf("%d MiB: %v %v", limit>>20, ok, err)
		}
		p, _ := Of(c, s)
		if p.Total() > limit || s.Sequences != 8 {
			t.Errorf("%d MiB: takes %d, %+v", limit>>20, p.Total()>>20, s)
		}
		if s.Cost(c) < before {
			t.Errorf("%d MiB: faster than with more memory: %+v", limit>>20, s)
		}
		before = s.Cost(c)
		t.Logf("%5d MiB: %5d planned, cost %.3f, %+v", limit>>20, p.Total()>>20, before, s)
	}
	want.OptimizerBF16 = true
	if s, ok, _ := Fit(c, want, Auto, 1340<<20); !ok {
		p, _ := Of(c, s)
		t.Errorf("bf16 moments: %d MiB %+v scratch %d", p.Total()>>20, p, kernel.ScratchBytes(shape(c, s)))
	}
	if s, ok, _ := Fit(c, want, On, 0); !ok || s.Recompute == model.RecomputeOff {
		t.Errorf("recompute on: %+v", s)
	}
	if s, ok, _ := Fit(c, want, Off, 1<<31); ok && s.Recompute != model.RecomputeOff {
		t.Errorf("recompute off: %+v", s)
	}
}

// Where nothing fits, what is proposed does, and comes in the order of its loss.
func TestNearest(t *testing.T) {
	c, want := small(), Settings{Batch: 8, Threads: 2}
	const limit = 1 << 30
	if _, ok, _ := Fit(c, want, Auto, limit); ok {
		t.Fatal("GPT-2 small fits 1 GiB")
	}
	all := Nearest(c, want, Auto, limit)
	if len(all) < 2 {
		t.Fatalf("%d proposals", len(all))
	}
	for i, p := range all {
		if _, ok, err := Fit(p.Config, want, Auto, limit); !ok || err != nil || p.Bytes > limit {
			t.Errorf("%s does not fit: %v", p.Change, err)
		}
		if i > 0 && p.Lost < all[i-1].Lost || p.Lost <= 0 || p.Lost >= 1 {
			t.Errorf("%s loses %g", p.Change, p.Lost)
		}
		t.Logf("%s: loses %.0f %%, %d MiB", p.Change, 100*p.Lost, p.Bytes>>20)
	}
	if all := Nearest(c, want, Auto, 1<<20); len(all) > 0 {
		t.Errorf("something fits a MiB: %+v", all[0])
	}
}

// No numbers, however absurd, overflow or are worked on for long.
func FuzzOf(f *testing.F) {
	f.Add(1024, 768, 12, 12, 21128, 0, 8, 8, uint8(0))
	f.Add(1<<22, 1<<22, 1, 1<<12, 1<<22, 1<<22, 1<<16, 1<<32, uint8(7))
	f.Add(1_000_000_000, 768, 12, 12, 21128, 0, 8, 8, uint8(3))
	f.Add(math.MaxInt, -1, 0, 1, 1, math.MinInt, -8, math.MaxInt, uint8(1))
	f.Fuzz(func(t *testing.T, ctx, embd, head, layer, vocab, inner, batch, sequences int, flags uint8) {
		c := model.Config{VocabSize: vocab, NPositions: ctx, NCtx: ctx, NEmbd: embd, NHead: head, NLayer: layer, NInner: inner,
			LayerNormEpsilon: 1e-5, InitializerRange: 0.02}
		s := Settings{Batch: batch, Sequences: sequences, Threads: 2, BF16: flags&1 > 0, StoreBF16: flags&1 > 0,
			Recompute: model.Recompute(flags >> 1 % 3), OptimizerBF16: flags&8 > 0}
		p, err := Of(c, s)
		if err != nil {
			if code := fault.Code(err); code != fault.CodeUsage && code != fault.CodeMemory {
				t.Errorf("%v has code %d", err, code)
			}
			return
		}
		for _, n := range []int64{p.Weights, p.Gradients, p.Optimizer, p.Activations, p.Workspace} {
			if n < 0 || n > mostBytes {
				t.Fatalf("%+v", p)
			}
		}
		if limit := 2*bound(c, s) + 1e9; float64(p.Total()) > limit {
			t.Fatalf("%d bytes, bound %g", p.Total(), limit)
		}
	})
}
