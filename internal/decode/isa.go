package decode

import "promptgen/internal/kernel"

// panelCols is the number of columns of a panel.
const panelCols = 32

// blockLen is the number of values of a quantized block.
const blockLen = 32

// tile adds the product of some rows, lda bytes apart, and one panel over k
// steps to C [rows, 32], whose rows are ldc bytes apart; if acc is 0, C is
// overwritten.
type tile func(k int, a *byte, lda int, b *byte, c *float32, ldc, acc int)

// format is how one dtype is stored and multiplied.
type format struct {
	unit  int    // values of the sum in a step
	aStep int    // bytes of a step of a row
	bStep int    // bytes of a step of a panel
	long  int    // steps that are multiplied at a time where there are many rows
	tiles []tile // [i] does i+1 rows
}

// Steps of quantized formats.
const (
	blockBytes  = blockLen + 8
	blockScale  = blockLen
	blockOffset = blockLen + 4
	scaleBytes  = 2 * panelCols // of a block of a panel
	q8Bytes     = scaleBytes + panelCols*blockLen
	q4Bytes     = scaleBytes + panelCols*blockLen/2
)

// What is added to weights to make them unsigned.
const (
	q8Zero = 128
	q4Zero = 8
)

// kernels are the formats of one instruction set.
type kernels struct {
	f32, bf16, q8, q4 format

	// quantize makes blocks of the operand, round pairs of bf16 of n values, a
	// multiple of 32.
	quantize func(blocks int, x *float32, to *byte, zero int)
	round    func(n int, x *float32, to *byte)

	// fetch asks for lines of memory that will be read soon.
	fetch func(p *byte, lines int)
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

func newKernels(f32, bf16, q8, q4 []tile) *kernels {
	return &kernels{
		f32:  format{1, 4, 4 * panelCols, 256, f32},
		bf16: format{2, 4, 4 * panelCols, 256, bf16},
		q8:   format{blockLen, blockBytes, q8Bytes, 24, q8},
		q4:   format{blockLen, blockBytes, q4Bytes, 48, q4},

		quantize: quantizeGo,
		round:    roundGo,
		fetch:    func(*byte, int) {},
	}
}

// goKernels is the level that every machine has, and the reference of the others.
func goKernels() *kernels {
	return newKernels([]tile{tileF32Go}, []tile{tileBF16Go}, []tile{tileQ8Go}, []tile{tileQ4Go})
}
