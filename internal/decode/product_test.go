package decode_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"promptgen/internal/decode"
	"promptgen/internal/kernel"
)

// A product that hands its rows on as the next one's operand hands on what Set
// would, and one whose operand holds floats may be written where it lies.
func TestNextOperand(t *testing.T) {
	everyISA(t, func(t *testing.T, u *decode.Unit) {
		const k, n, out = 64, 160, 40
		r := rand.New(rand.NewPCG(11, 12))
		for _, d := range dtypes {
			w, v := pack(t, u, d, k, n, random(r, k*n)), pack(t, u, d, n, out, random(r, n*out))
			for _, m := range []int{1, 5, 40} {
				var a, set, next decode.Operand
				u.Shape(&a, d, m, k)
				for i := range m {
					u.Set(&a, i, random(r, k))
				}
				first := decode.Product{M: m, A: &a, W: w, Act: kernel.ActGELUNew, C: make([]float32, m*n), LDC: n}
				u.Multiply(&first)
				u.Shape(&set, d, m, n)
				for i := range m {
					u.Set(&set, i, first.C[i*n:][:n])
				}
				u.Shape(&next, d, m, n)
				again := first
				if again.C, again.LDC = u.Floats(&next); again.C == nil {
					again.C, again.LDC, again.Next = make([]float32, m*n), n, &next
				} else if d != kernel.FP32 {
					t.Errorf("%v operands are said to be floats", d)
				}
				u.Multiply(&again)
				var got [2][]float32
				for i, op := range []*decode.Operand{&set, &next} {
					got[i] = make([]float32, m*out)
					u.Multiply(&decode.Product{M: m, A: op, W: v, C: got[i], LDC: out})
				}
				if !slices.Equal(got[0], got[1]) {
					t.Errorf("%v, %d rows: the operand differs", d, m)
				}
			}
		}
	})
}

// Some columns of some rows are, to the bit, what they are of the whole product,
// and nothing else is written.
func TestColumnsOfRows(t *testing.T) {
	everyISA(t, func(t *testing.T, u *decode.Unit) {
		const m, k, n = 45, 64, 150
		r := rand.New(rand.NewPCG(15, 16))
		for _, d := range dtypes {
			w := pack(t, u, d, k, n, random(r, k*n))
			var a decode.Operand
			u.Shape(&a, d, m, k)
			for i := range m {
				u.Set(&a, i, random(r, k))
			}
			bias, whole := random(r, n), make([]float32, m*n)
			u.Multiply(&decode.Product{M: m, A: &a, W: w, Bias: bias, C: whole, LDC: n})
			for _, c := range []struct{ row, rows, lo, hi int }{{0, m, 32, n}, {44, 1, 0, 64}, {3, 40, 64, 96}, {7, 0, 0, n}} {
				got, want := make([]float32, m*n), make([]float32, m*n)
				for i := c.row; i < c.row+c.rows; i++ {
					copy(want[i*n+c.lo:i*n+c.hi], whole[i*n+c.lo:])
				}
				u.Multiply(&decode.Product{
					Row: c.row, M: c.rows, A: &a, W: w.Columns(c.lo, c.hi), Bias: bias[c.lo:c.hi], C: got[c.lo:], LDC: n,
				})
				if !slices.Equal(got, want) {
					t.Errorf("%v, %+v: not what the whole product has there", d, c)
				}
			}
			if w.Columns(16, 64) != nil {
				t.Errorf("%v: columns that begin within a panel", d)
			}
		}
	})
}

// A value that is not finite stays so in the cache, however its page was filled:
// whoever attends to it gets no number.
func TestCacheKeepsNotFinite(t *testing.T) {
	everyISA(t, func(t *testing.T, u *decode.Unit) {
		const heads, dim, n, bad = 2, 64, 40, 7
		r := rand.New(rand.NewPCG(13, 14))
		for _, d := range dtypes {
			for _, bits := range []uint32{0x7fffffff, 0x7f800001, 0x7f800000, 0xff800000} {
				s := newSequence(r, heads, dim, n, d)
				s.qkv[(bad*3+2)*heads*dim+dim+5] = math.Float32frombits(bits)
				for _, out := range [][]float32{s.attend(u, n), s.attend(u, 3, n-3)} {
					for i := bad; i < n; i++ {
						x := float64(out[i*heads*dim+dim+5])
						if !math.IsNaN(x) && !math.IsInf(x, 0) {
							t.Fatalf("%v, value %08x at row %d: row %d gives %v", d, bits, bad, i, x)
						}
					}
				}
			}
		}
	})
}
