package train

import (
	"context"
	"runtime/debug"
	"time"

	"promptgen/internal/fault"
	"promptgen/model"
	"promptgen/train/dist"
)

// The gradient of a step, as a sum over shards: each shard's in the order that
// accumulation uses, the shards' in the tree of package dist. Which rank
// computes which shard changes nothing.

// gradSum is memory for one sum of gradients.
type gradSum struct {
	arena  []float32     // all tensors, one after another
	params *model.Params // the same as tensors; nil: the graph's own
}

// exchange is the reduction across ranks; unused where there is one.
type exchange struct {
	reducer *dist.Reducer
	offsets []int // of the tensors in the arena, and its length

	waited, steps time.Duration // for the other ranks, and in all
	norm          float64       // of the last step's gradient: must be the same everywhere

	stop, save bool // agreed: stop after this step; SaveInterval is over
}

// perShard is the most sequences in a shard.
func (p plan) perShard() int { return (p.step + p.shards - 1) / p.shards }

// enoughShards refuses more ranks than there are shards.
func (t *trainer) enoughShards() error {
	s := &t.sched
	if size := t.group.Size(); size > s.shards {
		return fault.Usage("%d ranks cannot share %d shards: give --shards %d (at most the effective batch, %d) at the start of the training, or fewer ranks", size, s.shards, size, s.step)
	}
	return nil
}

// makeSums allocates what the step's shards need beside the graph's own
// gradients.
func (t *trainer) makeSums() error {
	own := t.graph.GradArena()
	t.sums = []gradSum{{arena: own}}
	first, end := dist.Share(t.sched.shards, t.group.Rank(), t.group.Size())
	for len(t.sums) < dist.Sums(t.sched.shards, first, end) {
		t.sums = append(t.sums, t.newSum())
	}
	if t.group.Size() == 1 {
		return nil
	}
	at := 0
	for _, tensor := range t.graph.Grads().Tensors { // those that are not trained have no length
		t.exchange.offsets = append(t.exchange.offsets, at)
		at += len(tensor.Data)
	}
	t.exchange.offsets = append(t.exchange.offsets, at)
	debug.SetMemoryLimit(debug.SetMemoryLimit(-1) + 4*2*dist.BucketLen) // what the exchange receives
	t.exchange.reducer = t.group.NewReducer(own, dist.BucketLen, t.cpu.Add)
	return nil
}

func (t *trainer) newSum() gradSum {
	arena := make([]float32, len(t.graph.GradArena()))
	// The heap was held to a plan without these sums: the collector would work
	// without end to free what is in use.
	debug.SetMemoryLimit(debug.SetMemoryLimit(-1) + 4*int64(len(arena)))
	return gradSum{arena, t.budget.settings.Trainable.Over(t.cfg, !t.params.HeadTied, arena)}
}

// gradients leaves the gradient of the mean loss over the effective batch in
// the graph's gradients and returns the sum of the losses, in every rank.
func (t *trainer) gradients(ctx context.Context, windows []int32) (float64, error) {
	shards := min(t.sched.shards, len(windows))
	first, end := dist.Share(shards, t.group.Rank(), t.group.Size())
	var sums []dist.Part
	var loss float64
	for s := first; s < end; s++ {
		if len(sums) == len(t.sums) {
			t.sums = append(t.sums, t.newSum()) // a short batch may be shared out less evenly
		}
		to := t.sums[len(sums)]
		sums = append(sums, dist.Part{Node: dist.Node{Index: s}, Sum: to.arena})
		t.graph.CollectIn(to.params)
		t.graph.ZeroGrads()
		last := s == end-1 && t.group.Size() > 1
		l, err := t.shard(windows, s, shards, func() error {
			if !last {
				return nil
			}
			t.graph.OnFinal(func(tensor int) { t.exchange.reducer.Final(t.exchange.offsets[tensor]) })
			return t.exchange.reducer.Begin(shards, sums)
		})
		if err != nil {
			return 0, err
		}
		loss += l
		if !model.IsFinite(loss) && t.group.Size() == 1 {
			break
		}
		t.graph.Grads() // what was looked up joins in
		if !last {
			sums = dist.FoldCover(shards, first, s+1, sums, t.add)
		}
	}
	t.graph.OnFinal(nil)
	t.graph.CollectIn(nil)
	if t.group.Size() > 1 {
		if err := t.finishExchange(shards, len(sums) == 0); err != nil {
			return 0, err
		}
	}
	return t.agree(ctx, loss)
}

// shard adds up the gradient of shard s and returns its loss. beforeLast is
// called before the last micro-batch.
func (t *trainer) shard(windows []int32, s, shards int, beforeLast func() error) (float64, error) {
	n := t.cfg.NCtx
	scale := float32(1 / float64(t.targetsOf(len(windows))))
	first, end := dist.Share(len(windows), s, shards)
	var sum float64
	for ; first < end; first += t.sched.micro {
		micro := windows[first:min(first+t.sched.micro, end)]
		for i, w := range micro {
			if err := t.windows.Read(t.ids[i*n:(i+1)*n], int(w)); err != nil {
				return 0, err
			}
		}
		size := len(micro) * n
		Targets(t.targets[:size], t.ids[:size], n)
		if first+len(micro) == end {
			if err := beforeLast(); err != nil {
				return 0, err
			}
		}
		loss, err := t.graph.Step(t.ids[:size], t.targets[:size], scale,
			model.DropKey{Seed: t.o.Seed, Step: uint64(t.at.Step), Seq0: first})
		if err != nil {
			return 0, err
		}
		sum += loss
		if !model.IsFinite(loss) && t.group.Size() == 1 {
			break // the step is skipped: what went wrong can still be looked at
		}
	}
	return sum, nil
}

// add adds x to dst on all threads.
func (t *trainer) add(dst, x []float32) {
	t.cpu.Parallel(len(dst), func(lo, hi int) { t.cpu.Add(dst[lo:hi], x[lo:hi]) })
}

// finishExchange waits for the sum over all ranks.
func (t *trainer) finishExchange(shards int, idle bool) error {
	if idle {
		if err := t.exchange.reducer.Begin(shards, nil); err != nil {
			return err
		}
	}
	t.exchange.reducer.Final(0)
	waited, err := t.exchange.reducer.Wait()
	t.exchange.waited += waited
	return err
}
