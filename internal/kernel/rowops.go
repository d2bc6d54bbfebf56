package kernel

// What decoding asks of single rows. The Row functions run on the calling
// goroutine and use nothing of c but its instruction set, so that several rows
// can be done at the same time.

// RowNorm is LayerNorm of one row: y = (x-mean)/√(variance+eps)*gain+bias, all of
// one length. y may be x.
func (c *CPU) RowNorm(y, x, gain, bias []float32, eps float32) {
	mean, rstd := c.isa.normStat(x, eps)
	c.isa.norm(y, x, gain, bias, mean, rstd)
}

// RowAdd is y += x.
func (c *CPU) RowAdd(y, x []float32) { c.isa.add(y, x) }

// RowRound rounds x to bf16.
func (c *CPU) RowRound(x []float32) { c.isa.round(x) }

// RowScale is y = a*x. y may be x.
func (c *CPU) RowScale(y, x []float32, a float32) {
	for len(x) > 0 {
		n := min(len(x), callFloats)
		c.isa.scale(y[:n], x[:n], a)
		y, x = y[n:], x[n:]
	}
}

// RowAct is y = act(x). y may be x.
func (c *CPU) RowAct(y, x []float32, act Act) { c.isa.act(y, x, act) }

// RowExp sets y to exp(scale*(x-max x)), a softmax before its division, and
// returns the sum of y. y may be x. A NaN in x gives NaNs.
func (c *CPU) RowExp(y, x []float32, scale float32) float32 {
	return c.isa.exp(y, x, scale, -scale*c.isa.maximum(x))
}

// RowMax is the largest of x.
func (c *CPU) RowMax(x []float32) float32 { return c.isa.maximum(x) }

// RowFetch asks for x, which will be needed soon.
func (c *CPU) RowFetch(x []float32) { c.isa.fetch(x) }

// Turn sets dst [k, n] to x [n, k] transposed, whose rows are ld floats apart; with
// pairs, [(k+1)/2, n] to pairs of bf16 along k, as floats' bits.
func (c *CPU) Turn(dst, x []float32, ld, n, k int, pairs bool) {
	o := operand{x: x, ld: ld}
	switch t := &c.isa.bf16; {
	case !pairs:
		c.isa.packPanel(dst, n, o, 0, n, 0, k, &plainTile)
	case t.pairs:
		c.isa.packPanel(dst, n, o, 0, n, 0, k, t)
	default:
		packRest(dst, n, o, 0, n, 0, k, &pairsTile, 0)
	}
}

// Tiles as far as packing asks.
var plainTile, pairsTile = tile{}, tile{pairs: true}

// Each runs the n parts of f, handing them out one at a time, so that a slow
// core does fewer. worker is below Threads and no two parts with the same one
// run together.
func (c *CPU) Each(n int, f func(worker, part int)) {
	c.eachJob.f = f
	c.pool.run(n, &c.eachJob)
	c.eachJob.f = nil
}

type eachJob struct{ f func(worker, part int) }

func (j *eachJob) part(w *worker, i int) { j.f(w.id, i) }
