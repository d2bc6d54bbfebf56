package model

import "unsafe"

// Part says what a buffer is for; the sums by part are what a memory plan shows.
type Part string

// The parts of the memory that a Graph owns. Weights and the optimizer's
// moments belong to others.
const (
	Gradients   Part = "gradients"
	Activations Part = "activations" // kept from the forward pass for the backward pass
	Workspace   Part = "workspace"   // used within one operation
)

// Buffer is a row of the table of a graph's memory.
type Buffer struct {
	Name string
	Part Part
	Len  int // elements of 4 bytes (float32 or int32)

	floats []*[]float32 // what is laid over it
	ints   *[]int32
}

// align is the multiple of elements that every buffer starts at: a cache line.
const align = 16

// Recompute chooses what the forward pass keeps.
type Recompute uint8

const (
	// RecomputeOff keeps everything that the backward pass reads.
	RecomputeOff Recompute = iota
	// RecomputeSublayers keeps only the residual stream after each sublayer and
	// computes the inside of a sublayer again in its backward pass.
	RecomputeSublayers
)

// attnBuffers are the values inside an attention sublayer; rows are B*T.
type attnBuffers struct {
	mean, rstd []float32 // [rows] of the LayerNorm
	norm       []float32 // [rows, C] LN(x)
	qkv        []float32 // [rows, 3C]
	heads      []float32 // [rows, C] softmax(QK^T)V, heads side by side
	lse        []float32 // [B*H*T] log of the softmax's sums
	y          []float32 // [rows, C] the residual stream after the sublayer
}

// mlpBuffers are the values inside an MLP sublayer.
type mlpBuffers struct {
	mean, rstd []float32 // [rows]
	norm       []float32 // [rows, C] LN(x)
	pre        []float32 // [rows, I] before the activation
	act        []float32 // [rows, I] after it
	y          []float32 // [rows, C]
}

// buffers are all the memory of a Graph.
type buffers struct {
	grads  []float32 // the gradients of the parameters
	lookup []float32 // [slots, C] gradients of the token embedding's rows that were looked up

	ids, targets []int32 // [rows]
	slots        []int32 // [rows] ids as rows of lookup
	slotOf       []int32 // [V] 1 + the row of lookup of a token; 0: none yet
	slotID       []int32 // [slots] the token of a row of lookup

	embd       []float32 // [rows, C]
	attn       []attnBuffers
	mlp        []mlpBuffers
	mean, rstd []float32 // [rows] of the final LayerNorm
	norm       []float32 // [rows, C] its result
	losses     []float32 // [rows]

	dx     []float32 // [rows, C] the gradient of the residual stream, updated in place
	s1, s2 []float32 // [rows, C]
	wide   []float32 // [rows, max(3C, I)]
}

// Buffers is the table of everything that a graph with these options
// allocates, in the order in which it lies in memory.
func Buffers(c Config, untied bool, o GraphOptions) []Buffer {
	return new(buffers).table(c, untied, o.withDefaults())
}

// table lists every buffer, its size, and the fields that it is for. It is the
// only place that knows sizes: what NewGraph allocates and what a plan forecasts
// are this table.
func (b *buffers) table(c Config, untied bool, o GraphOptions) []Buffer {
	var t []Buffer
	rows, width, inner, vocab := o.Batch*o.SeqLen, c.NEmbd, c.Inner(), c.VocabSize
	add := func(p Part, name string, n int, dst ...*[]float32) {
		t = append(t, Buffer{Name: name, Part: p, Len: n, floats: dst})
	}
	addInts := func(p Part, name string, n int, dst *[]int32) {
		t = append(t, Buffer{Name: name, Part: p, Len: n, ints: dst})
	}
	// A value of every layer: one buffer each if it is kept until the backward
	// pass, else one for all of them.
	b.attn, b.mlp = make([]attnBuffers, c.NLayer), make([]mlpBuffers, c.NLayer)
	layers := func(kept bool, name string, n int, field func(l int) *[]float32) {
		all := make([]*[]float32, c.NLayer)
		for l := range all {
			all[l] = field(l)
		}
		if !kept {
			add(Workspace, name, n, all...)
			return
		}
		for _, dst := range all {
			add(Activations, name, n, dst)
		}
	}
	backward := !o.ForwardOnly
	inside := backward && o.Recompute == RecomputeOff

	if backward {
		n := 0
		for _, s := range c.Tensors(untied) {
			n += s.Len()
		}
		add(Gradients, "gradients", n, &b.grads)
		slots := min(vocab, o.Sequences*o.SeqLen)
		add(Gradients, "looked-up rows", slots*width, &b.lookup)
		addInts(Workspace, "row of a token", vocab, &b.slotOf)
		addInts(Workspace, "token of a row", slots, &b.slotID)
		addInts(Workspace, "token rows", rows, &b.slots)
	}
	addInts(Workspace, "token ids", rows, &b.ids)
	addInts(Workspace, "targets", rows, &b.targets)

	layers(backward, "attn mean", rows, func(l int) *[]float32 { return &b.attn[l].mean })
	layers(backward, "attn rstd", rows, func(l int) *[]float32 { return &b.attn[l].rstd })
	layers(inside, "attn norm", rows*width, func(l int) *[]float32 { return &b.attn[l].norm })
	layers(inside, "attn qkv", rows*3*width, func(l int) *[]float32 { return &b.attn[l].qkv })
	layers(inside, "attn heads", rows*width, func(l int) *[]float32 { return &b.attn[l].heads })
	layers(inside, "attn lse", rows*c.NHead, func(l int) *[]float32 { return &b.attn[l].lse })
	layers(backward, "attn out", rows*width, func(l int) *[]float32 { return &b.attn[l].y })
	layers(backward, "mlp mean", rows, func(l int) *[]float32 { return &b.mlp[l].mean })
	layers(backward, "mlp rstd", rows, func(l int) *[]float32 { return &b.mlp[l].rstd })
	layers(inside, "mlp norm", rows*width, func(l int) *[]float32 { return &b.mlp[l].norm })
	layers(inside, "mlp pre-activation", rows*inner, func(l int) *[]float32 { return &b.mlp[l].pre })
	layers(inside, "mlp activation", rows*inner, func(l int) *[]float32 { return &b.mlp[l].act })
	layers(backward, "mlp out", rows*width, func(l int) *[]float32 { return &b.mlp[l].y })
	add(Activations, "embedding", rows*width, &b.embd)
	add(Activations, "final mean", rows, &b.mean)
	add(Activations, "final rstd", rows, &b.rstd)
	add(Activations, "final norm", rows*width, &b.norm)
	add(Activations, "losses", rows, &b.losses)

	if backward {
		add(Workspace, "residual gradient", rows*width, &b.dx)
		add(Workspace, "sublayer gradient 1", rows*width, &b.s1)
		add(Workspace, "sublayer gradient 2", rows*width, &b.s2)
		add(Workspace, "wide gradient", rows*max(3*width, inner), &b.wide)
	}
	return t
}

// Bytes is the memory of a table, alignment included.
func Bytes(table []Buffer) int64 {
	var n int64
	for _, b := range table {
		n += int64(b.padded())
	}
	return 4 * n
}

func (b Buffer) padded() int { return (b.Len + align - 1) / align * align }

// newBuffers allocates the table at once and lays the buffers over it.
func newBuffers(c Config, untied bool, o GraphOptions) *buffers {
	b := new(buffers)
	table := b.table(c, untied, o)
	arena := make([]float32, Bytes(table)/4)
	for _, r := range table {
		mem := arena[:r.Len:r.Len]
		arena = arena[r.padded():]
		for _, dst := range r.floats {
			*dst = mem
		}
		if r.ints != nil {
			*r.ints = asInt32(mem)
		}
	}
	return b
}

// asInt32 is the same memory as integers.
func asInt32(f []float32) []int32 {
	return unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(f))), len(f))
}
