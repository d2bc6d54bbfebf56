//go:build unix

package blob

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func mapFile(f *os.File, size int64) ([]byte, func() error, error) {
	if int64(int(size)) != size {
		return nil, nil, fmt.Errorf("%s: %d bytes are too many for this machine's address space", f.Name(), size)
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		return readFile(f, size) // a file system without mappings
	}
	return b, func() error { return unix.Munmap(b) }, nil
}

// dropPages lets the whole pages of bytes [lo,hi) of a mapping go.
func dropPages(b []byte, lo, hi int) {
	page := os.Getpagesize()
	lo, hi = (lo+page-1)/page*page, hi/page*page
	if lo < hi {
		_ = unix.Madvise(b[lo:hi], unix.MADV_DONTNEED) // a wish
	}
}
