package arena

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

// reserve asks the system for pages. They must not be of Go's heap, which a
// training holds to a limit that does not count them.
func reserve(size int) ([]byte, func() error, error) {
	at, err := windows.VirtualAlloc(0, uintptr(max(size, HugePage)), windows.MEM_RESERVE|windows.MEM_COMMIT, windows.PAGE_READWRITE)
	if err != nil {
		return nil, nil, err
	}
	mem := unsafe.Slice((*byte)(pointer(at)), size)
	return mem, func() error { return windows.VirtualFree(at, 0, windows.MEM_RELEASE) }, nil
}

// pointer is the memory at an address that the system gave: not Go's, so that it
// does not move.
func pointer(at uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&at)) }
