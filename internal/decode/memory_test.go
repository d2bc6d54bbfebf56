package decode_test

import (
	"testing"

	"promptgen/internal/decode"

	"pgregory.net/rapid"
)

// What is taken as announced finds room, in what is lent as far as Beside says, also
// where less of it is kept, and no two pieces share a byte.
func TestMemoryTakesAsForecast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOf(rapid.IntRange(0, 5000)).Draw(t, "sizes")
		var lent [][]float32
		var room []int
		for _, lines := range rapid.SliceOfN(rapid.IntRange(1, 100), 0, 4).Draw(t, "lent") {
			lent, room = append(lent, make([]float32, 16*lines)), append(room, 64*lines)
		}
		m := decode.NewMemory(sizes, lent)
		defer m.Free()
		var taken [][]byte
		for i, n := range sizes {
			b := m.Take(n)
			if len(b) != n {
				t.Fatalf("%d bytes for %d", len(b), n)
			}
			if rapid.Bool().Draw(t, "trim") {
				b = b[:rapid.IntRange(0, n).Draw(t, "kept")]
				m.Trim(len(b))
			}
			for j := range b {
				b[j] = byte(i)
			}
			taken = append(taken, b)
		}
		for i, b := range taken {
			for _, v := range b {
				if v != byte(i) {
					t.Fatalf("piece %d was written over", i)
				}
			}
		}
		all, beside := 0, decode.Beside(sizes, room...)
		for _, n := range sizes {
			all += (n + 63) / 64 * 64
		}
		for _, n := range room {
			all -= n
		}
		if beside < all {
			t.Fatalf("%d bytes are said to go beside, %d must", beside, all)
		}
	})
}
