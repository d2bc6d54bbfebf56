package blob

import (
	"errors"
	"io/fs"
	"os"
	"unsafe"

	"promptgen/internal/fault"
)

// File is the whole of a file in memory: mapped where the system can, so that
// opening a large one is quick and its pages are shared with the system's cache,
// else read. The mapping is private and writable: a training may change the
// weights in place, and the file stays as it is.
//
// Views of Bytes (and the float32 that Floats returns) are valid until Close.
// Nothing closes a File by itself: one that is never closed stays as long as
// the process does.
type File struct {
	Path  string
	Bytes []byte
	unmap func() error
}

// Open opens a regular file. One that is not there is a fault of usage (2).
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, OpenError(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fault.Usage("%s: is not a file", path)
	}
	if info.Size() == 0 {
		return &File{Path: path}, nil
	}
	b, unmap, err := mapFile(f, info.Size())
	if err != nil {
		return nil, err
	}
	return &File{path, b, unmap}, nil
}

// LetGo drops the pages of b from memory if it is a part of the mapping. They
// are read again when they are looked at; what was written to them is lost.
func (f *File) LetGo(b []byte) {
	if f.unmap == nil || len(b) == 0 {
		return
	}
	start, first := uintptr(unsafe.Pointer(&f.Bytes[0])), uintptr(unsafe.Pointer(&b[0]))
	if first < start || first-start > uintptr(len(f.Bytes)-len(b)) {
		return
	}
	dropPages(f.Bytes, int(first-start), int(first-start)+len(b))
}

// decodePiece is how many elements Decode converts before it lets their pages go.
const decodePiece = 1 << 20

// Decode converts the first len(dst) elements of a tensor of f, a float type, to
// dst and lets go of what it has read: however large the tensor, little of it
// is in memory twice.
func (f *File) Decode(dst []float32, t Tensor) {
	f.pieces(len(dst), t, func(lo, hi int, b []byte) { Decode(dst[lo:hi], t.DType, b) })
}

// DecodeBF16 does the same into bfloat16, rounded to the nearest.
func (f *File) DecodeBF16(dst []uint16, t Tensor) {
	f.pieces(len(dst), t, func(lo, hi int, b []byte) { decodeBF16(dst[lo:hi], t.DType, b) })
}

func (f *File) pieces(n int, t Tensor, convert func(lo, hi int, b []byte)) {
	size := layouts[t.DType].bytes
	for lo := 0; lo < n; lo += decodePiece {
		hi := min(lo+decodePiece, n)
		b := t.Bytes[lo*size : hi*size]
		convert(lo, hi, b)
		f.LetGo(b)
	}
}

// Close gives the mapping back. Every view of it is invalid from then on.
func (f *File) Close() error {
	if f.unmap == nil {
		return nil
	}
	unmap := f.unmap
	f.unmap, f.Bytes = nil, nil
	return unmap()
}

// OpenError is the error of a file that could not be opened: 2 where it is
// not there or may not be read.
func OpenError(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.Usage("%s: there is no such file; check the path", path)
	case errors.Is(err, fs.ErrPermission):
		return fault.Usage("%s: may not be read; check its permissions", path)
	}
	return err
}
