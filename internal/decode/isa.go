package decode

import "promptgen/internal/kernel"

// panelCols is the number of columns of a panel.
const panelCols = 32

// BlockLen is the number of values of a quantized block.
const BlockLen = 32

// tile sets C [rows, 32], whose rows are ldc bytes apart, to the product of some
// rows, lda bytes apart, and one panel over k steps, added to what is at from,
// whose rows are ldf bytes apart: C itself, or one row for all.
type tile func(k int, a *byte, lda int, b *byte, c *float32, ldc int, from *float32, ldf int)

// zeros is where sums begin that nothing is added to.
var zeros [panelCols]float32

// walk multiplies one row by a head's panels, at bytes into each of n pages: what
// a tile does in each, and the same sums. steps is how many a panel of keys has,
// or those that the last page's tokens take. Bytes next into the first page it
// reads ahead.
type walk func(steps int, a *byte, pages *[]uint32, n, at, next int, c *float32)

// format is how one dtype is stored and multiplied.
type format struct {
	unit  int    // values of the sum in a step
	aStep int    // bytes of a step of a row
	bStep int    // bytes of a step of a panel
	long  int    // steps that are multiplied at a time where there are many rows
	tiles []tile // [i] does i+1 rows

	// pack makes a panel of so many steps from rows of 32 float32, ld bytes
	// apart, and returns the largest magnitude's bits.
	pack func(steps int, x *float32, ld int, to *byte) uint32

	// scores gives 32 floats for each page; values adds up all pages, [i] for i+1
	// panels. nil: by tiles.
	scores walk
	values [2]walk

	squeezing *squeezing // of panels of floats, where expanding them pays, else nil
}

// wordsStep is a step of a row of bf16 that keeps a word for each value.
const wordsStep = 8

// Steps of quantized formats.
const (
	blockBytes  = BlockLen + 8
	blockScale  = BlockLen
	blockOffset = BlockLen + 4
	scaleBytes  = 2 * panelCols // of a block of a panel
	q8Bytes     = scaleBytes + panelCols*BlockLen
	bareBytes   = panelCols * BlockLen / 2
	q4Bytes     = scaleBytes + bareBytes
)

// What is added to weights to make them unsigned.
const (
	q8Zero = 128
	q4Zero = 8
)

// kernels are the formats of one instruction set.
type kernels struct {
	f32, bf16, q8, q4 format

	bare format // q4 without scales: the values of a cache, whose tokens have them

	// quantize makes blocks of the operand, round pairs of bf16 of n values, a
	// multiple of 32; where a row keeps words, nobody calls it.
	quantize func(blocks int, x *float32, to *byte, zero int)
	round    func(n int, x *float32, to *byte)

	// quantizeScaled makes blocks of x, each multiplied by the 32 fp16 that lie at
	// bytes into the next page.
	quantizeScaled func(blocks int, x *float32, to *byte, zero int, pages *[]uint32, at int)

	// softmax does so with 2^(scale*x+off) for n values, zero behind them, and
	// returns their sum. nil: one after the other.
	softmax func(blocks, n int, x *float32, scale, off float32, to *byte, zero int, pages *[]uint32, at int) float32

	// storeQ4 and storeKeyQ4 write a token's values and its key to a page.
	storeQ4    func(panels int, x *float32, to *uint32, shift int, scale *uint16)
	storeKeyQ4 func(blocks int, x *float32, to *uint32, column int)
}

func (k *kernels) format(d kernel.DType) *format {
	switch d {
	case kernel.FP32:
		return &k.f32
	case kernel.Q8_0:
		return &k.q8
	case kernel.Q4_0:
		return &k.q4
	}
	return &k.bf16
}

// values is the format of a cache's values.
func (k *kernels) values(c *Cache) *format {
	if c.quantized() {
		return &k.bare
	}
	return k.format(c.DType)
}

// widenBF16 makes products of bf16 those of fp32, for levels without instructions
// for pairs. A step of a row is then a word for each of its two values, a float32
// that was rounded, so that only weights are widened: by the tiles, or where many
// rows are multiplied by the expansion of what is squeezed.
func (k *kernels) widenBF16(many expansion) {
	k.bf16.aStep, k.bf16.long = wordsStep, k.f32.long/2
	k.bf16.squeezing.many = many
	k.bf16.squeezing.many.as = &k.f32
}

func newKernels(f32, bf16, q8, q4, bare []tile) *kernels {
	return &kernels{
		f32:  format{unit: 1, aStep: 4, bStep: 4 * panelCols, long: 768, tiles: f32, pack: packF32Go},
		bf16: format{unit: 2, aStep: 4, bStep: 4 * panelCols, long: 768, tiles: bf16, pack: packBF16Go},
		q8:   format{unit: BlockLen, aStep: blockBytes, bStep: q8Bytes, long: 24, tiles: q8, pack: packQ8Go},
		q4:   format{unit: BlockLen, aStep: blockBytes, bStep: q4Bytes, long: 48, tiles: q4, pack: packQ4Go},
		bare: format{unit: BlockLen, aStep: blockBytes, bStep: bareBytes, tiles: bare},

		quantize:       quantizeGo,
		quantizeScaled: quantizeScaledGo,
		round:          roundGo,
		storeQ4:        storeQ4Go,
		storeKeyQ4:     storeKeyQ4Go,
	}
}

// goKernels is the level that every machine has, and the reference of the others.
func goKernels() *kernels {
	return newKernels([]tile{tileF32Go}, []tile{tileBF16Go}, []tile{tileQ8Go}, []tile{tileQ4Go}, []tile{tileBareGo})
}
