//go:build unix && !linux

package arena

import "golang.org/x/sys/unix"

// reserve maps memory. It must not be Go's heap, which a training holds to a
// limit that does not count it.
func reserve(size int) ([]byte, func() error, error) {
	mem, err := unix.Mmap(-1, 0, max(size, HugePage), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, nil, err
	}
	return mem[:size:size], func() error { return unix.Munmap(mem) }, nil
}
