package kernel

// hugeMin is how many floats are worth asking for huge pages: 2 MiB, one page.
const hugeMin = 1 << 19

// Alloc returns n zeroed floats for tensors that live long. Large ones ask the
// system for huge pages: walking a matrix by columns, or four arrays at once as
// the optimizer does, misses the translation buffer at nearly every step
// otherwise, and first use faults 512 times as often.
func Alloc(n int) []float32 {
	x := make([]float32, n)
	if n >= hugeMin {
		adviseHuge(x)
	}
	return x
}
