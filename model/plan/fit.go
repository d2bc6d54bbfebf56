package plan

import (
	"fmt"
	"slices"
	"sort"

	"promptgen/internal/fault"
	"promptgen/model"
)

// Recomputing says whether Fit may have the backward pass compute values again.
type Recomputing string

// The three ways.
const (
	Auto Recomputing = "auto" // as much as must be
	On   Recomputing = "on"   // in every layer
	Off  Recomputing = "off"
)

// What the levers cost, as shares of a step's time, and the fixed cost of a
// micro-batch in tokens. They are estimates by counting operations, not
// measured, and serve to order the settings alone.
const (
	costSublayers = 0.20
	costLayers    = 0.23
	costStore     = 0.03
	tokensMicro   = 40
)

// Cost is about how long a step takes with these settings, where 1 is without
// any lever and with endless micro-batches.
func (s Settings) Cost(c model.Config) float64 {
	share := float64(s.Recomputed(c)) / float64(c.NLayer)
	cost := 1.0
	switch s.Recompute {
	case model.RecomputeSublayers:
		cost += costSublayers * share
	case model.RecomputeLayers:
		cost += costLayers * share
	}
	if s.StoreBF16 {
		cost += costStore * (1 - share)
	}
	return cost * (1 + tokensMicro/float64(s.Batch*c.NCtx))
}

// Fit changes as little of the wanted settings as it must for the plan to fit
// limit bytes, by what costs least time: smaller micro-batches of the same
// effective batch, computing sublayers or layers again, in as few layers as
// will do, and with bf16 products keeping their operands in bf16. None of it
// changes a number. limit 0 is no limit. ok is false where nothing fits; chosen
// then is the least there is.
func Fit(c model.Config, want Settings, how Recomputing, limit int64) (chosen Settings, ok bool, err error) {
	want.Sequences = max(want.Batch, want.Sequences)
	want.Recompute, want.RecomputeLast, want.StoreBF16 = model.RecomputeOff, 0, false
	if how == On {
		want.Recompute = model.RecomputeSublayers
	}
	if _, err := Of(c, want); err != nil && fault.Code(err) != fault.CodeMemory {
		return want, false, err
	}
	fits := func(s Settings) bool {
		p, err := Of(c, s)
		return err == nil && (limit <= 0 || p.Total() <= limit)
	}
	if fits(want) {
		return want, true, nil
	}
	least := want
	for _, s := range candidates(c, want, how, fits) {
		if fits(s) && (!ok || s.Cost(c) < chosen.Cost(c)) {
			chosen, ok = s, true
		}
		if smaller(c, s, least) {
			least = s
		}
	}
	if !ok {
		chosen = least
	}
	return chosen, ok, nil
}

func smaller(c model.Config, a, b Settings) bool {
	p, err := Of(c, a)
	q, qerr := Of(c, b)
	return err == nil && (qerr != nil || p.Total() < q.Total())
}

// candidates are the settings worth comparing: for every micro-batch, level and
// storage the fewest layers that do.
func candidates(c model.Config, want Settings, how Recomputing, fits func(Settings) bool) (all []Settings) {
	stores := []bool{false}
	if want.BF16 {
		stores = []bool{false, true}
	}
	levels := []model.Recompute{model.RecomputeOff, model.RecomputeSublayers, model.RecomputeLayers}
	switch how {
	case On:
		levels = levels[1:]
	case Off:
		levels = levels[:1]
	}
	for batch := want.Batch; batch > 0; batch = next(batch) {
		for _, level := range levels {
			for _, store := range stores {
				s := want
				s.Batch, s.Recompute, s.StoreBF16 = batch, level, store
				if level != model.RecomputeOff && how == Auto {
					s.RecomputeLast = 1 + sort.Search(c.NLayer-1, func(k int) bool {
						s.RecomputeLast = 1 + k
						return fits(s)
					})
				}
				all = append(all, s)
			}
		}
	}
	return all
}

// next is the micro-batch to try after n: with the fewest sequences for one
// more piece.
func next(n int) int {
	if n == 1 {
		return 0
	}
	return (n + 1) / 2
}

// Proposal is a smaller config that fits.
type Proposal struct {
	Config   model.Config `json:"config"`
	Settings Settings     `json:"-"`
	Change   string       `json:"change"`             // what is smaller
	Lost     float64      `json:"capacity_lost"`      // share of the parameters, or of the context
	Bytes    int64        `json:"planned_peak_bytes"` // with the settings that fit
}

// Nearest proposes, for a config that does not fit, the largest n_ctx, n_layer
// and n_head (with n_embd) that do, each by itself; the one that loses least
// comes first.
func Nearest(c model.Config, want Settings, how Recomputing, limit int64) (all []Proposal) {
	heads, dim := c.NHead, c.NEmbd/c.NHead
	for _, way := range []struct {
		most  int // steps down to the smallest
		build func(n int) (model.Config, string)
	}{
		{(c.NCtx+7)/8 - 1, func(n int) (model.Config, string) {
			d := c
			d.NCtx = 8 * n
			d.NPositions = min(c.NPositions, d.NCtx)
			return d, fmt.Sprintf("n_ctx %d instead of %d", d.NCtx, c.NCtx)
		}},
		{c.NLayer - 1, func(n int) (model.Config, string) {
			d := c
			d.NLayer = n
			return d, fmt.Sprintf("n_layer %d instead of %d", n, c.NLayer)
		}},
		{heads - 1, func(n int) (model.Config, string) {
			d := c
			d.NHead, d.NEmbd = n, n*dim
			if c.NInner > 0 {
				d.NInner = max(1, int(float64(c.NInner)*float64(n)/float64(heads)))
			}
			return d, fmt.Sprintf("n_head %d and n_embd %d instead of %d and %d", n, d.NEmbd, heads, c.NEmbd)
		}},
	} {
		// The first of most, most-1, … that fits.
		at := sort.Search(way.most, func(i int) bool {
			d, _ := way.build(way.most - i)
			if 4*Params(d, want.Untied) > limit { // the weights alone: no need to list their buffers
				return false
			}
			_, ok, err := Fit(d, want, how, limit)
			return err == nil && ok
		})
		if at >= way.most {
			continue
		}
		d, change := way.build(way.most - at)
		s, _, _ := Fit(d, want, how, limit)
		p, err := Of(d, s)
		if err != nil {
			continue
		}
		lost := 1 - float64(Params(d, want.Untied))/float64(Params(c, want.Untied))
		if d.NCtx < c.NCtx {
			lost = 1 - float64(d.NCtx)/float64(c.NCtx)
		}
		all = append(all, Proposal{d, s, change, lost, p.Total()})
	}
	slices.SortStableFunc(all, func(a, b Proposal) int {
		switch {
		case a.Lost < b.Lost:
			return -1
		case a.Lost > b.Lost:
			return 1
		}
		return 0
	})
	return all
}
