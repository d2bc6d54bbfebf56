package kernel

import (
	"maps"
	"testing"
	"unsafe"
)

// after is the ahead once n lines were fetched, by its definition.
func (a ahead) after(n int) ahead {
	for range n {
		a.at += a.step
		if a.left--; a.left != 0 {
			continue
		}
		if a.rows--; a.rows < 0 {
			a.at, a.step, a.left = a.at-a.step, 0, 1<<62
			continue
		}
		a.left = a.lines
		a.at += a.jump
	}
	return a
}

// Tiles fetch the lines that an ahead says, in order, and then no more.
func TestTilesFetchWhatIsAhead(t *testing.T) {
	const lines, rows, stride = 3, 7, 100 // a row of 40 floats lies on three lines
	x := make([]float32, rows*stride)
	a, b, c := make([]float32, 1<<12), make([]float32, 1<<12), make([]float32, 1<<12)
	for _, s := range available() {
		for name, tile := range map[string]*tile{"tile": &s.tile, "wide": &s.wide, "bf16": &s.bf16, "bf16Wide": &s.bf16Wide, "bf16Low": &s.bf16Low} {
			if tile.run == nil || s.name == "go" {
				continue
			}
			for k := range 21 {
				for tiles := 1; tiles < 6; tiles++ {
					got := aheadOf(&x[0], rows, 40, stride)
					if got.lines != lines {
						t.Fatalf("%d lines", got.lines)
					}
					want := got.after(tiles * (k / 4)) // one in four steps of the sum
					tile.run(tiles, k, &a[0], 0, &b[0], &c[0], tile.nr, 0, &got.at)
					if got != want {
						t.Fatalf("%s, %s, %d tiles of %d steps: %+v, want %+v", s.name, name, tiles, k, got, want)
					}
				}
			}
		}
	}
}

func TestAttentionFetchesWhatIsAhead(t *testing.T) {
	x, a := make([]float32, 7*100), make([]float32, 1<<12)
	for _, s := range available() {
		if s.name == "go" {
			continue
		}
		for name, code := range map[string]*attnCode{"fp32": &s.attn, "bf16": &s.attnBF16} {
			for i, product := range []func(*attnProduct){code.rows, code.cols, code.rowsWide, code.colsWide} {
				if product == nil {
					continue
				}
				for k := 1; k < 21; k++ {
					got := aheadOf(&x[0], 7, 40, 100)
					want := got.after(3 * (k / 4) * 2) // two in four steps of the sum
					product(&attnProduct{tiles: 3, k: k, a: &a[0], b: &a[0], c: &a[1<<11], later: &got.at})
					if got != want {
						t.Fatalf("%s, %s, product %d, %d steps: %+v, want %+v", s.name, name, i, k, got, want)
					}
				}
			}
		}
	}
}

// What is fetched for the next rows of A is what packing them reads.
func TestOperandAhead(t *testing.T) {
	x := make([]float32, 1<<14)
	for _, c := range []struct {
		name    string
		o       operand
		element func(r, k int) int // where it lies
	}{
		{"by rows", operand{x: x, ld: 96}, func(r, k int) int { return r*96 + k }},
		{"by columns", operand{x: x, ld: 96, kStride: true}, func(r, k int) int { return k*96 + r }},
		{"panels", operand{x: x, ld: 34, panels: true}, func(r, k int) int { return bf16At(34, r, k) / 2 }},
		{"panels, by columns", operand{x: x, ld: 34, panels: true, kStride: true}, func(r, k int) int { return bf16At(34, k, r) / 2 }},
	} {
		const r, rows, k, kc = 16, 16, 32, 32
		line := func(at int) int { return at &^ (lineFloats*4 - 1) }
		want, got := map[int]bool{}, map[int]bool{}
		for i := r; i < r+rows; i++ {
			for j := k; j < k+kc; j++ {
				want[line(int(uintptr(unsafe.Pointer(&x[c.element(i, j)]))))] = true
			}
		}
		linesOf(c.o.ahead(r, rows, k, kc), got)
		for at := range want {
			if !got[at] {
				t.Errorf("%s: a line is not fetched", c.name)
				break
			}
		}
		if len(got) > len(want) {
			t.Errorf("%s: %d lines fetched, %d read", c.name, len(got), len(want))
		}
	}
}

// What a worker fetches of B is what it packs behind the next barrier: in a product
// over the rows of a batch, rows of its own.
func TestShareOfBIsWhatAWorkerPacks(t *testing.T) {
	for _, name := range ISAs() {
		c, err := New(Options{ISA: name, Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range []Gemm{
			{M: 64, N: 192, K: 4096, TransA: true, KBlock: 128},             // several pieces a block
			{M: 64, N: 192, K: 4096, TransA: true, KBlock: 128, BF16: true}, // twice as many
			{M: 64, N: 192, K: 4096, TransA: true, KBlock: 4096},            // one
			{M: 64, N: 2 * ncMax, K: 128, TransB: true, BF16: true},         // stored by columns
		} {
			g.A, g.B, g.C = make([]float32, g.M*g.K), make([]float32, g.N*g.K), make([]float32, g.M*g.N)
			j := &gemmJob{}
			if !j.prepare(c, &g) {
				t.Fatal("nothing to do")
			}
			j.cutSum()
			j.cut(2)
			var next [2]map[int]bool
			j.each(func() {
				parts := j.packs() * j.groups
				for w := range next {
					packs := map[int]bool{}
					for i := parts * w / 2; i < parts*(w+1)/2; i++ {
						b, lo, hi := j.packOf(i / j.groups)
						p := i % j.groups * j.packGroup() * j.t.nr
						k := b.k + sum(b.piece[:lo])
						linesOf(j.b.ahead(j.j+p, min(j.packGroup()*j.t.nr, j.nc-p), k, sum(b.piece[lo:hi])), packs)
					}
					if next[w] != nil && !maps.Equal(packs, next[w]) {
						t.Errorf("%s, K %d in pieces of %d: worker %d fetches %d lines and packs %d", name, g.K, g.KBlock, w, len(next[w]), len(packs))
					}
					next[w] = map[int]bool{}
					if j.next.block != nil {
						linesOf(j.shareOfB(w), next[w])
					}
				}
			})
		}
		c.Close()
	}
}

// linesOf adds the lines that an ahead fetches to a set.
func linesOf(a ahead, lines map[int]bool) {
	for ; a.step > 0; a = a.after(1) {
		lines[a.at&^(lineFloats*4-1)] = true
	}
}
