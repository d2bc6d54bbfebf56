package kernel

import "unsafe"

// buf is scratch memory that grows and stays. Its start lies on a cache line,
// which the packed panels need to be read at full speed.
type buf struct{ s []float32 }

const lineFloats = 16 // a cache line holds 64 bytes

// get returns n floats of unspecified content.
func (b *buf) get(n int) []float32 {
	if len(b.s) < n {
		s := Alloc(n + lineFloats)
		off := toLine(s)
		b.s = s[off : off+n]
	}
	return b.s[:n]
}

// toLine is how many floats of x come before the first cache line that begins in it.
func toLine(x []float32) int {
	return -int(uintptr(unsafe.Pointer(unsafe.SliceData(x)))/4) & (lineFloats - 1)
}

// ptr is the address of s[i], for the micro-kernels. i may be len(s), which is
// an address that nothing is read from.
func ptr(s []float32, i int) *float32 {
	return (*float32)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(s)), i*4))
}
