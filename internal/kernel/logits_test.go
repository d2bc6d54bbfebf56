package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

// Maxima, exponentials and sums of blocks are those of the plain loops, at
// every length of the last block and with logits that are ruled out.
func TestBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, isa := range ISAs() {
		c, err := New(Options{Threads: 1, ISA: isa})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{1, 63, 64, 65, 200, 1000} {
			x := make([]float32, n)
			for i := range x {
				x[i] = float32(r.NormFloat64()) * 5
				if r.IntN(10) == 0 {
					x[i] = float32(math.Inf(-1))
				}
			}
			blocks := LogitBlocks(n)
			maxima, sums, y := make([]float32, blocks), make([]float32, blocks), make([]float32, n)
			top := c.BlockMaxima(maxima, x)
			total := c.BlockExp(y, sums, x, 0.5, 1)
			wantTop, wantTotal := float32(math.Inf(-1)), 0.0
			for b := range blocks {
				m, sum := float32(math.Inf(-1)), 0.0
				for i := b * LogitBlock; i < min(n, (b+1)*LogitBlock); i++ {
					e := math.Exp(0.5*float64(x[i]) + 1)
					if math.Abs(float64(y[i])-e) > 1e-6*e {
						t.Errorf("%s: exp of %g is %g, want %g", isa, 0.5*x[i]+1, y[i], e)
					}
					m, sum = max(m, x[i]), sum+e
				}
				if maxima[b] != m || math.Abs(float64(sums[b])-sum) > 1e-5*sum {
					t.Errorf("%s, block %d of %d: %g, %g; want %g, %g", isa, b, n, maxima[b], sums[b], m, sum)
				}
				wantTop, wantTotal = max(wantTop, m), wantTotal+sum
			}
			if top != wantTop || math.Abs(total-wantTotal) > 1e-5*wantTotal {
				t.Errorf("%s, %d logits: %g, %g; want %g, %g", isa, n, top, total, wantTop, wantTotal)
			}
		}
		c.Close()
	}
}
