package decode

import (
	"errors"
	"math"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"promptgen/internal/kernel"
)

// Panels of bf16 without loss in twelve bits a weight. Of a bf16 the upper byte,
// sign and most of the exponent, says little: weights that lie together are of
// few magnitudes. A block of 16 steps keeps sixteen upper bytes, eight magnitudes
// up to its largest with either sign, and names them in 4 bits. A step with a
// weight that is smaller than all of these, less than a 16384th of the largest or
// so, is put right by a patch, to which it is XORed. (That exponents are worth
// coding by themselves is from DFloat11, arXiv:2504.11651; codes of one length
// take a little more room, and two instructions instead of a search.)
//
//	panel  [blocks]{first magnitude, 0, uint16 of steps with a patch}, filled up to a cache line, [blocks] as below
//	block  [8]{64 codes of two steps, 64 lower bytes of each}
//	patch  [64 weights of a step] uint16
//
// The lower halves of the codes' bytes are the first step's. Bytes lie in the
// order in which VPUNPCKLBW and VPUNPCKHBW make words of them: in each 16 bytes 8
// of the step's first 16 columns, then 8 of the last.
const (
	squeezeSteps = 16
	squeezeHead  = 4 // bytes of a block at the panel's beginning
	squeezeBytes = squeezeSteps / 2 * pairBytes
	magnitudes   = 8

	panelWords = 2 * panelCols  // weights of a step, and their codes
	pairBytes  = 3 * panelWords // of two steps
	stepBytes  = 2 * panelWords // of one that is not squeezed, and of a patch
)

// squeezing is how one instruction set does it, for so many blocks that begin at
// panel, where they are not squeezed, or at from and head. Bit i of missed [16
// steps] of a block says that the upper byte of weight i of the step, in the order
// of bytes, has no code. patches are those of the blocks.
type squeezing struct {
	squeeze func(blocks int, panel, to, head *byte, missed *uint64)
	expand  func(blocks int, from, head, patches, panel *byte)
	fetch   func(lines int, from *byte) // asks for them, in the second cache
	tiles   []squeezedTile              // [i] does i+1 rows
}

// squeezedTile does with so many blocks what the format's tile does with their
// steps.
type squeezedTile func(blocks int, a *byte, lda int, b, head, patches *byte, c *float32, ldc, acc int)

// fewSteps is the number of steps that are expanded at a time, into the first
// cache, where few rows are multiplied.
const fewSteps = 4 * squeezeSteps

// patches are those of each panel's steps.
type patches struct {
	of    [][]byte
	bytes atomic.Int64
	most  int64
}

// errVaried is the answer where patches would take too much.
var errVaried = errors.New("weights of too many magnitudes")

// patchesOf is of so many panels of so many steps, of which one in 32 may have a
// patch: then they take 4 % of what the weights do, and a matrix less than if it
// were not squeezed.
func patchesOf(panels, steps int) *patches {
	return &patches{of: make([][]byte, panels), most: int64(PatchBytes(kernel.BF16, panels*steps*stepBytes))}
}

// PatchBytes is the most that the patches of weights take on Go's heap, of which
// n are the PackedBytes.
func PatchBytes(d kernel.DType, n int) int {
	if d != kernel.BF16 {
		return 0
	}
	return n / 32
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

// squeezeBlocks is the number of blocks of a panel of so many steps, headBytes
// the bytes before them, squeezedBytes those of the panel.
func squeezeBlocks(steps int) int { return (steps + squeezeSteps - 1) / squeezeSteps }
func headBytes(steps int) int     { return roundUp(squeezeBlocks(steps)*squeezeHead, lineBytes) }
func squeezedBytes(steps int) int { return headBytes(steps) + squeezeBlocks(steps)*squeezeBytes }

// squeezedPanel is one of so many steps.
type squeezedPanel struct {
	k                     *squeezing
	steps                 int
	head, blocks, patches []byte
}

// squeezed is panel p of a matrix whose panels are so.
func (m *Matrix) squeezed(p int) squeezedPanel {
	data, head := m.panel(p), headBytes(m.steps)
	return squeezedPanel{m.f.squeezing, m.steps, data[:head], data[head:], m.patches.of[p]}
}

// at is where the block that begins with step s lies, and its head.
func (p *squeezedPanel) at(s int) (from, head *byte) {
	b := s / squeezeSteps
	return &p.blocks[b*squeezeBytes], &p.head[b*squeezeHead]
}

// patched is the steps of block b that have a patch.
func (p *squeezedPanel) patched(b int) uint16 { return le.Uint16(p.head[b*squeezeHead+2:]) }

// patchesFrom is where the patches of step s, the first of a block, and those
// behind it begin; nil if there are none.
func (p *squeezedPanel) patchesFrom(s int) *byte {
	if len(p.patches) == 0 {
		return nil
	}
	n := 0
	for b := range s / squeezeSteps {
		n += bits.OnesCount16(p.patched(b))
	}
	if n*stepBytes == len(p.patches) {
		return nil
	}
	return ptr(p.patches, n*stepBytes)
}

// squeeze makes the panel of wide, which is filled up to whole blocks, and returns
// its patches. Only so many columns matter.
func (p *squeezedPanel) squeeze(s *scratch, wide []byte, cols int) (patches []byte) {
	var matter uint64
	for w := range 2 * cols {
		matter |= 1 << byteOf(w)
	}
	missed := grow(&s.missed, squeezeBlocks(p.steps)*squeezeSteps)
	p.k.squeeze(len(missed)/squeezeSteps, &wide[0], &p.blocks[0], &p.head[0], &missed[0])
	for b := range squeezeBlocks(p.steps) {
		base, flags := p.head[b*squeezeHead], uint16(0)
		for i := range min(squeezeSteps, p.steps-b*squeezeSteps) {
			s := b*squeezeSteps + i
			m := missed[s] & matter
			if m == 0 {
				continue
			}
			flags |= 1 << i
			n := len(patches)
			patches = append(patches, make([]byte, stepBytes)...)
			for ; m != 0; m &= m - 1 {
				at := 2*wordOf(bits.TrailingZeros64(m)) + 1
				upper := wide[s*stepBytes+at]
				patches[n+at] = upper ^ upperOf(codeOf(upper, base), base)
			}
		}
		le.PutUint16(p.head[b*squeezeHead+2:], flags)
	}
	return patches
}

// expand makes n steps from s on, the first of a block, in wide.
func (p *squeezedPanel) expand(wide []byte, s, n int) {
	from, head := p.at(s)
	p.k.expand(squeezeBlocks(n), from, head, p.patchesFrom(s), &wide[0])
}

// column sets dst to column c.
func (p *squeezedPanel) column(dst []float32, c int) {
	patches := p.patches
	var patch []byte
	for k := range dst {
		s := k / 2
		b := s / squeezeSteps
		if k%2 == 0 {
			patch = nil
			if p.patched(b)>>(s%squeezeSteps)&1 == 1 {
				patch, patches = patches[:stepBytes], patches[stepBytes:]
			}
		}
		w := 2*c + k%2
		i := byteOf(w)
		pair := p.blocks[s/2*pairBytes:][:pairBytes]
		upper := upperOf(pair[i]>>(s%2*4)&15, p.head[b*squeezeHead])
		if patch != nil {
			upper ^= patch[2*w+1]
		}
		dst[k] = math.Float32frombits(uint32(upper)<<24 | uint32(pair[panelWords+s%2*panelWords+i])<<16)
	}
}

// codeOf is the code of an upper byte in a block of so large a first magnitude,
// upperOf what a code stands for.
func codeOf(upper, base byte) byte { return upper>>7*magnitudes | (upper&0x7f-base)%magnitudes }
func upperOf(code, base byte) byte { return code/magnitudes<<7 | (base + code%magnitudes) }

// byteOf is where the bytes of weight w of a step lie, wordOf the weight whose
// bytes are the i-th.
func byteOf(w int) int { return w%32/8*16 + w/32*8 + w%8 }
func wordOf(i int) int { return i/8%2*panelCols + i/16*8 + i%8 }

func squeezeGo(blocks int, panel, to, head *byte, missed *uint64) {
	const wide = squeezeSteps * stepBytes
	from, out := unsafe.Slice(panel, blocks*wide), unsafe.Slice(to, blocks*squeezeBytes)
	heads, miss := unsafe.Slice(head, blocks*squeezeHead), unsafe.Slice(missed, blocks*squeezeSteps)
	clear(out)
	for b := range blocks {
		from, out := from[b*wide:][:wide], out[b*squeezeBytes:]
		base := byte(0)
		for i := 1; i < len(from); i += 2 {
			base = max(base, from[i]&0x7f)
		}
		base -= min(base, magnitudes-1)
		heads[b*squeezeHead] = base
		for s := range squeezeSteps {
			pair, m := out[s/2*pairBytes:], uint64(0)
			for i := range panelWords {
				at := s*stepBytes + 2*wordOf(i)
				lower, upper := from[at], from[at+1]
				pair[i] |= codeOf(upper, base) << (s % 2 * 4)
				pair[panelWords+s%2*panelWords+i] = lower
				if upper&0x7f < base {
					m |= 1 << i
				}
			}
			miss[b*squeezeSteps+s] = m
		}
	}
}

func expandGo(blocks int, from, head, patches, panel *byte) {
	const wide = squeezeSteps * stepBytes
	in, out := unsafe.Slice(from, blocks*squeezeBytes), unsafe.Slice(panel, blocks*wide)
	heads, patched := unsafe.Slice(head, blocks*squeezeHead), 0
	for b := range blocks {
		in, out, head := in[b*squeezeBytes:], out[b*wide:], heads[b*squeezeHead:]
		for s := range squeezeSteps {
			pair, to := in[s/2*pairBytes:], out[s*stepBytes:][:stepBytes]
			for i := range panelWords {
				at := 2 * wordOf(i)
				to[at], to[at+1] = pair[panelWords+s%2*panelWords+i], upperOf(pair[i]>>(s%2*4)&15, head[0])
			}
			if le.Uint16(head[2:])>>s&1 == 1 {
				patch := unsafe.Add(unsafe.Pointer(patches), patched*stepBytes)
				for i, x := range unsafe.Slice((*byte)(patch), stepBytes) {
					to[i] ^= x
				}
				patched++
			}
		}
	}
}
