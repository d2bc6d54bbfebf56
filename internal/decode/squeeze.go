package decode

import (
	"errors"
	"math"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"promptgen/internal/kernel"
)

// Panels of bf16 without loss in twelve bits a weight, and of fp32 in 28. Of a
// weight the upper byte, sign and most of the exponent, says little: weights that
// lie together are of few magnitudes. A block keeps sixteen upper bytes, eight
// magnitudes up to its largest with either sign, and names them in 4 bits. What is
// smaller than all of these, less than a 16384th of the largest or so, is put right
// by a patch, to which it is XORed. (That exponents are worth coding by themselves
// is from DFloat11, arXiv:2504.11651; codes of one length take a little more room,
// and two instructions instead of a search.)
//
// A block is 16 ranks, and a rank two values of the sum by 32 columns: a step of
// bf16, or two of fp32, whose upper halves are squeezed as bf16 is and whose lower
// halves follow as they are.
//
//	panel  [blocks]{first magnitude, 0, uint16 of ranks with a patch}, filled up to a cache line, [blocks] as below
//	block  [8]{64 codes of two ranks, 64 lower bytes of each, of fp32 the 2 by 64 lower halves}
//	patch  [64 upper halves of a rank] uint16
//
// The lower halves of the codes' bytes are the first rank's. Bytes lie in the
// order in which VPUNPCKLBW and VPUNPCKHBW make words of them: in each 16 bytes 8
// of the rank's first 32 words, then 8 of the last. Words of fp32 lie in that in
// which VPUNPCKLWD and VPUNPCKHWD make floats of them: of each step 4 of the first
// 16 columns, then 4 of the last.
const (
	blockRanks  = 16
	squeezeHead = 4                       // bytes of a block at the panel's beginning
	rankWords   = 2 * panelCols           // weights of a rank, and their codes
	halfBytes   = 2 * rankWords           // of a rank's halves, and of a patch
	pairBytes   = 3 * rankWords           // of two ranks of bf16
	floatBytes  = pairBytes + 2*halfBytes // and of fp32
	stepBytes   = 4 * panelCols           // of a step of either format
	magnitudes  = 8
)

// squeezing is how one instruction set does it for one format, for so many blocks
// that begin at panel, where they are not squeezed, or at from and head.
type squeezing struct {
	steps int // of a block
	pair  int // bytes of two ranks

	// squeeze sets bit i of missed [16 ranks] of a block where the upper byte i of
	// the rank, in the order of bytes, has no code. The panel begins, in the end,
	// with the upper halves of its ranks.
	squeeze func(blocks int, panel, to, head *byte, missed *uint64)

	tiles     []squeezedTile // [i] does i+1 rows
	few, many expansion      // for other numbers of rows, up to those of the format's tiles, and above
}

// expansion makes panels that tiles can multiply.
type expansion struct {
	run   func(blocks int, from, head, patches, panel *byte)
	as    *format       // whose steps it makes, one for each value of a step; nil: the squeezed one
	first expandingTile // does firstRows, or nil
}

// squeezedTile does with so many blocks what the format's tile does with their
// steps.
type squeezedTile func(blocks int, a *byte, lda int, b, head, patches *byte, c *float32, ldc int, from *float32, ldf int)

// expandingTile is a squeezedTile that leaves the steps in wide, for more rows:
// while it waits for memory or shuffles bytes, it multiplies.
type expandingTile func(blocks int, a *byte, lda int, b, head, patches, wide *byte, c *float32, ldc int, from *float32, ldf int)

const firstRows = 12

// fewSteps is the number of steps that are expanded at a time, into the first
// cache, where few rows are multiplied.
const fewSteps = 64

// squeezingBF16 is of bf16; expanding is the reference's.
func squeezingBF16(squeeze squeezer) *squeezing {
	k := &squeezing{steps: blockRanks, pair: pairBytes, few: expansion{run: expandGo}}
	k.squeeze = func(blocks int, panel, to, head *byte, missed *uint64) {
		squeeze(blocks, k.pair, panel, to, head, missed)
	}
	return k
}

// squeezingF32 squeezes the upper halves, of which split makes a panel in place
// of the steps; the lower ones it takes to their places.
func squeezingF32(split func(blocks int, panel, to *byte), squeeze squeezer) *squeezing {
	k := &squeezing{steps: 2 * blockRanks, pair: floatBytes, few: expansion{run: expandFloatsGo}}
	k.squeeze = func(blocks int, panel, to, head *byte, missed *uint64) {
		split(blocks, panel, to)
		squeeze(blocks, k.pair, panel, to, head, missed)
	}
	return k
}

// squeezer squeezes halves: so many bytes are from pair to pair.
type squeezer func(blocks, pair int, panel, to, head *byte, missed *uint64)

// patches are those of each panel's ranks.
type patches struct {
	of    [][]byte
	bytes atomic.Int64
	most  int64
}

// errVaried is the answer where patches would take too much.
var errVaried = errors.New("weights of too many magnitudes")

// patchesOf is of so many panels that take n PackedBytes.
func patchesOf(panels int, d kernel.DType, n int) *patches {
	return &patches{of: make([][]byte, panels), most: int64(PatchBytes(d, n))}
}

// PatchBytes is the most that the patches of weights take on Go's heap, of which
// n are the PackedBytes: one rank in 32 may have a patch. Then they take 4 % of
// what the weights do, of fp32 2 %, and a matrix less than if it were not squeezed.
func PatchBytes(d kernel.DType, n int) int {
	switch d {
	case kernel.BF16:
		return n / 32
	case kernel.FP32:
		return n / 64
	}
	return 0
}

// tooMany says whether all patches so far take too much: then no more are made.
func (x *patches) tooMany() bool { return x.bytes.Load() > x.most }

// set notes a panel's patches, an error if all take too much.
func (x *patches) set(panel int, of []byte) error {
	if x.bytes.Add(int64(len(of))) > x.most {
		return errVaried
	}
	x.of[panel] = of
	return nil
}

// blocks is the number of blocks of a panel of so many steps, panelBytes what it
// takes, wideBytes what its blocks do that are not squeezed.
func (k *squeezing) blocks(steps int) int { return (steps + k.steps - 1) / k.steps }
func (k *squeezing) panelBytes(steps int) int {
	return k.headBytes(steps) + k.blocks(steps)*k.bytes()
}
func (k *squeezing) wideBytes(steps int) int { return k.blocks(steps) * k.steps * stepBytes }

// bytes is what a block takes.
func (k *squeezing) bytes() int { return blockRanks / 2 * k.pair }

// headBytes is what lies before a panel's blocks.
func (k *squeezing) headBytes(steps int) int { return roundUp(k.blocks(steps)*squeezeHead, lineBytes) }

// floats says whether they are of fp32.
func (k *squeezing) floats() bool { return k.steps > blockRanks }

// squeezedPanel is one of so many steps.
type squeezedPanel struct {
	k                     *squeezing
	steps                 int
	head, blocks, patches []byte
}

// squeezed is panel p of a matrix whose panels are so.
func (m *Matrix) squeezed(p int) squeezedPanel {
	data, head := m.panel(p), m.f.squeezing.headBytes(m.steps)
	return squeezedPanel{m.f.squeezing, m.steps, data[:head], data[head:], m.patches.of[p]}
}

// at is where the block that begins with step s lies, and its head.
func (p *squeezedPanel) at(s int) (from, head *byte) {
	b := s / p.k.steps
	return &p.blocks[b*p.k.bytes()], &p.head[b*squeezeHead]
}

// patched is the ranks of block b that have a patch.
func (p *squeezedPanel) patched(b int) uint16 { return le.Uint16(p.head[b*squeezeHead+2:]) }

// patchesFrom is where the patches of step s, the first of a block, and those
// behind it begin; nil if there are none.
func (p *squeezedPanel) patchesFrom(s int) *byte {
	if len(p.patches) == 0 {
		return nil
	}
	n := 0
	for b := range s / p.k.steps {
		n += bits.OnesCount16(p.patched(b))
	}
	if n*halfBytes == len(p.patches) {
		return nil
	}
	return ptr(p.patches, n*halfBytes)
}

// squeeze makes the panel of wide, which is filled up to whole blocks, and returns
// its patches. Only so many columns matter. wide ends in rubble.
func (p *squeezedPanel) squeeze(s *scratch, wide []byte, cols int) (patches []byte) {
	var matter uint64
	for c := range cols {
		matter |= 1<<byteOf(p.k.word(0, c)) | 1<<byteOf(p.k.word(1, c))
	}
	blocks, ranks := p.k.blocks(p.steps), (p.steps*blockRanks+p.k.steps-1)/p.k.steps
	missed := grow(&s.missed, blocks*blockRanks)
	p.k.squeeze(blocks, &wide[0], &p.blocks[0], &p.head[0], &missed[0])
	for b := range blocks {
		base, flags := p.head[b*squeezeHead], uint16(0)
		for i := range min(blockRanks, ranks-b*blockRanks) {
			m := missed[b*blockRanks+i] & matter
			if m == 0 {
				continue
			}
			flags |= 1 << i
			n := len(patches)
			patches = append(patches, make([]byte, halfBytes)...)
			for ; m != 0; m &= m - 1 {
				at := 2*wordOf(bits.TrailingZeros64(m)) + 1
				upper := wide[(b*blockRanks+i)*halfBytes+at]
				patches[n+at] = upper ^ upperOf(codeOf(upper, base), base)
			}
		}
		le.PutUint16(p.head[b*squeezeHead+2:], flags)
	}
	return patches
}

// expand makes n steps from s on, the first of a block, in wide.
func (p *squeezedPanel) expand(x *expansion, wide []byte, s, n int) {
	from, head := p.at(s)
	x.run(p.k.blocks(n), from, head, p.patchesFrom(s), &wide[0])
}

// column sets dst to column c.
func (p *squeezedPanel) column(dst []float32, c int) {
	patches := p.patches
	var patch []byte
	for k := range dst {
		b, rank := k/2/blockRanks, k/2%blockRanks
		if k%2 == 0 {
			patch = nil
			if p.patched(b)>>rank&1 == 1 {
				patch, patches = patches[:halfBytes], patches[halfBytes:]
			}
		}
		w := p.k.word(k%2, c)
		i := byteOf(w)
		pair := p.blocks[k/4*p.k.pair:][:p.k.pair]
		upper := upperOf(pair[i]>>(rank%2*4)&15, p.head[b*squeezeHead])
		if patch != nil {
			upper ^= patch[2*w+1]
		}
		v := uint32(upper)<<24 | uint32(pair[rankWords+rank%2*rankWords+i])<<16
		if p.k.floats() {
			v |= uint32(le.Uint16(pair[pairBytes+rank%2*halfBytes+2*w:]))
		}
		dst[k] = math.Float32frombits(v)
	}
}

// word is that of value i of a rank, 0 or 1, in column c.
func (k *squeezing) word(i, c int) int {
	if k.floats() {
		return i*panelCols + floatWord(c)
	}
	return 2*c + i
}

// floatWord is the word of column c among the halves of a step of fp32.
func floatWord(c int) int { return c%16/4*8 + c/16*4 + c%4 }

// codeOf is the code of an upper byte in a block of so large a first magnitude,
// upperOf what a code stands for.
func codeOf(upper, base byte) byte { return upper>>7*magnitudes | (upper&0x7f-base)%magnitudes }
func upperOf(code, base byte) byte { return code/magnitudes<<7 | (base + code%magnitudes) }

// byteOf is where the bytes of weight w of a step lie, wordOf the weight whose
// bytes are the i-th.
func byteOf(w int) int { return w%32/8*16 + w/32*8 + w%8 }
func wordOf(i int) int { return i/8%2*panelCols + i/16*8 + i%8 }

func squeezeGo(blocks, pair int, panel, to, head *byte, missed *uint64) {
	const wide = blockRanks * halfBytes
	from, out := unsafe.Slice(panel, blocks*wide), unsafe.Slice(to, blocks*blockRanks/2*pair)
	heads, miss := unsafe.Slice(head, blocks*squeezeHead), unsafe.Slice(missed, blocks*blockRanks)
	for b := range blocks {
		from := from[b*wide:][:wide]
		base := byte(0)
		for i := 1; i < len(from); i += 2 {
			base = max(base, from[i]&0x7f)
		}
		base -= min(base, magnitudes-1)
		heads[b*squeezeHead] = base
		for r := range blockRanks {
			to, m := out[(b*blockRanks+r)/2*pair:][:pair], uint64(0)
			for i := range rankWords {
				at := r*halfBytes + 2*wordOf(i)
				lower, upper := from[at], from[at+1]
				if r%2 == 0 {
					to[i] = 0
				}
				to[i] |= codeOf(upper, base) << (r % 2 * 4)
				to[rankWords+r%2*rankWords+i] = lower
				if upper&0x7f < base {
					m |= 1 << i
				}
			}
			miss[b*blockRanks+r] = m
		}
	}
}

func expandGo(blocks int, from, head, patches, panel *byte) {
	expandHalves(blocks, pairBytes, from, head, patches, panel)
}

// expandHalves makes halves of pairs of so many bytes.
func expandHalves(blocks, pair int, from, head, patches, panel *byte) {
	in, out := unsafe.Slice(from, blocks*blockRanks/2*pair), unsafe.Slice(panel, blocks*blockRanks*halfBytes)
	heads, patched := unsafe.Slice(head, blocks*squeezeHead), 0
	for r := range blocks * blockRanks {
		head, from, to := heads[r/blockRanks*squeezeHead:], in[r/2*pair:], out[r*halfBytes:][:halfBytes]
		for i := range rankWords {
			at := 2 * wordOf(i)
			to[at], to[at+1] = from[rankWords+r%2*rankWords+i], upperOf(from[i]>>(r%2*4)&15, head[0])
		}
		if le.Uint16(head[2:])>>(r%blockRanks)&1 == 1 {
			patch := (*byte)(unsafe.Add(unsafe.Pointer(patches), patched*halfBytes))
			for i, x := range unsafe.Slice(patch, halfBytes) {
				to[i] ^= x
			}
			patched++
		}
	}
}

func splitGo(blocks int, panel, to *byte) {
	from, out := unsafe.Slice(panel, blocks*2*blockRanks*stepBytes), unsafe.Slice(to, blocks*blockRanks/2*floatBytes)
	for s := range blocks * 2 * blockRanks {
		var step [stepBytes]byte
		copy(step[:], from[s*stepBytes:])
		upper, lower := from[s*stepBytes/2:], out[s/4*floatBytes+pairBytes+s%4*stepBytes/2:]
		for c := range panelCols {
			at := 2 * floatWord(c)
			copy(lower[at:], step[4*c:][:2])
			copy(upper[at:], step[4*c+2:][:2])
		}
	}
}

func expandFloatsGo(blocks int, from, head, patches, panel *byte) {
	halves := make([]byte, blocks*blockRanks*halfBytes)
	expandHalves(blocks, floatBytes, from, head, patches, &halves[0])
	in, out := unsafe.Slice(from, blocks*blockRanks/2*floatBytes), unsafe.Slice(panel, blocks*2*blockRanks*stepBytes)
	for s := range blocks * 2 * blockRanks {
		upper, lower := halves[s*stepBytes/2:], in[s/4*floatBytes+pairBytes+s%4*stepBytes/2:]
		for c := range panelCols {
			at, to := 2*floatWord(c), out[(s*panelCols+c)*4:]
			copy(to, lower[at:][:2])
			copy(to[2:], upper[at:][:2])
		}
	}
}
