package kernel

// normJob is LayerNorm over [rows,width], forward or backward.
type normJob struct {
	cpu                 *CPU
	back                bool
	again               bool // forward, with the mean and rstd that are there
	y, x, gain, bias    []float32
	mean, rstd          []float32
	dx, dy              []float32
	partial             []float32 // [blocks][2*width]: sums for dgain and dbias
	rows, width, seqLen int
	eps                 float32
}

// LayerNormForward computes y = (x-mean)*rstd*gain+bias for each row of
// [rows,width] and keeps mean and rstd = 1/√(variance+eps), both [rows], for the
// backward pass. y may be x.
func (c *CPU) LayerNormForward(y, mean, rstd, x, gain, bias []float32, rows, width int, eps float32) {
	if rows <= 0 || width <= 0 {
		return
	}
	c.normJob = normJob{cpu: c, y: y, x: x, gain: gain, bias: bias, mean: mean, rstd: rstd, rows: rows, width: width, seqLen: rows, eps: eps}
	c.pool.run((rows+rowBlock-1)/rowBlock, &c.normJob)
	c.normJob = normJob{}
}

// LayerNormAgain computes the y of LayerNormForward once more, to the bit, from
// the mean and rstd that it kept.
func (c *CPU) LayerNormAgain(y, mean, rstd, x, gain, bias []float32, rows, width int) {
	if rows <= 0 || width <= 0 {
		return
	}
	c.normJob = normJob{cpu: c, again: true, y: y, x: x, gain: gain, bias: bias, mean: mean, rstd: rstd, rows: rows, width: width, seqLen: rows}
	c.pool.run((rows+rowBlock-1)/rowBlock, &c.normJob)
	c.normJob = normJob{}
}

// LayerNormBackward adds the gradients to dx [rows,width], dgain and dbias
// [width], given dy and what the forward pass kept. A nil dgain or dbias is not
// wanted.
func (c *CPU) LayerNormBackward(dx, dgain, dbias, dy, x, mean, rstd, gain []float32, rows, width, seqLen int) {
	if rows <= 0 || width <= 0 {
		return
	}
	n := rowBlocks(rows, seqLen)
	partial := c.parts.get(n * 2 * width)
	c.normJob = normJob{
		cpu: c, back: true, dx: dx, dy: dy, x: x, gain: gain, mean: mean, rstd: rstd,
		partial: partial, rows: rows, width: width, seqLen: seqLen,
	}
	c.pool.run(n, &c.normJob)
	c.normJob = normJob{}
	for i := range n {
		if dgain != nil {
			c.isa.add(dgain[:width], partial[2*i*width:][:width])
		}
		if dbias != nil {
			c.isa.add(dbias[:width], partial[(2*i+1)*width:][:width])
		}
	}
}

func (j *normJob) part(_ *worker, i int) {
	v, w := &j.cpu.isa.vectors, j.width
	lo, hi := rowRange(i, j.rows, j.seqLen)
	if !j.back {
		for r := lo; r < hi; r++ {
			x := j.x[r*w:][:w]
			if !j.again {
				j.mean[r], j.rstd[r] = v.normStat(x, j.eps)
			}
			v.norm(j.y[r*w:][:w], x, j.gain[:w], j.bias[:w], j.mean[r], j.rstd[r])
		}
		return
	}
	dgain, dbias := j.partial[2*i*w:][:w], j.partial[(2*i+1)*w:][:w]
	clear(dgain)
	clear(dbias)
	for r := lo; r < hi; r++ {
		v.normBack(j.dx[r*w:][:w], dgain, dbias, j.dy[r*w:][:w], j.x[r*w:][:w], j.gain[:w], j.mean[r], j.rstd[r])
	}
}

// Sums over the rows of a batch are cut into blocks of at most rowBlock rows
// that begin anew with each sequence; the blocks' sums are added in order. They
// depend on neither threads nor batches.
const rowBlock = 32

// rowBlocks is the number of blocks.
func rowBlocks(rows, seqLen int) int {
	perSeq := (seqLen + rowBlock - 1) / rowBlock
	return rows/seqLen*perSeq + (rows%seqLen+rowBlock-1)/rowBlock
}

// rowRange is the rows [lo,hi) of block i.
func rowRange(i, rows, seqLen int) (lo, hi int) {
	perSeq := (seqLen + rowBlock - 1) / rowBlock
	seq, b := i/perSeq, i%perSeq
	lo = seq*seqLen + b*rowBlock
	return lo, min(lo+rowBlock, (seq+1)*seqLen, rows)
}

// colJob sums the columns of blocks of rows.
type colJob struct {
	cpu                 *CPU
	dy, partial         []float32
	rows, width, seqLen int
}

// BiasBackward adds the column sums of dy [rows,width] to db [width].
func (c *CPU) BiasBackward(db, dy []float32, rows, width, seqLen int) {
	if rows <= 0 || width <= 0 {
		return
	}
	n := rowBlocks(rows, seqLen)
	c.colJob = colJob{c, dy, c.parts.get(n * width), rows, width, seqLen}
	c.pool.run(n, &c.colJob)
	for i := range n {
		c.isa.add(db[:width], c.colJob.partial[i*width:][:width])
	}
	c.colJob = colJob{}
}

func (j *colJob) part(_ *worker, i int) {
	lo, hi := rowRange(i, j.rows, j.seqLen)
	sum := j.partial[i*j.width:][:j.width]
	copy(sum, j.dy[lo*j.width:])
	for r := lo + 1; r < hi; r++ {
		j.cpu.isa.add(sum, j.dy[r*j.width:][:j.width])
	}
}
