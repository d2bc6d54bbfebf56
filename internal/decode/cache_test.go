package decode

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"promptgen/internal/half"
	"promptgen/internal/kernel"
)

// hard makes some of v, in round i, what rounding may stumble over.
func hard(r *rand.Rand, v []float32, round int) {
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	at := &v[r.IntN(len(v))]
	switch round % 8 {
	case 1:
		*at = float32(math.NaN())
	case 2:
		*at = float32(math.Inf(-1))
	case 3:
		clear(v)
		*at = float32(math.Copysign(0, -1))
	case 4:
		*at = 1e-44
	case 5:
		for i := range v {
			v[i] *= 1e-40
		}
	case 6:
		for i := range v { // the middle between two multiples
			v[i] = float32(r.IntN(32)-16) / 2
		}
	}
}

func random32(r *rand.Rand, n int) []uint32 {
	w := make([]uint32, n)
	for i := range w {
		w[i] = r.Uint32()
	}
	return w
}

// Every instruction set keeps a token's values as the reference does, whatever
// they are, and leaves those of other tokens alone.
func TestStoreQ4(t *testing.T) {
	for _, isa := range kernel.ISAs() {
		k := findKernels(isa)
		r := rand.New(rand.NewPCG(31, 32))
		for round := range 400 {
			panels, shift := 1+r.IntN(3), 4*r.IntN(8)
			v := make([]float32, panels*panelCols)
			hard(r, v, round)
			got := random32(r, panels*bareBytes/4)
			want := slices.Clone(got)
			var scale [2]uint16
			storeQ4Go(panels, &v[0], &want[0], shift, &scale[0])
			k.storeQ4(panels, &v[0], &got[0], shift, &scale[1])
			if a, b := half.FromFP16(scale[0]), half.FromFP16(scale[1]); a != b && (a == a || b == b) {
				t.Fatalf("%s, round %d: scale %g, want %g", isa, round, b, a)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%s, round %d: %x, want %x", isa, round, got, want)
			}
		}
	}
}

// So it is with a key in 4 bits.
func TestStoreKeyQ4(t *testing.T) {
	for _, isa := range kernel.ISAs() {
		k := findKernels(isa)
		r := rand.New(rand.NewPCG(33, 34))
		for round := range 400 {
			blocks, column := 1+r.IntN(3), r.IntN(panelCols)
			v := make([]float32, blocks*BlockLen)
			hard(r, v, round)
			got := random32(r, blocks*q4Bytes/4)
			want := slices.Clone(got)
			storeKeyQ4Go(blocks, &v[0], &want[0], column)
			k.storeKeyQ4(blocks, &v[0], &got[0], column)
			for b := range blocks { // a NaN's bits do not matter
				at := b * q4Bytes
				a, b := bytesOf(want)[at+2*column:], bytesOf(got)[at+2*column:]
				if x, y := half.FromFP16(le.Uint16(a)), half.FromFP16(le.Uint16(b)); x != x && y != y {
					copy(b[:2], a)
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%s, round %d: %x, want %x", isa, round, got, want)
			}
		}
	}
}

// Blocks of activations are those of the reference, with and without factors of
// their own. What belongs to a scale that is no number does not matter, nor what to
// one that makes nothing of it.
func TestQuantize(t *testing.T) {
	for _, isa := range kernel.ISAs() {
		k := findKernels(isa)
		r := rand.New(rand.NewPCG(35, 36))
		for round := range 400 {
			blocks := 1 + r.IntN(4)
			x := make([]float32, blocks*BlockLen)
			hard(r, x, round)
			pages := make([][]uint32, blocks)
			for i := range pages {
				pages[i] = make([]uint32, 3+panelCols/2)
				for j := range pages[i] {
					pages[i][j] = uint32(half.ToFP16(r.Float32()))<<16 | uint32(half.ToFP16(-r.Float32()))
				}
			}
			same := func(kind string, f func(to *byte), reference func(to *byte)) {
				got, want := make([]byte, blocks*blockBytes), make([]byte, blocks*blockBytes)
				f(&got[0])
				reference(&want[0])
				for b := range blocks {
					got, want := got[b*blockBytes:][:blockBytes], want[b*blockBytes:][:blockBytes]
					a, w := math.Float32frombits(le.Uint32(got[blockScale:])), math.Float32frombits(le.Uint32(want[blockScale:]))
					if number := w-w == 0; number && w > 1e-36 && !slices.Equal(got, want) || !number && a-a == 0 || number && w <= 1e-36 && a != w {
						t.Fatalf("%s, %s, round %d, block %d: %v, want %v", isa, kind, round, b, got, want)
					}
				}
			}
			same("plain", func(to *byte) { k.quantize(blocks, &x[0], to, q4Zero) }, func(to *byte) { quantizeGo(blocks, &x[0], to, q4Zero) })
			same("scaled", func(to *byte) { k.quantizeScaled(blocks, &x[0], to, q8Zero, &pages[0], 12) },
				func(to *byte) { quantizeScaledGo(blocks, &x[0], to, q8Zero, &pages[0], 12) })
		}
	}
}

// The softmax of a row, made of scores at once, is that of exponentials quantized
// after it: codes may differ by one, where powers differ in their last bits.
func TestSoftmax(t *testing.T) {
	for _, isa := range kernel.ISAs() {
		k := findKernels(isa)
		if k.softmax == nil {
			continue
		}
		r := rand.New(rand.NewPCG(37, 38))
		for round := range 400 {
			blocks := 1 + r.IntN(4)
			n, x := r.IntN(blocks*BlockLen+1), make([]float32, blocks*BlockLen)
			hard(r, x, round%3) // a NaN, an infinity
			scale, off, zero := r.Float32()*3, float32(r.NormFloat64()), q8Zero
			pages, at := make([][]uint32, blocks), 12
			for i := range pages {
				pages[i] = random32(r, at/4+panelCols/2)
				for j, w := range pages[i] {
					pages[i][j] = w & 0x3fff3fff // fp16 from 0 to 2
				}
			}
			powers, wantSum := make([]float32, len(x)), 0.0
			for i, x := range x[:n] {
				powers[i] = float32(math.Exp2(float64(scale)*float64(x) + float64(off)))
				wantSum += float64(powers[i])
			}
			got, want := make([]byte, blocks*blockBytes), make([]byte, blocks*blockBytes)
			sum := k.softmax(blocks, n, &x[0], scale, off, &got[0], zero, &pages[0], at)
			quantizeScaledGo(blocks, &powers[0], &want[0], zero, &pages[0], at)
			if far := math.Abs(float64(sum)-wantSum) / wantSum; far > 2e-6 || (sum != sum) != (wantSum != wantSum) {
				t.Fatalf("%s, round %d: the sum is %g, want %g", isa, round, sum, wantSum)
			}
			for b := range blocks {
				got, want := got[b*blockBytes:][:blockBytes], want[b*blockBytes:][:blockBytes]
				a, w := math.Float32frombits(le.Uint32(got[blockScale:])), math.Float32frombits(le.Uint32(want[blockScale:]))
				if w != w && a != a || w == 0 && a == 0 {
					continue // its codes do not matter
				}
				if math.Abs(float64(a/w-1)) > 2e-6 {
					t.Fatalf("%s, round %d, block %d: scale %g, want %g", isa, round, b, a, w)
				}
				codes := 0
				for i := range BlockLen {
					a, w := int(int8(got[i])), int(int8(want[i]))
					if a < w-1 || a > w+1 {
						t.Fatalf("%s, round %d, block %d: code %d is %d, want %d", isa, round, b, i, a, w)
					}
					codes += a
				}
				if offset := int(int32(le.Uint32(got[blockOffset:]))); offset != -zero*codes {
					t.Fatalf("%s, round %d, block %d: offset %d, want %d", isa, round, b, offset, -zero*codes)
				}
			}
		}
	}
}
