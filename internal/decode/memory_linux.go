package decode

import "golang.org/x/sys/unix"

// allocate returns n zeroed bytes outside the collector's heap, on huge pages
// where the system has them: walking through weights then costs few page-table
// look-ups.
func allocate(n int) (b []byte, free func()) {
	if n == 0 {
		return nil, func() {}
	}
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return aligned(n), func() {}
	}
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // a wish
	return b, func() { _ = unix.Munmap(b) }
}
