package kernel

import (
	"math"

	"promptgen/internal/splitmix"
)

// Dropout sets elements of a [rows,width] matrix to zero with probability P and
// multiplies the others by 1/(1-P). Whether element (r, j) is kept is a
// function of Key, Row0+r and j alone: masks are computed again in the backward
// pass instead of being stored, and do not depend on batches, order or threads.
type Dropout struct {
	P    float32 // 0: off
	Key  uint64  // of the seed, the step and the place in the model
	Row0 int     // number of the first row among those of the effective batch
}

// draw is a stream of random bits, one word for each index: a function of the
// key and row that it was made from and of the index alone.
type draw struct{ a, b uint32 }

// drawOf mixes key and row.
func drawOf(key uint64, row int) draw {
	z := splitmix.Mix(key + uint64(int64(row)+1)*splitmix.Gamma)
	return draw{uint32(z), uint32(z >> 32)}
}

// bits is word j, by a 32-bit mixer (Wellons' lowbias32) that takes up one half
// of the stream's key before and one within.
func (d draw) bits(j int) uint32 {
	x := uint32(j) + d.a
	x = (x ^ x>>16) * 0x7feb352d
	x ^= d.b
	x = (x ^ x>>15) * 0x846ca68b
	return x ^ x>>16
}

// dropRow is Dropout for one row: element j is kept iff bits(j) >= below.
type dropRow struct {
	draw
	below uint32
	scale float32
}

func (d Dropout) row(r int) dropRow {
	below := math.Min(float64(d.P)*(1<<32), math.MaxUint32)
	return dropRow{drawOf(d.Key, d.Row0+r), uint32(below), 1 / (1 - d.P)}
}

func (d *dropRow) keeps(j int) bool { return d.bits(j) >= d.below }

// DropoutBackward computes dx = mask*dy over [rows,width], with the mask that
// the forward pass applied. dx may be dy. With P 0 it copies.
func (c *CPU) DropoutBackward(dx, dy []float32, rows, width int, d Dropout) {
	c.rows(vecJob{kind: vecDrop, x: dx, y: dy, width: width, drop: d}, rows)
}
