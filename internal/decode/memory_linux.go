package decode

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// allocate returns n zeroed bytes outside the collector's heap, on huge pages
// where the system has them: walking through weights then costs few page-table
// look-ups.
func allocate(n int) (b []byte, free func()) {
	if n == 0 {
		return nil, func() {}
	}
	all, err := unix.Mmap(-1, 0, n+HugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return aligned(n), func() {}
	}
	_ = unix.Madvise(all, unix.MADV_HUGEPAGE) // a wish
	off := -int(uintptr(unsafe.Pointer(&all[0]))) & (HugePage - 1)
	return all[off : off+n : off+n], func() { _ = unix.Munmap(all) }
}
