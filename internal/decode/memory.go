package decode

import "unsafe"

// Memory is one mapping that packed matrices and vectors lie in side by side:
// small ones would have no huge pages of their own.
type Memory struct {
	rest []byte
	free func()
}

// NewMemory has room for so many bytes. It takes none of the machine's before
// they are written to.
func NewMemory(n int) *Memory {
	m := &Memory{}
	m.rest, m.free = allocate(n)
	return m
}

// Take is the next n bytes, beginning with a cache line.
func (m *Memory) Take(n int) []byte {
	b := m.rest[:n:n]
	m.rest = m.rest[min(roundUp(n, lineBytes), len(m.rest)):]
	return b
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
