package arena

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// reserve maps memory that begins at a huge page, and asks for huge pages: page
// faults and the translation of addresses cost less.
func reserve(size int) ([]byte, func() error, error) {
	all, err := unix.Mmap(-1, 0, size+HugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, nil, err
	}
	off := int(-uintptr(unsafe.Pointer(unsafe.SliceData(all))) & (HugePage - 1))
	mem := all[off : off+size : off+size]
	if size > 0 {
		_ = unix.Madvise(mem, unix.MADV_HUGEPAGE) // where it is refused, small pages do
	}
	return mem, func() error { return unix.Munmap(all) }, nil
}
