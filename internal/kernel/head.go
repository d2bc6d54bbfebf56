package kernel

import (
	"math"
	"slices"

	"promptgen/internal/half"
)

// Head is the language-model head with its loss: logits = H·Wᵀ, and for each
// row the cross-entropy of its softmax against a target. Logits exist only for
// the columns that a thread has at hand; of a chunk of rows, the exponentials
// are kept until they have become gradients.
type Head struct {
	Rows, Width, Vocab, SeqLen int

	H       []float32 // [Rows,Width]
	W       []float32 // [Vocab,Width]
	Targets []int32   // [Rows]; -1: the row has no target, its loss is 0
	Scale   float32   // of the gradient, which is that of Scale*sum(losses)
	Smooth  float32   // label smoothing: the share of the target that all tokens divide among them
	Fresh   bool      // the gradient of W is overwritten, not added to
	BF16    bool      // as in Gemm

	// Mem is memory for a chunk, as much as Floats says; nil: the CPU's own.
	Mem []float32
}

// headRows is the most rows in a chunk whose exponentials are fp32; of bf16,
// twice as many take the same memory. Chunks of long sequences begin anew with
// each sequence and short sequences are not cut, so that sums do not depend on
// the batch.
const headRows = 512

// Floats is the size of Mem: for the losses, or for the gradients too.
func (h *Head) Floats(gradients bool) int {
	if h.BF16 {
		return max(h.floats(gradients, true), h.floats(gradients, false))
	}
	return h.floats(gradients, false)
}

func (h *Head) floats(gradients, panels bool) int {
	_, n := h.chunk(h.mostRows(panels), gradients, panels)
	return n + lineFloats
}

// mostRows is the number of rows in the largest chunk.
func (h *Head) mostRows(panels bool) int {
	limit, seqLen := headRows, max(1, h.SeqLen)
	if panels {
		limit *= 2
	}
	return min(h.Rows, limit, max(1, limit/seqLen)*seqLen)
}

// chunks calls f for each chunk of rows.
func (h *Head) chunks(panels bool, f func(lo, hi int)) {
	rows := h.mostRows(panels)
	whole := max(rows, h.SeqLen) // sequences that fit a chunk, or the one that does not
	for lo := 0; lo < h.Rows; lo += whole {
		end := min(lo+whole, h.Rows)
		for from := lo; from < end; from += rows {
			f(from, min(from+rows, end))
		}
	}
}

// headMem is the memory for a chunk of rows.
type headMem struct {
	exps   int // [rows, ld]
	ld     int // floats between rows, or slots of a panel
	scaled int // [rows, Width]
	shift  int // [rows], as are the next two
	target int
	factor int
	sums   int // [rows, groups], as are the totals
	totals int
}

// chunk says where things lie in the memory for a chunk, and its size.
func (h *Head) chunk(rows int, gradients, panels bool) (headMem, int) {
	var m headMem
	n := 0
	take := func(at *int, floats int) {
		*at = n
		n += floats
	}
	if gradients {
		if panels {
			m.ld = panelSlots(rows)
			take(&m.exps, panelFloats(m.ld, h.Vocab))
		} else {
			m.ld = expsBetween(h.Vocab)
			take(&m.exps, rows*m.ld)
		}
		take(&m.scaled, rows*h.Width)
	}
	whole := roundUp(rows, panelRows)
	take(&m.shift, whole)
	take(&m.target, rows)
	take(&m.factor, rows)
	take(&m.sums, whole*softGroups(h.Vocab))
	take(&m.totals, rows*softGroups(h.Vocab))
	return m, n
}

// expsBetween is the floats from a row of exponentials to the next: whole cache
// lines, which a row does not share with its neighbours, and an odd number of
// them, so that the rows of a panel do not compete for the same few sets of a
// cache.
func expsBetween(vocab int) int {
	return roundUp(vocab, lineFloats) | lineFloats
}

// HeadLoss computes losses[r] = -log softmax(H·Wᵀ)[r, Targets[r]].
func (c *CPU) HeadLoss(h *Head, losses []float32) {
	h.chunks(false, func(lo, hi int) { c.headChunk(h, losses, lo, hi, false, false) })
	c.headJob = headJob{}
}

// HeadLossGrad computes the losses, adds the gradient of W to dw [Vocab,Width],
// and overwrites dh [Rows,Width], which may be H; a nil dh or dw is not wanted.
//
// Of a row whose exponentials are e and their sum s, the logits' gradient is
// Scale/s·(e - s·target). The first factor goes to H for one product and to the
// result of the other, so that e can be left as it was stored.
func (c *CPU) HeadLossGrad(h *Head, losses, dh, dw []float32) {
	// Smoothing is taken off e, whose last bits count.
	panels := h.BF16 && c.isa.expPanels != nil && h.Smooth == 0 && h.SeqLen%2 == 0 && h.Rows%2 == 0
	h.chunks(panels, func(lo, hi int) {
		j := c.headChunk(h, losses, lo, hi, true, panels)
		if dw != nil {
			c.Gemm(&Gemm{
				M: h.Vocab, N: h.Width, K: hi - lo, TransA: true, Accumulate: lo > 0 || !h.Fresh, KBlock: h.SeqLen,
				A: j.soft.out, LDA: j.soft.ld, B: j.scaled, C: dw, BF16: h.BF16, expPanels: panels,
			})
		}
		if dh != nil {
			c.Gemm(&Gemm{
				M: hi - lo, N: h.Width, K: h.Vocab, A: j.soft.out, LDA: j.soft.ld, B: h.W, C: dh[lo*h.Width:],
				BF16: h.BF16, expPanels: panels, rowScale: j.factor,
			})
		}
	})
	c.headJob = headJob{}
}

// headJob is a chunk of rows on its way.
type headJob struct {
	Head   // of the chunk's rows
	cpu    *CPU
	losses []float32
	soft   softRows
	scaled []float32 // [Rows,Width] Scale/sum·H; nil: no gradient is wanted
	factor []float32 // [Rows] Scale/sum
	shifts bool      // these are to be found, by the dot product of each row with its target
}

// headChunk does rows [lo,hi): the losses and what is needed for the gradients.
func (c *CPU) headChunk(h *Head, losses []float32, lo, hi int, gradients, panels bool) *headJob {
	j := &c.headJob
	j.prepare(c, h, losses, lo, hi, gradients, panels)
	j.shifts = true
	c.pool.run(j.Rows, j)
	j.shifts = false
	j.multiply()
	c.pool.run(j.Rows, j)
	if slices.Contains(j.factor, overflown) {
		j.soft.maxima = true
		j.multiply()
		j.shiftByMaxima()
		j.soft.maxima = false
		j.multiply()
		c.pool.run(j.Rows, j)
	}
	return j
}

func (j *headJob) prepare(c *CPU, h *Head, losses []float32, lo, hi int, gradients, panels bool) {
	*j = headJob{Head: *h, cpu: c, losses: losses[lo:hi]}
	j.Rows, j.H, j.Targets = hi-lo, h.H[lo*h.Width:hi*h.Width], h.Targets[lo:hi]
	at, n := h.chunk(j.Rows, gradients, panels)
	mem := h.Mem
	if mem == nil {
		mem = c.chunk.get(n + lineFloats)
	}
	mem = mem[toLine(mem):][:n]
	groups := softGroups(j.Vocab)
	j.soft = softRows{
		panels: panels, targets: j.Targets, groups: groups,
		shift: mem[at.shift:at.target], target: mem[at.target:][:j.Rows], sums: mem[at.sums:at.totals],
	}
	if j.Smooth > 0 {
		j.soft.totals = mem[at.totals:][:j.Rows*groups]
	}
	j.factor = mem[at.factor:][:j.Rows]
	if gradients {
		j.soft.out, j.soft.ld, j.scaled = mem[at.exps:at.scaled], at.ld, mem[at.scaled:][:j.Rows*j.Width]
	}
}

// multiply computes the logits' exponentials and sums.
func (j *headJob) multiply() {
	j.cpu.Gemm(&Gemm{M: j.Rows, N: j.Vocab, K: j.Width, TransB: true, A: j.H, B: j.W, BF16: j.BF16, soft: &j.soft})
}

// mostSum is a sum from which on its row is shifted by its largest logit instead
// of its target's: a loss of 46 nats. A sum far below 1, which the target alone
// gives, is of logits so large that those of rounded operands lie far from the
// target's own, which is computed from what is not rounded.
const (
	mostSum  = 1e20
	leastSum = 1 / mostSum
)

// overflown marks a row beyond them in place of its factor.
const overflown = math.MaxFloat32

// shiftByMaxima shifts the marked rows by their largest logit, and no others: what
// a row gives must not depend on its neighbours.
func (j *headJob) shiftByMaxima() {
	for i := range j.Rows {
		if j.factor[i] != overflown {
			continue
		}
		top := float32(math.Inf(-1))
		for _, x := range j.soft.sums[i*j.soft.groups:][:j.soft.groups] {
			top = max(top, x)
		}
		j.soft.shift[i] = top
	}
}

// sum adds up the groups of row i.
func (j *headJob) sum(groups []float32, i int) float64 {
	sum := 0.0
	for _, x := range groups[i*j.soft.groups:][:j.soft.groups] {
		sum += float64(x)
	}
	return sum
}

func (j *headJob) part(_ *worker, i int) {
	h, target := j.H[i*j.Width:][:j.Width], int(j.Targets[i])
	switch {
	case j.shifts && target < 0:
		j.soft.shift[i] = float32(math.Inf(1)) // leaves nothing of the row
	case j.shifts:
		j.soft.shift[i] = j.cpu.isa.dot(h, j.W[target*j.Width:][:j.Width])
	case target < 0:
		j.losses[i], j.factor[i] = 0, 0
		if j.scaled != nil {
			clear(j.scaled[i*j.Width:][:j.Width])
		}
	default:
		j.finish(i, h, target)
	}
}

// finish computes the loss of row i and makes of its exponentials the gradient
// but for its factor.
func (j *headJob) finish(i int, h []float32, target int) {
	sum, shift, logit := j.sum(j.soft.sums, i), float64(j.soft.shift[i]), float64(j.soft.target[i])
	if sum >= mostSum || sum <= leastSum {
		j.factor[i] = overflown
		return
	}
	j.factor[i] = float32(float64(j.Scale) / sum)
	smooth, of := float64(j.Smooth), logit
	if smooth > 0 { // of the smoothed target
		of += smooth * (j.sum(j.soft.totals, i)/float64(j.Vocab) - logit)
	}
	j.losses[i] = float32(max(0, shift-of+math.Log(sum)))
	if j.scaled == nil {
		return
	}
	j.cpu.isa.scale(j.scaled[i*j.Width:][:j.Width], h, j.factor[i])
	at := float32(math.Exp(logit-shift) - (1-smooth)*sum)
	if j.soft.panels {
		asBF16(j.soft.out)[bf16At(j.soft.ld, i, target)] = half.ToBF16(at)
		return
	}
	row := j.soft.out[i*j.soft.ld:][:j.soft.ld]
	row[target] = at
	if smooth > 0 {
		share := float32(smooth * sum / float64(j.Vocab))
		for k := range row[:j.Vocab] {
			row[k] -= share
		}
	}
}
