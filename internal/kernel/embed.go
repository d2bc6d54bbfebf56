package kernel

// embedJob looks rows up in the embedding tables, or adds gradients into them.
type embedJob struct {
	cpu           *CPU
	back          bool
	y, wte, wpe   []float32 // backward: dy, dwte, dwpe
	ids           []int32
	seqLen, width int
	drop          Dropout
	step          int // rows (forward) or columns (backward) in a part
}

// EmbedForward computes y[r] = dropout(wte[ids[r]] + wpe[r%seqLen]), y being
// [len(ids),width], wte [vocab,width] and wpe [positions,width].
func (c *CPU) EmbedForward(y []float32, ids []int32, wte, wpe []float32, seqLen, width int, d Dropout) {
	if width <= 0 {
		return
	}
	step := max(1, partFloats/width)
	c.embedJob = embedJob{c, false, y, wte, wpe, ids, seqLen, width, d, step}
	c.pool.run((len(ids)+step-1)/step, &c.embedJob)
	c.embedJob = embedJob{}
}

// EmbedBackward adds dy, through the same dropout, to the rows of dwte and dwpe
// that were looked up, in the order of the rows. A nil dwte or dwpe is not wanted.
func (c *CPU) EmbedBackward(dwte, dwpe, dy []float32, ids []int32, seqLen, width int, d Dropout) {
	if width <= 0 {
		return
	}
	// Rows repeat, so the threads share the columns out, as many parts for each.
	parts := c.Threads() * max(1, min(4, width/(64*c.Threads())))
	step := roundUp((width+parts-1)/parts, lineFloats)
	c.embedJob = embedJob{c, true, dy, dwte, dwpe, ids, seqLen, width, d, step}
	c.pool.run((width+step-1)/step, &c.embedJob)
	c.embedJob = embedJob{}
}

func (j *embedJob) part(w *worker, i int) {
	v := &j.cpu.isa.vectors
	if !j.back {
		for r := i * j.step; r < min((i+1)*j.step, len(j.ids)); r++ {
			y := j.y[r*j.width:][:j.width]
			copy(y, j.wte[int(j.ids[r])*j.width:][:j.width])
			v.add(y, j.wpe[r%j.seqLen*j.width:][:j.width])
			if j.drop.P > 0 {
				v.drop(y, y, j.drop.row(r), 0)
			}
		}
		return
	}
	lo := i * j.step
	n := min(j.step, j.width-lo)
	for r, id := range j.ids {
		dy := j.y[r*j.width+lo:][:n]
		if j.drop.P > 0 {
			masked := w.row.get(n)
			v.drop(masked, dy, j.drop.row(r), lo)
			dy = masked
		}
		if j.wte != nil {
			v.add(j.wte[int(id)*j.width+lo:][:n], dy)
		}
		if j.wpe != nil {
			v.add(j.wpe[r%j.seqLen*j.width+lo:][:n], dy)
		}
	}
}
