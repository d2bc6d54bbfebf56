//go:build !linux

package arena

import "unsafe"

// reserve takes the memory from Go's heap.
func reserve(size int) ([]byte, func() error, error) {
	f := make([]uint64, size/8)
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(f))), size), func() error { return nil }, nil
}
