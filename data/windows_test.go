package data

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"promptgen/internal/fault"
)

func counting(n int) *Tokens {
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(i)
	}
	return NewTokens(ids, Stats{}, max(n, 1))
}

// Windows of stride at most n_ctx cover every token, each window is a stretch of
// the stream, and none is there twice.
func TestWindowsCoverTheStream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 300).Draw(t, "tokens")
		nCtx := rapid.IntRange(2, 40).Draw(t, "n_ctx")
		stride := rapid.IntRange(0, nCtx).Draw(t, "stride")
		w, err := NewWindows(counting(n), nCtx, stride)
		if err != nil {
			t.Fatal(err)
		}
		if w.Len() != CountWindows(int64(n), nCtx, stride) {
			t.Errorf("%d windows, and %d counted", w.Len(), CountWindows(int64(n), nCtx, stride))
		}
		seen := make([]bool, n)
		last := int32(-1)
		ids := make([]int32, nCtx)
		for i := range w.Len() {
			if err := w.Read(ids, i); err != nil {
				t.Fatal(err)
			}
			if ids[0] <= last {
				t.Errorf("window %d begins at %d, behind %d", i, ids[0], last)
			}
			last = ids[0]
			for j, id := range ids {
				if id != ids[0]+int32(j) {
					t.Fatalf("window %d is no stretch: %v", i, ids)
				}
				seen[id] = true
			}
		}
		if n < nCtx != (w.Len() == 0) {
			t.Errorf("%d windows of %d over %d tokens", w.Len(), nCtx, n)
		}
		if w.Len() > 0 && slices.Contains(seen, false) {
			t.Errorf("a token is in no window")
		}
	})
}

// Every token but a window's first is predicted exactly once.
func TestEvalWindows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 200).Draw(t, "tokens")
		nCtx := rapid.IntRange(2, 40).Draw(t, "n_ctx")
		w, err := counting(n).EvalWindows(nCtx)
		if err != nil {
			t.Fatal(err)
		}
		predicted := 0
		ids, targets := make([]int32, nCtx), make([]int32, nCtx)
		for i := range w.Len() {
			got, err := w.Read(ids, targets, i)
			if err != nil {
				t.Fatal(err)
			}
			count := 0
			for r, target := range targets {
				if target < 0 {
					continue
				}
				count++
				if target != ids[r]+1 || int(ids[r]) != i*nCtx+r {
					t.Errorf("window %d, row %d: %d predicts %d", i, r, ids[r], target)
				}
			}
			if count != got {
				t.Errorf("%d targets, and %d told", count, got)
			}
			predicted += count
		}
		if firsts := (n + nCtx - 1) / nCtx; predicted != n-firsts {
			t.Errorf("%d of %d tokens predicted in windows of %d", predicted, n, nCtx)
		}
	})
}

func TestWindowsRefuse(t *testing.T) {
	_, err := NewWindows(counting(9), 1, -1)
	code(t, err, fault.CodeUsage, "n_ctx is 1", "stride is -1")
	_, err = counting(9).EvalWindows(1)
	code(t, err, fault.CodeUsage)
}

// An order is a permutation, the same for the same seed and epoch, another for
// others. The first numbers of one are written down: a resumed run, perhaps with
// a newer program, must go through the same order.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 500).Draw(t, "n")
		seed := rapid.Uint64().Draw(t, "seed")
		epoch := rapid.IntRange(0, 9).Draw(t, "epoch")
		order := Order(n, seed, epoch)
		if !slices.Equal(order, Order(n, seed, epoch)) {
			t.Error("not repeatable")
		}
		if n > 20 && (slices.Equal(order, Order(n, seed, epoch+1)) || slices.Equal(order, Order(n, seed+1, epoch))) {
			t.Error("neither seed nor epoch matters")
		}
		slices.Sort(order)
		for i, v := range order {
			if int(v) != i {
				t.Fatal("not a permutation")
			}
		}
	})
	if got, want := Order(10, 1, 0), []int32{6, 0, 4, 7, 3, 1, 8, 9, 2, 5}; !slices.Equal(got, want) {
		t.Errorf("the order has changed: %v, was %v", got, want)
	}
}
