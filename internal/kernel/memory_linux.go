package kernel

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// adviseHuge asks for huge pages for the whole ones that lie within x. That the
// system has none to give is no error: the memory is as good, only slower.
func adviseHuge(x []float32) {
	const page = 4 * hugeMin
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (page - 1))
	if skip < len(b) {
		if whole := b[skip:][:(len(b)-skip)&^(page-1)]; len(whole) > 0 {
			_ = unix.Madvise(whole, unix.MADV_HUGEPAGE)
		}
	}
}
