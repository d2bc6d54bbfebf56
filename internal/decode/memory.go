package decode

import (
	"slices"
	"unsafe"

	"promptgen/internal/arena"
)

// Memory is one mapping that packed matrices and vectors lie in side by side:
// small ones would have no huge pages of their own.
type Memory struct {
	rest   [][]byte // of each piece; the mapping is the last
	places []int    // the pieces that the next ones to be taken come from
	free   func()

	last  int    // the piece that was taken from last
	taken []byte // and what was left of it before
}

// NewMemory has room for what will be taken in these sizes, one after another.
// What fits into the pieces that are lent to it, which begin with cache lines,
// lies there; of the rest, none of the machine's memory is taken before it is
// written to.
func NewMemory(sizes []int, lent [][]float32) *Memory {
	m := &Memory{}
	var room []int
	for _, f := range lent {
		m.rest = append(m.rest, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(f))), 4*len(f)))
		room = append(room, 4*len(f))
	}
	places, beside := placed(sizes, room)
	own, free := allocate(beside)
	m.rest, m.places, m.free = append(m.rest, own), places, free
	return m
}

// Take is the next n bytes, beginning with a cache line; anything may be in them.
func (m *Memory) Take(n int) []byte {
	m.last, m.places = m.places[0], m.places[1:]
	m.taken = m.rest[m.last]
	m.Trim(n)
	return m.taken[:n:n]
}

// Trim gives back what was taken last, but for its first n bytes. What is taken next
// comes from the pieces that were foreseen: in any other order of filling them up,
// room gained in one place may be lost in another.
func (m *Memory) Trim(n int) {
	m.rest[m.last] = m.taken[min(roundUp(n, lineBytes), len(m.taken)):]
}

// Beside is how much of what is taken in these sizes, one after another, does not
// fit into lent pieces of so many bytes.
func Beside(sizes []int, lent ...int) int {
	_, beside := placed(sizes, lent)
	return beside
}

// placed says which lent piece each size comes from, the first with room for it;
// len(lent) where none has, and how much that is in all.
func placed(sizes, lent []int) (places []int, beside int) {
	rest := slices.Clone(lent)
	for _, n := range sizes {
		i := slices.IndexFunc(rest, func(r int) bool { return n <= r })
		if i < 0 {
			i = len(lent)
			beside += roundUp(n, lineBytes)
		} else {
			rest[i] -= min(roundUp(n, lineBytes), rest[i])
		}
		places = append(places, i)
	}
	return places, beside
}

// FloatBytes is what Floats takes.
func FloatBytes(n int) int { return roundUp(4*n, lineBytes) }

// Floats is room for n values.
func (m *Memory) Floats(n int) []float32 {
	b := m.Take(FloatBytes(n))
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

// Free gives all of it back. What lies in it must not be used any more.
func (m *Memory) Free() {
	m.free()
	*m = Memory{free: func() {}}
}

// allocate returns n zeroed bytes outside the collector's heap, on huge pages
// where the system has them: walking through weights then costs few page-table
// look-ups. Where it gives no such memory, the heap's does.
func allocate(n int) (b []byte, free func()) {
	if n == 0 {
		return nil, func() {}
	}
	a, err := arena.New(int64(n))
	if err != nil {
		return aligned(n), func() {}
	}
	return a.Bytes(n), func() { _ = a.Close() }
}
