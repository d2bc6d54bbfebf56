package kernel

import "math"

// Head is the language-model head with its loss: logits = H·Wᵀ, and for each
// row the cross-entropy of its softmax against a target. The logits exist only
// for a chunk of rows at a time.
type Head struct {
	Rows, Width, Vocab, SeqLen int

	H       []float32 // [Rows,Width]
	W       []float32 // [Vocab,Width]
	Targets []int32   // [Rows]; -1: the row has no target, its loss is 0
	Scale   float32   // of the gradient, which is that of Scale*sum(losses)
	Smooth  float32   // label smoothing: the share of the target that all tokens divide among them
	Fresh   bool      // the gradient of W is overwritten, not added to
	BF16    bool      // as in Gemm

	// Logits is memory for those of a chunk, [HeadRows(Rows, SeqLen), Vocab]; nil:
	// the CPU's own.
	Logits []float32
}

// headRows is the most rows in a chunk. Chunks of long sequences begin anew
// with each sequence and short sequences are not cut, so that sums do not
// depend on the batch.
const headRows = 512

// HeadRows is the number of rows in the largest chunk.
func HeadRows(rows, seqLen int) int {
	return min(rows, headRows, max(1, headRows/max(1, seqLen))*max(1, seqLen))
}

// HeadLoss computes losses[r] = -log softmax(H·Wᵀ)[r, Targets[r]].
func (c *CPU) HeadLoss(h *Head, losses []float32) {
	h.chunks(func(lo, hi int) { c.headChunk(h, losses, lo, hi, false, false) })
}

// HeadLossGrad computes the losses, adds the gradient of W to dw [Vocab,Width],
// and overwrites dh [Rows,Width], which may be H; a nil dh or dw is not wanted.
func (c *CPU) HeadLossGrad(h *Head, losses, dh, dw []float32) {
	halves := h.BF16 && c.isa.halve != nil
	h.chunks(func(lo, hi int) {
		d := c.headChunk(h, losses, lo, hi, true, halves)
		if dw != nil {
			c.Gemm(&Gemm{
				M: h.Vocab, N: h.Width, K: hi - lo, TransA: true, Accumulate: lo > 0 || !h.Fresh, KBlock: h.SeqLen,
				A: d, B: h.H[lo*h.Width:], C: dw, BF16: h.BF16, halves: halves,
			})
		}
		if dh != nil {
			c.Gemm(&Gemm{
				M: hi - lo, N: h.Width, K: h.Vocab, A: d, B: h.W, C: dh[lo*h.Width:], BF16: h.BF16, halves: halves,
			})
		}
	})
}

// chunks calls f for each chunk of rows.
func (h *Head) chunks(f func(lo, hi int)) {
	whole := max(1, headRows/max(1, h.SeqLen)) * h.SeqLen // sequences that fit a chunk
	for lo := 0; lo < h.Rows; lo += whole {
		end := min(lo+whole, h.Rows)
		for from := lo; from < end; from += headRows {
			f(from, min(from+headRows, end))
		}
	}
}

// headJob turns logits into losses and, in place, gradients.
type headJob struct {
	Head
	cpu            *CPU
	logits, losses []float32
	lo             int
	grad, halves   bool // the gradient is wanted, in bf16 (isa.halve)
}

// headChunk does rows [lo,hi) and returns the logits' gradient, as bf16 if halves
// are wanted, or the unnormalised probabilities if no gradient is.
func (c *CPU) headChunk(h *Head, losses []float32, lo, hi int, grad, halves bool) []float32 {
	logits := h.Logits
	if logits == nil {
		logits = c.chunk.get((hi - lo) * h.Vocab)
	}
	logits = logits[:(hi-lo)*h.Vocab]
	c.Gemm(&Gemm{M: hi - lo, N: h.Vocab, K: h.Width, TransB: true, A: h.H[lo*h.Width:], B: h.W, C: logits, BF16: h.BF16})
	c.headJob = headJob{*h, c, logits, losses, lo, grad, halves}
	c.pool.run(hi-lo, &c.headJob)
	c.headJob = headJob{}
	return logits
}

func (j *headJob) part(_ *worker, i int) {
	v, row, target := &j.cpu.isa.vectors, j.logits[i*j.Vocab:][:j.Vocab], j.Targets[j.lo+i]
	if target < 0 {
		j.losses[j.lo+i] = 0
		if j.grad {
			clear(row)
		}
		return
	}
	top, logit := v.maximum(row), row[target]
	if j.Smooth > 0 {
		logit += j.Smooth * (mean(row) - logit) // of the smoothed target
	}
	sum := v.exp(row, row, 1, -top)
	j.losses[j.lo+i] = top + float32(math.Log(float64(sum))) - logit
	if !j.grad {
		return
	}
	scale := j.Scale / sum
	at := float32(row[target]*scale) - (1-j.Smooth)*j.Scale
	if j.halves && j.Smooth == 0 { // in one pass
		j.cpu.isa.halve(row, scale)
		asHalves(row)[target] = uint16(bf16Bits(at))
		return
	}
	v.scale(row, row, scale)
	row[target] = at
	if j.Smooth > 0 {
		share := j.Smooth * j.Scale / float32(j.Vocab)
		for k := range row {
			row[k] -= share
		}
	}
	if j.halves {
		j.cpu.isa.halve(row, 1)
	}
}

// mean is the mean of a row of logits.
func mean(row []float32) float32 {
	var s [4]float64 // apart, so that the additions need not wait for each other
	n := float64(len(row))
	for len(row) >= 4 {
		s[0] += float64(row[0])
		s[1] += float64(row[1])
		s[2] += float64(row[2])
		s[3] += float64(row[3])
		row = row[4:]
	}
	for i, x := range row {
		s[i] += float64(x)
	}
	return float32((s[0] + s[1] + s[2] + s[3]) / n)
}
