package kernel

import (
	"fmt"
	"strings"
)

// isa is what one instruction set brings: tiles for matrix products and loops
// over vectors.
type isa struct {
	name string

	tile     tile // fp32
	wide     tile // fp32, for outputs too wide for the caches (the vocabulary)
	bf16     tile
	bf16Wide tile
	bf16Low  tile // of panelWidth rows, where bf16Wide does not fill its panels; for products of expPanels
	direct   tile // fp32, for few rows, where there is a runDirect
	pack     packers
	attn     attnCode
	attnBF16 attnCode
	peak     peakOf

	// expRow sets y to exp(x+off), past the caches where it can, and returns the sum.
	// Rows of y begin on cache lines. expPanels writes exp(x-shift) of panelRows rows
	// and so many times 16 columns as panels of pairs, panel bytes apart, and their
	// sums; nil where products do not take pairs. fence comes before other threads
	// read either.
	expRow    func(y, x []float32, off float32) float32
	expPanels func(blocks int, x *float32, ldx int, shift, y *float32, panel int, sums *float32, lds int)
	fence     func()

	vectors
}

// tile is a micro-kernel and the size of the tile of C that it computes.
type tile struct {
	mr, nr int
	pairs  bool // operands are packed as pairs of bf16, k counts pairs
	round  bool // operands are rounded to bf16 while they are packed, and stay fp32

	// run computes tiles below one another, C[tiles*mr,nr] = A·B, or += if acc is
	// not 0. A is packed [k][mr], da floats from tile to tile, B [k][nr]; rows of C
	// are ldc floats apart. later is the first field of an ahead.
	run func(tiles, k int, a *float32, da int, b, c *float32, ldc, acc int, later *int)

	// runDirect does the same with B as it is stored, rows ldb floats apart.
	runDirect func(tiles, k int, a *float32, da int, b *float32, ldb int, c *float32, ldc, acc int)

	splitA, splitB split // pack panels of mr and of nr columns; nil: one by one
}

// findISA returns the instruction set by its name, or the best for "".
func findISA(name string) (*isa, error) {
	sets := available()
	var names []string
	for _, s := range sets {
		if s.name == name || name == "" {
			return s, nil
		}
		names = append(names, s.name)
	}
	return nil, fmt.Errorf("instruction set %q: this machine has %s", name, strings.Join(names, ", "))
}

// ISAs names the instruction sets of this machine, the best first.
func ISAs() []string {
	var names []string
	for _, s := range available() {
		names = append(names, s.name)
	}
	return names
}

// goISA is the level that every machine has.
func goISA() *isa {
	f32 := tile{mr: 2, nr: 4, run: tilesGo}
	bf := f32
	bf.round = true
	return &isa{name: "go", expRow: expRowBy(expGo), fence: func() {}, tile: f32, wide: f32, bf16: bf, bf16Wide: bf, pack: goPackers(), attn: attnGo(false), attnBF16: attnGo(true), vectors: goVectors(), peak: goPeak()}
}
