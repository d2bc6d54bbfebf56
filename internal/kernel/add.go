package kernel

// callFloats bounds the time that one call of a vector loop keeps the scheduler
// from its thread.
const callFloats = 1 << 16

// Add adds x to dst, which has the same length. It computes on the calling
// thread alone and keeps nothing in the CPU: other than the rest it may be
// called while another goroutine uses the CPU.
func (c *CPU) Add(dst, x []float32) {
	for len(dst) > 0 {
		n := min(len(dst), callFloats)
		c.isa.add(dst[:n], x[:n])
		dst, x = dst[n:], x[n:]
	}
}
