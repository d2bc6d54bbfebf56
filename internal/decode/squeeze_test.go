package decode

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"promptgen/internal/kernel"
)

// squeezings are those of this machine for bf16 and fp32, and the reference in Go.
func squeezings(t *testing.T, f func(t *testing.T, u *Unit, d kernel.DType, k *squeezing)) {
	for _, isa := range kernel.ISAs() {
		cpu, err := kernel.New(kernel.Options{ISA: isa, Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cpu.Close)
		u := New(cpu)
		for _, d := range []kernel.DType{kernel.BF16, kernel.FP32} {
			k := u.k.format(d).squeezing
			if k == nil {
				k = reference(d)
			}
			t.Run(fmt.Sprintf("%s/%v", isa, d), func(t *testing.T) { f(t, u, d, k) })
		}
	}
}

func reference(d kernel.DType) *squeezing {
	if d == kernel.FP32 {
		return squeezingF32(splitGo, squeezeGo)
	}
	return squeezingBF16(squeezeGo)
}

// varied is weights of usual magnitudes, of which one in rare is of any.
func varied(r *rand.Rand, n, rare int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64()) * .02
		if r.IntN(rare) == 0 {
			x[i] = math.Float32frombits(r.Uint32() &^ (1 << 30)) // below 2
		}
	}
	return x
}

// widened is steps of floats for those of pairs of bf16.
func widened(panel []byte) []byte {
	w := make([]byte, 2*len(panel))
	for i := 0; i < len(panel); i += 4 {
		to := w[i/stepBytes*2*stepBytes+i%stepBytes:]
		copy(to[2:4], panel[i:])
		copy(to[stepBytes+2:], panel[i+2:i+4])
	}
	return w
}

// What is squeezed is expanded to what it was, whatever it was, and every
// instruction set squeezes to the same bytes.
func TestSqueeze(t *testing.T) {
	squeezings(t, func(t *testing.T, u *Unit, d kernel.DType, k *squeezing) {
		r := rand.New(rand.NewPCG(21, 22))
		for _, steps := range []int{16, 48, 51, 80} {
			for _, rare := range []int{0, 1, 20, 1 << 30} { // 0: any bits
				wide := aligned(k.wideBytes(steps))
				for i := range steps * stepBytes / 4 {
					v := r.Uint32()
					if rare > 0 {
						v = math.Float32bits(varied(r, 1, rare)[0])
						if d == kernel.BF16 {
							v = v&^0xffff | math.Float32bits(varied(r, 1, rare)[0])>>16
						}
					}
					le.PutUint32(wide[4*i:], v)
				}
				var s scratch
				var made [2]squeezedPanel
				for i, k := range []*squeezing{reference(d), k} {
					data := aligned(k.panelBytes(steps))
					p := squeezedPanel{k: k, steps: steps, head: data[:k.headBytes(steps)], blocks: data[k.headBytes(steps):]}
					p.patches = p.squeeze(&s, bytes.Clone(wide), panelCols)
					made[i] = p
				}
				a, b := made[0], made[1]
				if !bytes.Equal(a.head, b.head) || !bytes.Equal(a.blocks, b.blocks) || !bytes.Equal(a.patches, b.patches) {
					t.Fatalf("%d steps, rare %d: squeezed otherwise than in Go", steps, rare)
				}
				for _, x := range []*expansion{&k.few, &k.many} {
					if x.run == nil {
						continue // the reference has one
					}
					want, size := wide, stepBytes
					if x.as != nil {
						want, size = widened(wide), 2*stepBytes
					}
					for first := 0; first < steps; first += 2 * k.steps {
						got := aligned(k.wideBytes(steps-first) / stepBytes * size)
						b.expand(x, got, first, steps-first)
						if n := (steps - first) * size; !bytes.Equal(got[:n], want[first*size:][:n]) {
							t.Fatalf("%d steps, rare %d: steps from %d on are not what they were", steps, rare, first)
						}
					}
				}
			}
		}
	})
}

// A squeezed matrix gives, to the bit, the products and the columns of one that
// is not, for any number of rows; it takes less memory, and what it leaves is the
// next one's. One of too many magnitudes is not squeezed.
func TestSqueezedMatrix(t *testing.T) {
	squeezings(t, func(t *testing.T, u *Unit, d kernel.DType, _ *squeezing) {
		f := u.k.format(d)
		k := f.squeezing
		if k == nil {
			t.Skip("not squeezed at this level")
		}
		r := rand.New(rand.NewPCG(23, 24))
		for _, shape := range [][2]int{{30, 32}, {64, 32}, {96, 300}, {801, 70}, {2050, 40}, {3072, 32}} {
			for _, rare := range []int{2, 20000} {
				kk, n := shape[0], shape[1]
				w := varied(r, kk*n, rare)
				if kk > 800 { // where the patches that this takes are few
					w[kk/2] = 1e30 // which only quantized weights must not be
				}
				parts := func(_, lo, hi int) (Part, error) { return Part{Columns: w[lo*kk : hi*kk]}, nil }
				mem := NewMemory([]int{PackedBytes(d, kk, n), PackedBytes(d, kk, n), FloatBytes(16)}, nil)
				var m [2]*Matrix
				for i := range m {
					f.squeezing = []*squeezing{nil, k}[i]
					var err error
					if m[i], err = u.Pack(mem, d, kk, n, parts); err != nil {
						t.Fatal(err)
					}
				}
				f.squeezing = k
				if after := mem.Take(lineBytes); ptr(m[1].data, roundUp(len(m[1].data), lineBytes)) != &after[0] {
					t.Errorf("%v: what is left behind a squeezed matrix is not taken next", shape)
				}
				if squeezed := m[1].patches != nil; squeezed != (rare > 2) {
					t.Errorf("%v, one in %d of any magnitude: squeezed: %v", shape, rare, squeezed)
				} else if squeezed && m[1].Bytes() >= m[0].Bytes() {
					t.Errorf("%v: %d bytes squeezed, %d not", shape, m[1].Bytes(), m[0].Bytes())
				}
				x, y := make([]float32, kk), make([]float32, kk)
				for j := range n {
					m[0].Column(x, j)
					m[1].Column(y, j)
					if !slices.Equal(x, y) {
						t.Fatalf("%v: column %d differs", shape, j)
					}
				}
				for _, rows := range []int{1, 2, 6, 7, 12, 13, 40} {
					var a Operand
					u.Shape(&a, d, rows, kk)
					for i := range rows {
						u.Set(&a, i, varied(r, kk, 1<<30))
					}
					var c [2][]float32
					for i := range m {
						c[i] = make([]float32, rows*n)
						u.Multiply(&Product{M: rows, A: &a, W: m[i], C: c[i], LDC: n})
					}
					if !slices.Equal(c[0], c[1]) {
						t.Fatalf("%v, %d rows: products differ", shape, rows)
					}
				}
				mem.Free()
			}
		}
	})
}
