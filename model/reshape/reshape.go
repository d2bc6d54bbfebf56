// Package reshape carries the weights of a GPT-2 over to one of another shape:
// a smaller one that fits less memory, or one with another vocabulary or a
// longer context. What is carried is trained further, not fit to be used as it
// is; it begins far better than new weights do.
//
//	r, err := reshape.Make(src, smaller, tokens, nil)
//	r.Fill(dst, seed)
//	for _, line := range r.Notes() { … }
//
// What is kept, by the dimension that changes:
//
//	n_positions  fewer: the first rows of the position table; more: the rows of its
//	             second half again and again, which keep neighbours neighbours
//	n_layer      evenly spaced layers, the first and the last among them
//	n_head       in each layer the heads of largest weight norm
//	n_embd       the channels of the residual stream of largest weight norm, the same
//	             in every tensor; where heads become narrower, their dimensions of
//	             largest norm, by query and key and by value
//	n_inner      in each layer the hidden units of largest weight norm
//	vocabulary   the rows of the tokens that both have; a new token begins near the
//	             mean of those
package reshape

import (
	"fmt"
	"math"
	"slices"

	"promptgen/internal/fault"
	"promptgen/model"
)

// New is the index of what nothing is carried to.
const New int32 = -1

// Reshape is where every weight of a model comes from.
type Reshape struct {
	src    *model.Params
	from   model.Config
	to     model.Config
	letGo  func([]float32)
	tokens []int32 // [V'] the token's row in src, or New
	pos    []int32 // [P']
	ch     []int32 // [E']
	layers []layer // [L']
	anew   int     // tokens that are new
}

// layer is where the inside of a layer comes from.
type layer struct {
	index  int32
	qkv    []int32 // [3E'] columns of c_attn, New where heads are wider than they were
	heads  []int32 // [E'] rows of attn.c_proj
	hidden []int32 // [I'] hidden units
}

// Make finds where the weights of a model of config to come from in src.
// tokens gives for each token of to its id in src's vocabulary, or New; nil
// stands for the same vocabulary. letGo is told what of src is not needed for
// now (checkpoint.Model.LetGo); nil: nobody. A shape that cannot be made of
// src's is a usage fault that names all that is in the way.
func Make(src *model.Params, to model.Config, tokens []int32, letGo func([]float32)) (*Reshape, error) {
	if letGo == nil {
		letGo = func([]float32) {}
	}
	r := &Reshape{src: src, from: src.Config, to: to, letGo: letGo, tokens: tokens}
	if err := r.check(); err != nil {
		return nil, err
	}
	if tokens == nil {
		r.tokens = first(to.VocabSize)
	}
	for _, t := range r.tokens {
		if t == New {
			r.anew++
		}
	}
	r.pos = positions(r.from.NPositions, to.NPositions)
	r.ch = first(to.NEmbd)
	if to.NEmbd < r.from.NEmbd {
		r.ch = largest(r.channelNorms(), to.NEmbd)
	}
	for i := range to.NLayer {
		r.layers = append(r.layers, r.layer(spaced(i, to.NLayer, r.from.NLayer)))
	}
	return r, nil
}

func (r *Reshape) check() error {
	var l fault.List
	from, to := r.from, r.to
	grows := func(name string, was, now int) {
		if now > was {
			l.Addf("%s can be kept or lowered, not raised from %d to %d", name, was, now)
		}
	}
	grows("n_layer", from.NLayer, to.NLayer)
	grows("n_head", from.NHead, to.NHead)
	grows("n_embd", from.NEmbd, to.NEmbd)
	grows("n_inner", from.Inner(), to.Inner())
	if from.Act() != to.Act() {
		l.Addf("activation_function is %s, not %s", from.Act(), to.Act())
	}
	switch {
	case r.tokens == nil && from.VocabSize != to.VocabSize:
		l.Addf("the vocabulary has %d tokens, not %d, and which they are is not known", from.VocabSize, to.VocabSize)
	case r.tokens != nil && len(r.tokens) != to.VocabSize:
		l.Addf("%d tokens are given for a vocabulary of %d", len(r.tokens), to.VocabSize)
	case r.tokens != nil && !slices.ContainsFunc(r.tokens, func(t int32) bool { return t != New }):
		l.Addf("the two vocabularies have no token in common")
	}
	return l.Err("these weights")
}

// first is 0, 1, …, n-1: nothing moves.
func first(n int) []int32 {
	x := make([]int32, n)
	for i := range x {
		x[i] = int32(i)
	}
	return x
}

// positions continues a table of was rows to now rows with its second half.
func positions(was, now int) []int32 {
	x := first(now)
	half := (was + 1) / 2
	for i := was; i < now; i++ {
		x[i] = x[i-half]
	}
	return x
}

// spaced is layer i of n, out of was.
func spaced(i, n, was int) int {
	if n == 1 {
		return 0
	}
	return (2*i*(was-1) + n - 1) / (2 * (n - 1)) // rounded
}

// largest are the indices of the n largest norms, in ascending order.
func largest(norms []float64, n int) []int32 {
	order := first(len(norms))
	slices.SortStableFunc(order, func(a, b int32) int {
		switch {
		case norms[a] > norms[b]:
			return -1
		case norms[a] < norms[b]:
			return 1
		}
		return 0
	})
	order = order[:n]
	slices.Sort(order)
	return order
}

// channelNorms are the sums of the squares of all weights that read or write a
// channel of the residual stream; what reads it behind a LayerNorm counts with
// the gain there.
func (r *Reshape) channelNorms() []float64 {
	e := r.from.NEmbd
	norms := make([]float64, e)
	columns := func(w []float32) { // [any, e]: written to the stream, or a table
		for row := range slices.Chunk(w, e) {
			for c, v := range row {
				norms[c] += float64(v) * float64(v)
			}
		}
		r.letGo(w)
	}
	rows := func(w, gain []float32) { // [e, any]: read from it
		for c := range norms {
			norms[c] += float64(gain[c]) * float64(gain[c]) * squares(w[c*(len(w)/e):][:len(w)/e])
		}
		r.letGo(w)
	}
	columns(r.src.WTE)
	columns(r.src.WPE)
	for l := range r.src.Blocks {
		b := &r.src.Blocks[l]
		rows(b.AttnW, b.LN1Gain)
		columns(b.ProjW)
		rows(b.FcW, b.LN2Gain)
		columns(b.OutW)
	}
	if !r.src.HeadTied {
		columns(r.src.Head)
	}
	return norms
}

func squares(x []float32) (sum float64) {
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return sum
}

// columnSquares are the sums of squares of the columns of w [any, n], and of
// their biases.
func columnSquares(w, bias []float32) []float64 {
	sums := make([]float64, len(bias))
	for c, v := range bias {
		sums[c] = float64(v) * float64(v)
	}
	for row := range slices.Chunk(w, len(bias)) {
		for c, v := range row {
			sums[c] += float64(v) * float64(v)
		}
	}
	return sums
}

// layer chooses what of layer l of src is carried.
func (r *Reshape) layer(l int) layer {
	b := &r.src.Blocks[l]
	x := layer{index: int32(l), hidden: first(r.to.Inner())}
	if r.to.Inner() < r.from.Inner() {
		norms := columnSquares(b.FcW, b.FcB)
		for i := range norms {
			norms[i] += squares(b.OutW[i*r.from.NEmbd:][:r.from.NEmbd])
		}
		x.hidden = largest(norms, r.to.Inner())
		r.letGo(b.FcW)
		r.letGo(b.OutW)
	}
	e, e2 := r.from.NEmbd, r.to.NEmbd
	if r.from.NHead == r.to.NHead && e == e2 {
		x.qkv, x.heads = first(3*e), first(e)
		return x
	}
	dim, dim2 := r.from.HeadDim(), r.to.HeadDim()
	qk, v := columnSquares(b.AttnW, b.AttnB), make([]float64, e)
	for c := range v {
		v[c] = qk[2*e+c] + squares(b.ProjW[c*e:][:e])
		qk[c] += qk[e+c]
	}
	qk = qk[:e]
	r.letGo(b.AttnW)
	r.letGo(b.ProjW)
	norms := make([]float64, r.from.NHead)
	for c := range v {
		norms[c/dim] += qk[c] + v[c]
	}
	x.qkv, x.heads = make([]int32, 3*e2), make([]int32, e2)
	for i, h := range largest(norms, r.to.NHead) {
		at := int(h) * dim
		byQK := within(qk[at:at+dim], dim2, at)
		byV := within(v[at:at+dim], dim2, at)
		for d := range dim2 {
			to := i*dim2 + d
			x.qkv[to], x.qkv[e2+to], x.qkv[2*e2+to] = byQK[d], shift(byQK[d], e), shift(byV[d], 2*e)
			x.heads[to] = byV[d]
		}
	}
	return x
}

// within chooses n of a head's dimensions, whose first is number at, by their
// norms; where there are more than it has, the last are New.
func within(norms []float64, n, at int) []int32 {
	x := largest(norms, min(n, len(norms)))
	for i := range x {
		x[i] += int32(at)
	}
	for len(x) < n {
		x = append(x, New)
	}
	return x
}

func shift(i int32, by int) int32 {
	if i == New {
		return New
	}
	return i + int32(by)
}

// Fill sets dst, parameters of the config that the reshape is for and a head
// tied as src's is. What is new is drawn as seed says.
func (r *Reshape) Fill(dst *model.Params, seed uint64) error {
	if dst.Config != r.to || dst.HeadTied != r.src.HeadTied {
		return fmt.Errorf("reshape: the parameters are not of the shape that was asked for")
	}
	if r.drawn() {
		dst.Init(seed)
	}
	s, e := r.src, r.from.NEmbd
	r.embed(dst.WTE, s.WTE)
	if !dst.HeadTied {
		r.embed(dst.Head, s.Head)
	}
	r.gather(dst.WPE, s.WPE, e, r.pos, r.ch)
	one := []int32{0}
	for i, x := range r.layers {
		d, b := &dst.Blocks[i], &s.Blocks[x.index]
		for _, v := range [][2][]float32{{d.LN1Gain, b.LN1Gain}, {d.LN1Bias, b.LN1Bias}, {d.LN2Gain, b.LN2Gain},
			{d.LN2Bias, b.LN2Bias}, {d.ProjB, b.ProjB}, {d.OutB, b.OutB}} {
			r.gather(v[0], v[1], e, one, r.ch)
		}
		r.gather(d.AttnW, b.AttnW, 3*e, r.ch, x.qkv)
		r.gather(d.AttnB, b.AttnB, 3*e, one, x.qkv)
		r.rescale(d)
		r.gather(d.ProjW, b.ProjW, e, x.heads, r.ch)
		r.gather(d.FcW, b.FcW, r.from.Inner(), r.ch, x.hidden)
		r.gather(d.FcB, b.FcB, r.from.Inner(), one, x.hidden)
		r.gather(d.OutW, b.OutW, e, x.hidden, r.ch)
	}
	r.gather(dst.LNFGain, s.LNFGain, e, one, r.ch)
	r.gather(dst.LNFBias, s.LNFBias, e, one, r.ch)
	return nil
}

// drawn tells that some weights are new.
func (r *Reshape) drawn() bool { return r.anew > 0 || r.to.HeadDim() > r.from.HeadDim() }

// gather copies rows and columns of src, whose rows are width long; what is New
// stays as it is in dst.
func (r *Reshape) gather(dst, src []float32, width int, rows, cols []int32) {
	for i, row := range rows {
		if row == New {
			continue
		}
		d, s := dst[i*len(cols):][:len(cols)], src[int(row)*width:][:width]
		for j, col := range cols {
			if col != New {
				d[j] = s[col]
			}
		}
	}
	r.letGo(src)
}

// embed carries a table of tokens. A new token is what was drawn for it, about
// the mean of those that are carried.
func (r *Reshape) embed(dst, src []float32) {
	width := len(r.ch)
	r.gather(dst, src, r.from.NEmbd, r.tokens, r.ch)
	if r.anew == 0 {
		return
	}
	mean := make([]float64, width)
	for i, t := range r.tokens {
		if t != New {
			for c, v := range dst[i*width:][:width] {
				mean[c] += float64(v)
			}
		}
	}
	for i, t := range r.tokens {
		if t == New {
			for c := range width {
				dst[i*width+c] += float32(mean[c] / float64(len(r.tokens)-r.anew))
			}
		}
	}
}

// rescale keeps the scores of heads whose width changes: they are divided by the
// root of the width.
func (r *Reshape) rescale(b *model.Block) {
	if r.to.HeadDim() == r.from.HeadDim() {
		return
	}
	scale := float32(math.Sqrt(float64(r.to.HeadDim()) / float64(r.from.HeadDim())))
	e := r.to.NEmbd
	for row := range slices.Chunk(b.AttnW, 3*e) {
		for c := range e {
			row[c] *= scale
		}
	}
	for c := range e {
		b.AttnB[c] *= scale
	}
}
