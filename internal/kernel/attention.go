package kernel

import "math"

// Attention is causal self-attention with several heads over a batch of
// sequences: for each head, softmax(Q·Kᵀ/√HeadDim)·V, where token i sees tokens
// 0…i.
type Attention struct {
	Batch, SeqLen, Heads, HeadDim int

	QKV []float32 // [Batch*SeqLen, 3*Heads*HeadDim]: queries, keys, values
	Out []float32 // [Batch*SeqLen, Heads*HeadDim]
	LSE []float32 // [Batch*Heads*SeqLen]: log of the softmax's denominator, kept for the backward pass

	// Dropout falls on the probabilities. Its rows are counted
	// ((Seq0+seq)*Heads+head)*SeqLen+i, its columns are j; Row0 is Seq0*SeqLen.
	Dropout Dropout
	BF16    bool // as in Gemm
}

// attnJob runs Attention; a part is one head of one sequence.
type attnJob struct {
	Attention
	cpu        *CPU
	code       *attnCode
	back       bool
	dqkv, dout []float32
	width      int     // Heads*HeadDim
	scale      float32 // 1/√HeadDim
	seq0       int     // number of the first sequence in the effective batch
}

// AttentionForward computes Out and LSE.
func (c *CPU) AttentionForward(a *Attention) { c.attention(attnJob{Attention: *a}) }

// AttentionBackward computes dqkv, the gradient with respect to QKV, from dout,
// that of Out. The probabilities are computed again from QKV and LSE. dqkv is
// overwritten.
func (c *CPU) AttentionBackward(a *Attention, dqkv, dout []float32) {
	c.attention(attnJob{Attention: *a, back: true, dqkv: dqkv, dout: dout})
}

func (c *CPU) attention(j attnJob) {
	j.width = j.Heads * j.HeadDim
	rows := j.Batch * j.SeqLen
	if rows <= 0 || j.width <= 0 {
		return
	}
	j.cpu, j.code = c, &c.isa.attn
	if j.BF16 {
		j.code = &c.isa.attnBF16
	}
	j.scale = float32(1 / math.Sqrt(float64(j.HeadDim)))
	j.seq0 = j.Dropout.Row0 / j.SeqLen
	// the kernels would not notice a slice that is too short
	j.QKV, j.Out, j.LSE = j.QKV[:3*rows*j.width], j.Out[:rows*j.width], j.LSE[:rows*j.Heads]
	if j.back {
		j.dqkv, j.dout = j.dqkv[:3*rows*j.width], j.dout[:rows*j.width]
	}
	c.attnJob = j
	c.pool.run(j.Batch*j.Heads, &c.attnJob)
	c.attnJob = attnJob{}
}

func (j *attnJob) part(w *worker, i int) {
	h := &w.attn
	h.prepare(j, i)
	for q := 0; q < j.SeqLen; q += j.code.block {
		h.query(q)
		if j.back {
			h.backward()
		} else {
			h.forward()
		}
	}
	if j.back {
		h.store(h.dk, 0, j.SeqLen, 1)
		h.store(h.dv, 0, j.SeqLen, 2)
	}
	h.attnJob = nil
}

// attentionScratch is how many floats of memory each thread keeps for attention
// over sequences and heads of these sizes, whatever the instruction set.
func attentionScratch(seqLen, headDim int, back bool) int {
	most := 0
	for _, shape := range []attnCode{
		{block: attnGoBlock, tile: tile{nr: attnGoLanes}, grain: attnGoLanes},
		{block: 48, tile: tile{nr: 16}, grain: 16}, {block: 64, tile: tile{nr: 32}, grain: 16},
	} {
		var h attnHead
		most = max(most, h.layout(nil, attnLayout{seqLen, headDim, shape.ld(headDim), shape.block, back, true}))
	}
	return most
}
