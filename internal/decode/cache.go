package decode

import (
	"math"
	"math/bits"
	"unsafe"

	"promptgen/internal/half"
	"promptgen/internal/kernel"
)

// PageRows is the number of tokens of a page. Small enough that a short text
// wastes little, large enough that walking over pages costs little.
const PageRows = panelCols

// Cache describes the pages of a model's keys and values: for each layer and
// head, the keys of PageRows tokens as a panel whose columns are the tokens, then
// their values as panels whose steps are the tokens. Q8_0 and Q4_0 are the keys'
// format; values have that of Q4_0, which sums over many tokens forgive: a
// prediction depends on them less (docs/generation.md). Those of a token have one
// scale, in fp16, which its probability is multiplied by; the scales lie before the
// panels, which have none.
type Cache struct {
	Layers, Heads, HeadDim int
	DType                  kernel.DType // FP32, BF16, Q8_0 or Q4_0
}

// quantized tells whether keys and values are blocks.
func (c Cache) quantized() bool { return c.DType == kernel.Q8_0 || c.DType == kernel.Q4_0 }

// Words is the size of a page, in words of 4 bytes.
func (c Cache) Words() int { return c.Layers * c.Heads * c.headWords() }

// NewPages makes n pages in one piece of memory, which free gives back.
func (c Cache) NewPages(n int) (pages [][]uint32, free func()) {
	size := c.Words()
	b, free := allocate(4 * size * n)
	all := unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(b))), size*n)
	for i := range n {
		pages = append(pages, all[i*size:(i+1)*size:(i+1)*size])
	}
	return pages, free
}

// unit is the number of values of a step.
func (c Cache) unit() int {
	switch {
	case c.DType == kernel.FP32:
		return 1
	case c.quantized():
		return BlockLen
	}
	return 2
}

// stepWords is the size of a panel's step in d.
func stepWords(d kernel.DType) int {
	switch d {
	case kernel.Q8_0:
		return q8Bytes / 4
	case kernel.Q4_0:
		return q4Bytes / 4
	}
	return panelCols
}

// width is HeadDim filled up to whole panels of values.
func (c Cache) width() int { return roundUp(c.HeadDim, panelCols) }

func (c Cache) keySteps() int   { return (c.HeadDim + c.unit() - 1) / c.unit() }
func (c Cache) keyWords() int   { return c.keySteps() * stepWords(c.DType) }
func (c Cache) valueSteps() int { return PageRows / c.unit() } // of a panel of a page

// panelWords is the size of a panel of values.
func (c Cache) panelWords() int {
	if c.quantized() {
		return c.valueSteps() * bareBytes / 4
	}
	return c.valueSteps() * stepWords(c.DType)
}

// scaleWords are those of a page's tokens.
func (c Cache) scaleWords() int {
	if c.quantized() {
		return PageRows / 2
	}
	return 0
}

func (c Cache) headWords() int {
	return c.keyWords() + c.scaleWords() + c.width()/panelCols*c.panelWords()
}

// keysAt, scalesAt and valuesAt are where those of a head begin in a page.
func (c Cache) keysAt(layer, head int) int   { return (layer*c.Heads + head) * c.headWords() }
func (c Cache) scalesAt(layer, head int) int { return c.keysAt(layer, head) + c.keyWords() }
func (c Cache) valuesAt(layer, head int) int { return c.scalesAt(layer, head) + c.scaleWords() }

// storeKey writes the key of token i of a page, given as an operand.
func (c Cache) storeKey(keys []uint32, i int, k *Operand) {
	for d := range c.keySteps() {
		step := k.data[d*k.f.aStep:]
		word := le.Uint32(step)
		if k.f.aStep == wordsStep { // two floats, of which bf16 is the upper halves
			word = word>>16 | le.Uint32(step[4:])
		}
		keys[d*panelCols+i] = word
	}
}

// storeValue writes the values of token i of a page.
func (c Cache) storeValue(values []uint32, i int, v []float32) {
	for d, x := range v {
		w := &values[(d/panelCols*c.valueSteps()+i/c.unit())*panelCols+d%panelCols]
		switch {
		case c.DType == kernel.FP32:
			*w = math.Float32bits(x)
		case i%2 == 0:
			*w = uint32(half.ToBF16(x)) // the other half becomes zero, which nothing must be added from
		default:
			*w = *w&0xffff | uint32(half.ToBF16(x))<<16
		}
	}
}

// storeKeyQ8 writes the key of token i, given as an operand's blocks.
func (c Cache) storeKeyQ8(keys []uint32, i int, k []byte) {
	const scaleWords = scaleBytes / 4
	for ; len(k) > 0; k, keys = k[blockBytes:], keys[q8Bytes/4:] {
		scale := half.ToFP16(math.Float32frombits(le.Uint32(k[blockScale:])))
		le.PutUint16(bytesOf(keys)[2*i:], scale)
		for g := range BlockLen / 4 {
			keys[scaleWords+g*panelCols+i] = le.Uint32(k[4*g:]) ^ 0x80808080
		}
	}
}

// storeKeyQ4Go writes a key, as many blocks of values, to column i of a panel.
func storeKeyQ4Go(blocks int, px *float32, to *uint32, i int) {
	x, panel := unsafe.Slice(px, blocks*BlockLen), bytesOf(unsafe.Slice(to, blocks*q4Bytes/4))
	for ; len(x) > 0; x, panel = x[BlockLen:], panel[q4Bytes:] {
		step, inv := q4Step(x[:BlockLen])
		le.PutUint16(panel[2*i:], half.ToFP16(step))
		for k := range BlockLen / 2 {
			panel[scaleBytes+(k/4*panelCols+i)*4+k%4] = byte(nibble(x[k], inv) | nibble(x[k+BlockLen/2], inv)<<4)
		}
	}
}

// storeQ4Go writes the values of a token to panels, of whose words those of the
// first 32 columns are at to and the token's bits begin at shift.
func storeQ4Go(panels int, x *float32, to *uint32, shift int, scale *uint16) {
	v := unsafe.Slice(x, panels*panelCols)
	step, inv := q4Step(v)
	*scale = half.ToFP16(step)
	words := unsafe.Slice(to, (panels-1)*bareBytes/4+panelCols)
	for i, x := range v {
		w := &words[i/panelCols*bareBytes/4+i%panelCols]
		*w = *w&^(15<<shift) | nibble(x, inv)<<shift
	}
}

// q4Step is the scale of values that nibbles are multiples of, and its inverse.
// The value furthest from 0 becomes -8, as in ggml's q4_0; one that is no number
// makes the scale so.
func q4Step(v []float32) (step, inv float32) {
	var far uint32 // its sign last: NaN is the largest
	for _, x := range v {
		far = max(far, bits.RotateLeft32(math.Float32bits(x), 1))
	}
	step = math.Float32frombits(bits.RotateLeft32(far, -1)) / -q4Zero
	if far <= 1 {
		return step, 0
	}
	return step, 1 / step
}

// nibble is x as a multiple of a step, q4Zero added.
func nibble(x, inv float32) uint32 { return uint32(min(15, int32(float32(x*inv)+(q4Zero+.5)))) & 15 }

func bytesOf(w []uint32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), 4*len(w))
}

func halvesOf(w []uint32) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(w))), 2*len(w))
}
