//go:build !linux

package decode

// allocate returns n zeroed bytes.
func allocate(n int) (b []byte, free func()) { return aligned(n), func() {} }
