package decode_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"promptgen/internal/decode"
	"promptgen/internal/half"
	"promptgen/internal/kernel"
	"promptgen/model/checkpoint/blob"
)

var dtypes = []kernel.DType{kernel.FP32, kernel.BF16, kernel.Q8_0, kernel.Q4_0}

func newUnit(t testing.TB, isa string, threads int) *decode.Unit {
	t.Helper()
	cpu, err := kernel.New(kernel.Options{ISA: isa, Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cpu.Close)
	return decode.New(cpu)
}

// everyISA runs f for each instruction set of this machine.
func everyISA(t *testing.T, f func(t *testing.T, u *decode.Unit)) {
	for _, isa := range kernel.ISAs() {
		t.Run(isa, func(t *testing.T) { f(t, newUnit(t, isa, 2)) })
	}
}

func random(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// pack packs columns [n][k].
func pack(t testing.TB, u *decode.Unit, d kernel.DType, k, n int, w []float32) *decode.Matrix {
	t.Helper()
	return packParts(t, u, d, k, n, encoded(d, k, w))
}

func packParts(t testing.TB, u *decode.Unit, d kernel.DType, k, n int, parts decode.Parts) *decode.Matrix {
	t.Helper()
	mem := decode.NewMemory([]int{decode.PackedBytes(d, k, n)}, nil)
	t.Cleanup(mem.Free)
	m, err := u.Pack(mem, d, k, n, parts)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// encoded is w as a file has it.
func encoded(d kernel.DType, k int, w []float32) decode.Parts {
	enc, _ := blob.Named(d.String())
	return func(_, lo, hi int) (decode.Part, error) {
		if d == kernel.FP32 || d == kernel.BF16 {
			return decode.Part{Columns: w[lo*k : hi*k]}, nil
		}
		return decode.Part{Blocks: blob.Encode(nil, enc, w[lo*k:hi*k])}, nil
	}
}

// Weights packed from float32, in rows or in columns, are those that a file
// holds in their encoding, to the bit.
func TestPack(t *testing.T) {
	everyISA(t, func(t *testing.T, u *decode.Unit) {
		r := rand.New(rand.NewPCG(9, 10))
		for _, d := range dtypes {
			for _, shape := range [][2]int{{64, 32}, {96, 80}, {33, 70}} {
				k, n := shape[0], shape[1]
				if k%32 > 0 && (d == kernel.Q8_0 || d == kernel.Q4_0) {
					continue
				}
				w := random(r, n*k) // columns
				for i := range w {
					switch i / 32 % 8 {
					case 3:
						w[i] = 0 // a block of zeros
					case 4:
						w[i] = float32(i%32-16) / 2 // the middle between two multiples
					case 5:
						w[i] *= 1e-9
					case 6:
						w[i] = float32(1 - i%2*2) // as far below 0 as above
					case 7: // the middle again, of a step whose inverse is not exact
						w[i] = w[i/32*32+31] * float32(i%32-16) / 16
					}
				}
				rows := make([]float32, n*k)
				for j := range n {
					for i := range k {
						rows[i*n+j] = w[j*k+i]
					}
				}
				enc, _ := blob.Named(d.String())
				for name, parts := range map[string]decode.Parts{
					"blocks":  encoded(d, k, w),
					"rows":    func(_, lo, hi int) (decode.Part, error) { return decode.Part{Rows: rows[lo:], LD: n}, nil },
					"columns": func(_, lo, hi int) (decode.Part, error) { return decode.Part{Columns: w[lo*k : hi*k]}, nil },
				} {
					m, a, b := packParts(t, u, d, k, n, parts), make([]float32, k), make([]float32, k)
					for j := range n {
						m.Column(a, j)
						blob.Decode(b, enc, blob.Encode(nil, enc, w[j*k:][:k]))
						if !slices.Equal(a, b) {
							t.Fatalf("%v, %d by %d, from %s: column %d is packed as %v, want %v", d, k, n, name, j, a, b)
						}
					}
				}
			}
		}
	})
}

// rounded is x as the operand of d holds it, in plain words.
func rounded(d kernel.DType, x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		switch d {
		case kernel.FP32:
			y[i] = float64(v)
		case kernel.BF16:
			y[i] = float64(half.RoundBF16(v))
		default:
			var top float32
			for _, o := range x[i/32*32:][:32] {
				top = max(top, float32(math.Abs(float64(o))))
			}
			if top > 0 {
				y[i] = math.RoundToEven(float64(v*(127/top))) * float64(top/127)
			}
		}
	}
	return y
}

// checkProduct compares a product of random values with sums in float64.
func checkProduct(t *testing.T, u *decode.Unit, d kernel.DType, m, n, k int, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	w, x := random(r, n*k), random(r, m*k)
	bias, residual := random(r, n), random(r, m*n)
	p := decode.Product{M: m, A: &decode.Operand{}, W: pack(t, u, d, k, n, w), C: make([]float32, m*n), LDC: n, Bias: bias, Residual: residual}
	u.Shape(p.A, d, m, k)
	for i := range m {
		u.Set(p.A, i, x[i*k:][:k])
	}
	u.Multiply(&p)
	var rows [][]float64
	for i := range m {
		rows = append(rows, rounded(d, x[i*k:][:k]))
	}
	col := make([]float32, k)
	for j := range n {
		p.W.Column(col, j)
		for i := range m {
			sum, size := 0.0, 1.0
			for l, v := range rows[i] {
				sum += v * float64(col[l])
				size += math.Abs(v * float64(col[l]))
			}
			want := sum + float64(bias[j]) + float64(residual[i*n+j])
			if got := float64(p.C[i*n+j]); !(math.Abs(got-want) <= 2e-6*size) {
				t.Fatalf("%v, m %d n %d k %d: C[%d,%d] is %g, want %g", d, m, n, k, i, j, got, want)
			}
		}
	}
}

// Products of every dtype, shape and instruction set.
func TestMultiply(t *testing.T) {
	everyISA(t, func(t *testing.T, u *decode.Unit) {
		r := rand.New(rand.NewPCG(1, 2))
		for _, d := range dtypes {
			for i := range 25 {
				m, n, k := 1+i%14, 1+r.IntN(100), 1+r.IntN(90)
				switch {
				case i == 24:
					m, n, k = 530, 40, 64 // several blocks of rows
				case i == 23:
					m, n, k = 20, 40, 1056 // and of the sum
				case i > 20:
					m = 1 + r.IntN(60)
				}
				if d == kernel.Q8_0 || d == kernel.Q4_0 {
					k = (k + 31) / 32 * 32
				}
				checkProduct(t, u, d, m, n, k, uint64(i))
			}
		}
	})
}

func FuzzMultiply(f *testing.F) {
	f.Add(uint8(0), uint8(1), uint8(33), uint8(5), uint64(1))
	f.Add(uint8(2), uint8(13), uint8(64), uint8(96), uint64(2))
	var units []*decode.Unit
	for _, isa := range kernel.ISAs() {
		units = append(units, newUnit(f, isa, 2))
	}
	f.Fuzz(func(t *testing.T, dtype, m, n, k uint8, seed uint64) {
		d, sum := dtypes[int(dtype)%len(dtypes)], int(k)+1
		if d == kernel.Q8_0 || d == kernel.Q4_0 {
			sum = (sum + 31) / 32 * 32
		}
		for _, u := range units {
			checkProduct(t, u, d, int(m%40)+1, int(n)+1, sum, seed)
		}
	})
}

// A row's product is the same to the bit whatever rows are beside it, and on any
// number of threads.
func TestRowsAreAlone(t *testing.T) {
	everyISA(t, func(t *testing.T, u *decode.Unit) {
		one := newUnit(t, u.CPU().ISA(), 1)
		r := rand.New(rand.NewPCG(3, 4))
		const n, k, rows = 70, 832, 15
		for _, d := range dtypes {
			w, x := random(r, n*k), random(r, rows*k)
			multiply := func(u *decode.Unit, x []float32) []float32 {
				m := len(x) / k
				p := decode.Product{M: m, A: &decode.Operand{}, W: pack(t, u, d, k, n, w), C: make([]float32, m*n), LDC: n, Act: kernel.ActGELUNew}
				u.Shape(p.A, d, m, k)
				u.EachRow(m, func(i int) { u.Set(p.A, i, x[i*k:][:k]) })
				u.Multiply(&p)
				return p.C
			}
			all := multiply(u, x)
			for m := 1; m <= rows; m++ {
				at := rows - m
				if got := multiply(one, x[at*k:]); !slices.Equal(got, all[at*n:]) {
					t.Errorf("%v: the last %d rows differ when they are alone", d, m)
				}
			}
		}
	})
}

// sequence is a text's keys, queries and values for one layer.
type sequence struct {
	c   decode.Cache
	qkv []float32
	n   int
}

func newSequence(r *rand.Rand, heads, dim, n int, d kernel.DType) *sequence {
	return &sequence{decode.Cache{Layers: 2, Heads: heads, HeadDim: dim, DType: d}, random(r, n*3*heads*dim), n}
}

// attend reads the text in pieces of the given lengths.
func (s *sequence) attend(u *decode.Unit, pieces ...int) []float32 {
	width := s.c.Heads * s.c.HeadDim
	var pages [][]uint32
	for range (s.n + decode.PageRows - 1) / decode.PageRows {
		pages = append(pages, make([]uint32, s.c.Words()))
	}
	out := make([]float32, s.n*width)
	past := 0
	for _, rows := range pieces {
		u.Attend(&decode.Attention{
			Cache: s.c, Layer: 1, QKV: s.qkv[past*3*width:], Out: out[past*width:],
			Segments: []decode.Segment{{Pages: pages, Past: past, Rows: rows}},
		})
		past += rows
	}
	return out
}

// Attention is softmax(q·k/√d)·v over the tokens up to the row's own, and does
// not depend on the pieces in which a text is read.
func TestAttend(t *testing.T) {
	everyISA(t, func(t *testing.T, u *decode.Unit) {
		r := rand.New(rand.NewPCG(5, 6))
		for _, d := range dtypes {
			for _, dim := range []int{1, 7, 16, 33, 64, 100} {
				s := newSequence(r, 3, dim, 77, d)
				whole := s.attend(u, s.n)
				slack := 1e-5
				if d != kernel.FP32 {
					slack = 4e-2
				}
				for i, want := range s.plain() {
					if math.Abs(float64(whole[i])-want) > slack {
						t.Fatalf("%v, width %d, row %d: %g, want %g", d, dim, i/(3*dim), whole[i], want)
					}
				}
				for _, pieces := range [][]int{slices.Repeat([]int{1}, s.n), {32, 45}, {1, 13, 2, 31, 30}} {
					if !slices.Equal(s.attend(u, pieces...), whole) {
						t.Errorf("%v, width %d: read in pieces of %v the result differs", d, dim, pieces)
					}
				}
			}
		}
	})
}

// kept is a token's values of a head as the cache keeps them, but for halves of
// floats.
func (s *sequence) kept(v []float32) []float64 {
	if s.c.DType == kernel.Q8_0 || s.c.DType == kernel.Q4_0 {
		return nibbles(v)
	}
	return floats(v)
}

// keptKey is the same of a key; what 8 bits lose is within the test's tolerance.
func (s *sequence) keptKey(k []float32) (out []float64) {
	if s.c.DType != kernel.Q4_0 {
		return floats(k)
	}
	for block := range slices.Chunk(k, decode.BlockLen) {
		out = append(out, nibbles(block)...)
	}
	return out
}

func floats(v []float32) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}

// nibbles is values as q4_0 keeps them.
func nibbles(v []float32) []float64 {
	far, out := float32(0), floats(v)
	for _, x := range v {
		if math.Abs(float64(x)) > math.Abs(float64(far)) {
			far = x
		}
	}
	for i, x := range out {
		step := float64(far) / -8
		out[i] = step * min(7, math.Floor(x/step+.5))
	}
	return out
}

// plain is attention in float64.
func (s *sequence) plain() []float64 {
	d, width := s.c.HeadDim, s.c.Heads*s.c.HeadDim
	at := func(i, part, head int) []float32 { return s.qkv[(i*3+part)*width+head*d:][:d] }
	out := make([]float64, s.n*width)
	for i := range s.n {
		for h := range s.c.Heads {
			sum, o := 0.0, out[i*width+h*d:][:d]
			for j := range i + 1 {
				dot := 0.0
				key := s.keptKey(at(j, 1, h))
				for l, q := range at(i, 0, h) {
					dot += float64(q) * key[l]
				}
				p := math.Exp(dot / math.Sqrt(float64(d)))
				sum += p
				for l, v := range s.kept(at(j, 2, h)) {
					o[l] += p * v
				}
			}
			for l := range o {
				o[l] /= sum
			}
		}
	}
	return out
}

// Segments of different lengths and pasts attend together as they do alone.
func TestSegmentsAreAlone(t *testing.T) {
	u := newUnit(t, "", 2)
	r := rand.New(rand.NewPCG(7, 8))
	const heads, dim = 2, 16
	const width = heads * dim
	a, b := newSequence(r, heads, dim, 40, kernel.BF16), newSequence(r, heads, dim, 5, kernel.BF16)
	wantA, wantB := a.attend(u, 40), b.attend(u, 5)
	page := func() []uint32 { return make([]uint32, a.c.Words()) }
	att := decode.Attention{
		Cache: a.c, Layer: 1, QKV: slices.Concat(a.qkv, b.qkv), Out: make([]float32, 45*width),
		Segments: []decode.Segment{
			{Pages: [][]uint32{page(), page()}, Rows: 40, From: 39},
			{Pages: [][]uint32{page()}, Row: 40, Rows: 5},
		},
	}
	u.Attend(&att)
	if !slices.Equal(att.Out[39*width:40*width], wantA[39*width:]) || !slices.Equal(att.Out[40*width:], wantB) {
		t.Error("together they differ")
	}
	if slices.ContainsFunc(att.Out[:39*width], func(x float32) bool { return x != 0 }) {
		t.Error("rows before From were computed")
	}
}

// Weights that are no numbers are refused by their place; infinite activations
// give NaN, not something plausible.
func TestNotFinite(t *testing.T) {
	everyISA(t, func(t *testing.T, u *decode.Unit) {
		const n, k = 40, 64
		for _, d := range []kernel.DType{kernel.FP32, kernel.BF16, kernel.Q8_0} {
			for _, bad := range []float64{math.NaN(), math.Inf(1)} {
				w := make([]float32, n*k)
				w[37*k+33] = float32(bad)
				columns := func(_, lo, hi int) (decode.Part, error) { return decode.Part{Columns: w[lo*k : hi*k]}, nil }
				for _, parts := range []decode.Parts{encoded(d, k, w), columns} {
					mem := decode.NewMemory([]int{decode.PackedBytes(d, k, n)}, nil)
					if _, err := u.Pack(mem, d, k, n, parts); err == nil || !strings.Contains(err.Error(), "column 37") {
						t.Errorf("%v, %v: %v", d, bad, err)
					}
					mem.Free()
				}
			}
		}
		// So are those whose scale, or whose rounding, would not be finite.
		for d, most := range map[kernel.DType]float32{kernel.BF16: 3.38e38, kernel.Q8_0: 65500 * 127, kernel.Q4_0: 65500 * 8} {
			for _, w := range []float32{most, -most, most * 1.005, -most * 1.005} {
				columns := func(_, lo, hi int) (decode.Part, error) {
					return decode.Part{Columns: slices.Repeat([]float32{w}, (hi-lo)*k)}, nil
				}
				mem := decode.NewMemory([]int{decode.PackedBytes(d, k, n)}, nil)
				m, err := u.Pack(mem, d, k, n, columns)
				if large := max(w, -w) > most; large != (err != nil) {
					t.Errorf("%v, %g: %v", d, w, err)
				} else if x := make([]float32, k); !large {
					if m.Column(x, 3); x[5]-x[5] != 0 {
						t.Errorf("%v: %g became %g", d, w, x[5])
					}
				}
				mem.Free()
			}
		}
		for _, d := range dtypes {
			m := pack(t, u, d, k, n, slices.Repeat([]float32{0.5}, n*k))
			for _, bad := range []float64{math.NaN(), math.Inf(-1)} {
				x := make([]float32, k)
				x[40] = float32(bad)
				p := decode.Product{M: 1, A: &decode.Operand{}, W: m, C: make([]float32, n), LDC: n}
				u.Shape(p.A, d, 1, k)
				u.Set(p.A, 0, x)
				u.Multiply(&p)
				if c := float64(p.C[3]); !math.IsNaN(c) && !math.IsInf(c, 0) {
					t.Errorf("%v: %v times a weight is %v", d, bad, c)
				}
			}
		}
	})
	u := newUnit(t, "", 1)
	mem := decode.NewMemory([]int{1 << 16}, nil)
	defer mem.Free()
	if _, err := u.Pack(mem, kernel.Q8_0, 33, 1, nil); err == nil {
		t.Error("a ragged block was packed")
	}
	if _, err := u.Pack(mem, kernel.FP16, 32, 1, nil); err == nil {
		t.Error("fp16 was packed")
	}
	broken := func(_, _, _ int) (decode.Part, error) { return decode.Part{}, fmt.Errorf("broken") }
	if _, err := u.Pack(mem, kernel.FP32, 32, 100, broken); err == nil {
		t.Error("an error of the source was lost")
	}
}

// BenchmarkAttend is one text's attention over 900 tokens in so many layers that
// nothing of them stays in a cache.
func BenchmarkAttend(b *testing.B) {
	u := newUnit(b, "", 2)
	for _, d := range dtypes {
		b.Run(d.String(), func(b *testing.B) {
			const tokens, layers = 900, 48
			c := decode.Cache{Layers: layers, Heads: 12, HeadDim: 64, DType: d}
			width := c.Heads * c.HeadDim
			pages, free := c.NewPages(32)
			defer free()
			a := decode.Attention{Cache: c, QKV: random(rand.New(rand.NewPCG(1, 1)), tokens*3*width), Out: make([]float32, tokens*width)}
			for a.Layer = range layers {
				a.Segments = []decode.Segment{{Pages: pages, Rows: tokens, From: tokens - 1}}
				u.Attend(&a)
			}
			b.SetBytes(int64(4 * c.Words() * tokens / decode.PageRows))
			for b.Loop() {
				for a.Layer = range layers {
					a.Segments = []decode.Segment{{Pages: pages, Past: tokens, Rows: 1}}
					u.Attend(&a)
				}
			}
		})
	}
}
