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

// attnRows is how many queries are handled at a time: scores exist only as a
// strip [attnRows, keys seen]. The sum over values is cut at multiples of
// attnCut, so that a row does not depend on how many follow it.
const (
	attnRows = 96
	attnCut  = 192
)

// attnJob runs Attention; a part is one head of one sequence.
type attnJob struct {
	Attention
	cpu        *CPU
	back       bool
	dqkv, dout []float32
	width      int     // Heads*HeadDim
	scale      float32 // 1/√HeadDim
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
	j.cpu, j.width = c, j.Heads*j.HeadDim
	j.scale = float32(1 / math.Sqrt(float64(j.HeadDim)))
	c.attnJob = j
	c.pool.run(j.Batch*j.Heads, &c.attnJob)
	c.attnJob = attnJob{}
}

func (j *attnJob) part(w *worker, i int) {
	if j.back {
		clearColumns(j.dqkv, i/j.Heads*j.SeqLen, j.SeqLen, 3*j.width, j.width+i%j.Heads*j.HeadDim, j.HeadDim)
		clearColumns(j.dqkv, i/j.Heads*j.SeqLen, j.SeqLen, 3*j.width, 2*j.width+i%j.Heads*j.HeadDim, j.HeadDim)
	}
	for q := 0; q < j.SeqLen; q += attnRows {
		s := strip{j, w, i, q, min(attnRows, j.SeqLen-q)}
		if j.back {
			s.backward()
		} else {
			s.forward()
		}
	}
}

func clearColumns(x []float32, row, rows, ld, col, cols int) {
	for r := row; r < row+rows; r++ {
		clear(x[r*ld+col:][:cols])
	}
}

// strip is m queries of one head, from position q, against keys [0, q+m).
type strip struct {
	*attnJob
	w    *worker
	head int // sequence*Heads + head
	q, m int
}

func (s *strip) keys() int { return s.q + s.m }

// at is where row i (position in the sequence) of this head begins in a matrix
// [rows, parts*width], in its given part.
func (s *strip) at(i, part, parts int) int {
	seq, h := s.head/s.Heads, s.head%s.Heads
	return (seq*s.SeqLen+i)*parts*s.width + part*s.width + h*s.HeadDim
}

func (s *strip) qkv(i, part int) []float32 { return s.QKV[s.at(i, part, 3):] }

// scores computes dst[m, keys] = X·Yᵀ, the rows of both being HeadDim long.
func (s *strip) scores(dst, x []float32, ldx int, y []float32) {
	s.w.gemm(s.cpu, &Gemm{
		M: s.m, N: s.keys(), K: s.HeadDim, TransB: true,
		A: x, LDA: ldx, B: y, LDB: 3 * s.width, C: dst, BF16: s.BF16,
	})
}

func (s *strip) dropRow(i int) dropRow {
	seq0 := 0
	if s.SeqLen > 0 {
		seq0 = s.Dropout.Row0 / s.SeqLen
	}
	d := s.Dropout
	d.Row0 = 0
	return d.row((seq0*s.Heads+s.head)*s.SeqLen + i)
}

func (s *strip) forward() {
	v, n := &s.cpu.isa.vectors, s.keys()
	p := s.w.s.get(s.m * n)
	s.scores(p, s.qkv(s.q, 0), 3*s.width, s.qkv(0, 1))
	for r := range s.m {
		i := s.q + r
		row := p[r*n:][:i+1]
		top := s.scale * v.maximum(row)
		sum := v.exp(row, row, s.scale, -top)
		s.LSE[s.head*s.SeqLen+i] = top + float32(math.Log(float64(sum)))
		v.scale(row, row, 1/sum)
		if s.Dropout.P > 0 {
			v.drop(row, row, s.dropRow(i), 0)
		}
		clear(p[r*n+i+1 : (r+1)*n])
	}
	s.w.gemm(s.cpu, &Gemm{
		M: s.m, N: s.HeadDim, K: n, A: p, B: s.qkv(0, 2), LDB: 3 * s.width,
		C: s.Out[s.at(s.q, 0, 1):], LDC: s.width, BF16: s.BF16, KBlock: attnCut,
	})
}

// backward follows the softmax's gradient: with P the probabilities after
// dropout, dV = Pᵀ·dO, dP = dO·Vᵀ, and dS = P∘(dP-D) where D is the row sum of
// dO∘O (Dao et al., FlashAttention, 2022).
func (s *strip) backward() {
	v, n := &s.cpu.isa.vectors, s.keys()
	p, ds := s.w.s.get(s.m*n), s.w.ds.get(s.m*n)
	dout := s.dout[s.at(s.q, 0, 1):]
	s.scores(p, s.qkv(s.q, 0), 3*s.width, s.qkv(0, 1))
	s.scores(ds, dout, s.width, s.qkv(0, 2))
	for r := range s.m {
		i := s.q + r
		row, drow := p[r*n:][:i+1], ds[r*n:][:i+1]
		d := v.dot(s.dout[s.at(i, 0, 1):][:s.HeadDim], s.Out[s.at(i, 0, 1):][:s.HeadDim])
		v.exp(row, row, s.scale, -s.LSE[s.head*s.SeqLen+i])
		if s.Dropout.P > 0 {
			drop := s.dropRow(i)
			v.drop(drow, drow, drop, 0)
			v.softDiff(drow, drow, row, d, s.scale)
			v.drop(row, row, drop, 0)
		} else {
			v.softDiff(drow, drow, row, d, s.scale)
		}
		clear(p[r*n+i+1 : (r+1)*n])
		clear(ds[r*n+i+1 : (r+1)*n])
	}
	ld := 3 * s.width
	s.w.gemm(s.cpu, &Gemm{
		M: n, N: s.HeadDim, K: s.m, TransA: true, Accumulate: true, A: p, B: dout, LDB: s.width,
		C: s.dqkv[s.at(0, 2, 3):], LDC: ld, BF16: s.BF16,
	})
	s.w.gemm(s.cpu, &Gemm{
		M: n, N: s.HeadDim, K: s.m, TransA: true, Accumulate: true, A: ds, B: s.qkv(s.q, 0), LDB: ld,
		C: s.dqkv[s.at(0, 1, 3):], LDC: ld, BF16: s.BF16,
	})
	s.w.gemm(s.cpu, &Gemm{
		M: s.m, N: s.HeadDim, K: n, A: ds, B: s.qkv(0, 1), LDB: ld,
		C: s.dqkv[s.at(s.q, 0, 3):], LDC: ld, BF16: s.BF16,
	})
}
