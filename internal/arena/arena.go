// Package arena is memory that is taken from the system at once and given back
// at once, beside the garbage collector's heap.
//
// A training that takes all its memory before its first step neither grows nor
// fails in the middle; and memory that the collector does not count does not
// make it let garbage grow along.
package arena

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// HugePage is the size of the pages that are asked for; an arena is a whole
// number of them.
const HugePage = 2 << 20

// Arena is a piece of zeroed memory that parts are cut from.
type Arena struct {
	mem   []byte
	used  int
	unmap func() error
}

// Size is what an arena for n bytes takes.
func Size(n int64) int64 { return (n + HugePage - 1) / HugePage * HugePage }

// New reserves an arena for n bytes. Its pages count as used once they are
// touched.
func New(n int64) (*Arena, error) {
	size := Size(n)
	if n < 0 || int64(int(size)) != size {
		return nil, fmt.Errorf("arena: %d bytes are more than this machine can address", n)
	}
	mem, unmap, err := reserve(int(size))
	if err != nil {
		return nil, fmt.Errorf("arena: the system does not give %d bytes: %w", size, err)
	}
	return &Arena{mem: mem, unmap: unmap}, nil
}

// Bytes cuts the next n bytes off, at a cache line's start; nil where that many
// are not left.
func (a *Arena) Bytes(n int) []byte {
	at := (a.used + 63) &^ 63
	if n < 0 || n > len(a.mem)-at {
		return nil
	}
	a.used = at + n
	return a.mem[at:a.used:a.used]
}

// Floats cuts the next n float32 off; nil where that many are not left.
func (a *Arena) Floats(n int) []float32 {
	b := a.Bytes(4 * n)
	if b == nil {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

// Halves cuts the next n uint16 off; nil where that many are not left.
func (a *Arena) Halves(n int) []uint16 {
	b := a.Bytes(2 * n)
	if b == nil {
		return nil
	}
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

// Touch makes the system give all of the memory now, so that none is missing
// later. What is in it stays.
func (a *Arena) Touch() {
	const page = 4096
	for i := 0; i < len(a.mem); i += page {
		// An atomic addition of nothing: a write that the compiler keeps.
		atomic.AddInt32((*int32)(unsafe.Pointer(&a.mem[i])), 0)
	}
}

// Close gives the memory back; everything cut from it is invalid from then on.
func (a *Arena) Close() error {
	if a == nil || a.unmap == nil {
		return nil
	}
	unmap := a.unmap
	a.unmap, a.mem = nil, nil
	return unmap()
}
