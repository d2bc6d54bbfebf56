package decode

import (
	"math"
	"unsafe"

	"promptgen/internal/kernel"
)

// PageRows is the number of tokens of a page. Small enough that a short text
// wastes little, large enough that walking over pages costs little.
const PageRows = panelCols

// Cache describes the pages of a model's keys and values: for each layer and
// head, the keys of PageRows tokens as a panel whose columns are the tokens, then
// their values as panels whose steps are the tokens. In Q8_0 the values of a
// token have one scale, which its probability is multiplied by; the scales lie
// before the panels, whose own are 1.
type Cache struct {
	Layers, Heads, HeadDim int
	DType                  kernel.DType // FP32, BF16 or Q8_0
}

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

// unit is the number of values of a step, and stepWords the size of a panel's.
func (c Cache) unit() int {
	switch c.DType {
	case kernel.FP32:
		return 1
	case kernel.Q8_0:
		return BlockLen
	}
	return 2
}

func (c Cache) stepWords() int {
	if c.DType == kernel.Q8_0 {
		return q8Bytes / 4
	}
	return panelCols
}

// width is HeadDim filled up to whole panels of values.
func (c Cache) width() int { return roundUp(c.HeadDim, panelCols) }

func (c Cache) keySteps() int   { return (c.HeadDim + c.unit() - 1) / c.unit() }
func (c Cache) keyWords() int   { return c.keySteps() * c.stepWords() }
func (c Cache) valueSteps() int { return PageRows / c.unit() } // of a panel of a page
func (c Cache) panelWords() int { return c.valueSteps() * c.stepWords() }

// scaleWords are those of a page's tokens.
func (c Cache) scaleWords() int {
	if c.DType == kernel.Q8_0 {
		return PageRows
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
		if k.f.aStep == 8 { // two floats, of which bf16 is the upper halves
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
			*w = bf16(x) // the other half becomes zero, which nothing must be added from
		default:
			*w = *w&0xffff | bf16(x)<<16
		}
	}
}

func bf16(x float32) uint32 { return math.Float32bits(kernel.RoundBF16(x)) >> 16 }

// storeQ8 writes both of a token, whose key is given as an operand's blocks.
func (c Cache) storeQ8(keys, scales, values []uint32, i int, k []byte, v []float32) {
	const scaleWords = scaleBytes / 4
	for ; len(k) > 0; k, keys = k[blockBytes:], keys[q8Bytes/4:] {
		scale := toHalf(math.Float32frombits(le.Uint32(k[blockScale:])))
		le.PutUint16(bytesOf(keys)[2*i:], scale)
		for g := range BlockLen / 4 {
			keys[scaleWords+g*panelCols+i] = le.Uint32(k[4*g:]) ^ 0x80808080
		}
	}
	if i == 0 { // of the tokens to come, nothing must be added from
		clear(scales)
	}
	var top float32
	for _, x := range v {
		top = max(top, float32(math.Abs(float64(x))))
	}
	scales[i] = math.Float32bits(top / 127)
	inv := 127 / top
	if top == 0 {
		inv = 0
	}
	for ; len(v) > 0; values = values[q8Bytes/4:] {
		n := min(panelCols, len(v))
		to := bytesOf(values)
		if i == 0 {
			for j := range scaleWords {
				values[j] = 0x3c003c00 // 1 in fp16
			}
		}
		to = to[scaleBytes+i/4*4*panelCols+i%4:]
		for d, x := range v[:n] {
			to[4*d] = byte(int32(math.RoundToEven(float64(x*inv))) + q8Zero)
		}
		v = v[n:]
	}
}

func bytesOf(w []uint32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), 4*len(w))
}
