package dist

import (
	"math/rand/v2"
	"testing"
)

// whole is the sum of all shards as the definition of Node has it.
func whole(n int, v Node, shards [][]float32, i int) float32 {
	if v.Level == 0 {
		return shards[v.Index][i]
	}
	l, r := v.children()
	if lo, hi := r.Range(n); lo >= hi {
		return whole(n, l, shards, i)
	}
	return whole(n, l, shards, i) + whole(n, r, shards, i)
}

func addTo(dst, x []float32) {
	for i := range dst {
		dst[i] += x[i]
	}
}

// However the shards are divided, the sum is the same to the bit: each rank
// folds its own as far as it can, and one folds what the ranks have.
func TestSumDoesNotDependOnTheRanks(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := 1; n <= 17; n++ {
		shards := make([][]float32, n)
		for s := range shards {
			shards[s] = []float32{float32(r.NormFloat64() * 1e3), float32(r.NormFloat64()), float32(r.NormFloat64() * 1e-3)}
		}
		want := make([]float32, 3)
		for i := range want {
			want[i] = whole(n, Root(n), shards, i)
		}
		for size := 1; size <= 20; size++ {
			var all []Part
			next := 0
			for rank := range size {
				lo, hi := Share(n, rank, size)
				if lo != next {
					t.Fatalf("%d shards, rank %d of %d: begins at %d, want %d", n, rank, size, lo, next)
				}
				next = hi
				leaves := make([]Part, 0, hi-lo)
				for s := lo; s < hi; s++ {
					leaves = append(leaves, Part{Node{0, s}, append([]float32(nil), shards[s]...)})
				}
				if size%2 == 0 { // all at the end, or each as early as can be
					all = append(all, FoldCover(n, lo, hi, leaves, addTo)...)
					continue
				}
				var sums []Part
				for i, leaf := range leaves {
					sums = append(sums, leaf)
					if limit := Sums(n, lo, hi); len(sums) > limit {
						t.Fatalf("%d shards, %d to %d: %d sums at once, said %d", n, lo, hi, len(sums), limit)
					}
					sums = FoldCover(n, lo, lo+i+1, sums, addTo)
				}
				all = append(all, sums...)
			}
			home := all[len(all)/2].Sum
			got := Fold(n, Root(n), all, home, addTo)
			if !isSame(got, home) {
				t.Errorf("%d shards, %d ranks: the sum is not where it was asked for", n, size)
			}
			for i := range want {
				if got[i] != want[i] {
					t.Fatalf("%d shards, %d ranks: %v, want %v", n, size, got, want)
				}
			}
		}
	}
}
