package kernel

import "math"

// What sampling asks of a row of logits. These run on the calling goroutine
// alone and use nothing of c but its instruction set, so that the rows of
// several sequences can be done at the same time.

// LogitBlock is the number of logits that share one maximum or sum.
const LogitBlock = 64

// BlockMaxima sets maxima[i] to the largest of x[64i:64i+64] (the last block may
// be shorter) and returns the largest of all; -Inf of none. NaNs are not
// noticed.
func (c *CPU) BlockMaxima(maxima, x []float32) float32 {
	top := float32(math.Inf(-1))
	for i := range maxima {
		m := c.isa.maximum(x[i*LogitBlock : min((i+1)*LogitBlock, len(x))])
		maxima[i] = m
		if m > top {
			top = m
		}
	}
	return top
}

// BlockExp sets y to exp(scale*x+off) and sums[i] to the sum of the i-th block
// of y, and returns the sum of all. y may be x.
func (c *CPU) BlockExp(y, sums, x []float32, scale, off float32) float64 {
	total := 0.0
	for i := range sums {
		lo, hi := i*LogitBlock, min((i+1)*LogitBlock, len(x))
		s := c.isa.exp(y[lo:hi], x[lo:hi], scale, off)
		sums[i] = s
		total += float64(s)
	}
	return total
}

// LogitBlocks is the number of blocks of n logits.
func LogitBlocks(n int) int { return (n + LogitBlock - 1) / LogitBlock }
