package model

import (
	"fmt"
	"unsafe"

	"promptgen/internal/kernel"
)

// Part says what a buffer is for; the sums by part are what a memory plan shows.
type Part string

// The parts of the memory that a Graph owns. Weights and the optimizer's
// moments belong to others.
const (
	Gradients   Part = "gradients"
	Activations Part = "activations" // kept from the forward pass for the backward pass
	Workspace   Part = "workspace"   // used within one operation
)

// Phase is when a buffer is in use. Buffers of different phases lie over one
// another: a sublayer's inside is never needed while another's is computed.
type Phase uint8

// The phases.
const (
	Always      Phase = iota
	InLayer           // during the layers: beside both that follow, in the head's place
	InAttention       // during an attention sublayer
	InMLP             // during an MLP sublayer
	InHead            // during the head
	phases
)

// Buffer is a row of the table of a graph's memory.
type Buffer struct {
	Name  string
	Part  Part
	Phase Phase
	Len   int // elements of 4 bytes (float32, int32, or two bfloat16)

	between bool // means something between two steps

	floats []*[]float32 // what is laid over it
	ints   *[]int32
	halves *[]uint16
}

// align is the multiple of elements that every buffer starts at: a cache line.
const align = 16

// Recompute chooses what the forward pass keeps.
type Recompute uint8

const (
	// RecomputeOff keeps what the backward pass reads, but for what one pass
	// over memory gives again: results of LayerNorm and of the activation.
	RecomputeOff Recompute = iota
	// RecomputeSublayers keeps only the residual stream after each sublayer and
	// computes the inside of a sublayer again in its backward pass.
	RecomputeSublayers
	// RecomputeLayers keeps only the residual stream after each layer.
	RecomputeLayers
)

// String is the level's name in a plan.
func (r Recompute) String() string {
	return [...]string{"off", "sublayers", "layers"}[min(int(r), 2)]
}

// attnBuffers are the values inside an attention sublayer; rows are B*T.
type attnBuffers struct {
	mean, rstd []float32 // [rows] of the LayerNorm
	qkv        []float32 // [rows, 3C]
	heads      []float32 // [rows, C] softmax(QK^T)V, heads side by side
	lse        []float32 // [B*H*T] log of the softmax's sums
	y          []float32 // [rows, C] the residual stream after the sublayer

	qkv16 []uint16 // qkv as kept under StoreBF16
}

// mlpBuffers are the values inside an MLP sublayer.
type mlpBuffers struct {
	mean, rstd []float32 // [rows]
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
	losses     []float32 // [rows]

	// norm is [rows, C] the LayerNorm's result of the sublayer at hand; in its
	// backward pass first the gradient that arrives, where dropout changes it, then
	// LN(x) again, and in the end the gradient of that.
	norm   []float32
	dx     []float32 // [rows, C] the gradient of the residual stream, updated in place
	dheads []float32 // [rows, C]
	dqkv   []float32 // [rows, 3C]
	head   []float32 // a chunk of rows: kernel.Head.Mem

	spare [][]float32 // what means nothing between two steps

	low, dlow []float32 // [rows, rank] between the halves of an adapter, and its gradient
	lowIn     []float32 // [rows, in] what goes into an adapter under its dropout
}

// Buffers is the table of everything that a graph with these options
// allocates, in the order in which it lies in memory.
func Buffers(c Config, untied bool, o GraphOptions) []Buffer {
	return new(buffers).table(c, untied, o.withDefaults(c))
}

// table lists every buffer, its size, and the fields that it is for. It is the
// only place that knows sizes: what NewGraph allocates and what a plan forecasts
// are this table.
func (b *buffers) table(c Config, untied bool, o GraphOptions) []Buffer {
	l := layout{o: o, layers: c.NLayer}
	rows, width, vocab := o.Batch*o.SeqLen, c.NEmbd, c.VocabSize
	b.attn, b.mlp = make([]attnBuffers, c.NLayer), make([]mlpBuffers, c.NLayer)
	backward := !o.ForwardOnly
	if backward {
		l.reach = o.Trainable.reach(c, untied)
		l.add(Gradients, Always, "gradients", int(o.Trainable.Len(c, untied)), &b.grads)
	}
	first := len(l.table)
	if backward && (o.Trainable.all() || o.Trainable.marks(c, untied)[0]) { // the token embedding
		slots := min(vocab, o.Sequences*o.SeqLen)
		l.add(Gradients, Always, "looked-up rows", slots*width, &b.lookup)
		l.addInts("row of a token", vocab, &b.slotOf)
		l.addInts("token of a row", slots, &b.slotID)
		l.addInts("token rows", rows, &b.slots)
		for i := range l.table[first:] {
			l.table[first+i].between = true
		}
	}
	l.addInts("token ids", rows, &b.ids)
	l.addInts("targets", rows, &b.targets)
	b.sublayers(&l, c)
	l.add(Activations, Always, "embedding", rows*width, &b.embd)
	l.add(Activations, Always, "final mean", rows, &b.mean)
	l.add(Activations, Always, "final rstd", rows, &b.rstd)
	l.add(Workspace, Always, "norm and its gradient", rows*width, &b.norm)
	l.add(Activations, Always, "losses", rows, &b.losses)
	head := kernel.Head{Rows: rows, Width: width, Vocab: vocab, SeqLen: o.SeqLen, BF16: o.BF16}
	l.add(Workspace, InHead, "head", head.Floats(backward), &b.head)
	if backward { // begun when the head is done with its logits
		l.add(Workspace, InLayer, "residual gradient", rows*width, &b.dx)
	}
	if backward && l.reach.attn < c.NLayer {
		l.add(Workspace, InAttention, "attn heads gradient", rows*width, &b.dheads)
		l.add(Workspace, InAttention, "qkv gradient", rows*3*width, &b.dqkv)
	}
	b.adapters(&l, c, backward)
	return l.table
}

// adapters lists what low-rank adapters work with. Nothing of theirs is kept:
// one product of few columns gives it again.
func (b *buffers) adapters(l *layout, c Config, backward bool) {
	lora, rows := l.o.Trainable.LoRA, l.o.Batch*l.o.SeqLen
	if !lora.On() {
		return
	}
	l.add(Workspace, InLayer, "adapter", rows*lora.Rank, &b.low)
	if !backward {
		return
	}
	l.add(Workspace, InLayer, "adapter gradient", rows*lora.Rank, &b.dlow)
	widest := 0
	for _, s := range c.Tensors(false) {
		if lora.Adapts(s) {
			widest = max(widest, s.Shape[0])
		}
	}
	if lora.Dropout > 0 {
		l.add(Workspace, InLayer, "adapter input", rows*widest, &b.lowIn)
	}
}

// sublayers lists the values of every layer. What the backward pass does not
// reach keeps nothing.
func (b *buffers) sublayers(l *layout, c Config) {
	rows, width, inner := l.o.Batch*l.o.SeqLen, c.NEmbd, c.Inner()
	attnAll := func(i int) bool { return !l.o.ForwardOnly && i >= l.reach.attn }
	mlpAll := func(i int) bool { return !l.o.ForwardOnly && i >= l.reach.mlp }
	never := func(int) bool { return false } // one pass over memory gives it again
	attnInside := func(i int) bool { return attnAll(i) && l.o.recompute(i) == RecomputeOff }
	mlpInside := func(i int) bool { return mlpAll(i) && l.o.recompute(i) == RecomputeOff }
	stream := func(i int) bool { return mlpAll(i) && l.o.recompute(i) != RecomputeLayers } // which the MLP reads
	// With whole layers computed again, the attention's inside waits for its
	// backward pass while the MLP's is at work.
	attn := InAttention
	if !l.o.ForwardOnly && l.o.Recompute == RecomputeLayers {
		attn = InLayer
	}
	// What nobody keeps is needed by the layer's MLP alone, but for an attention
	// below all that is trained whose MLP is above it.
	between := InLayer
	if first := l.reach.mlp; first < l.reach.attn && l.o.recompute(first) != RecomputeLayers {
		between = Always
	}
	l.values(attnAll, Always, "attn mean", rows, func(i int) *[]float32 { return &b.attn[i].mean })
	l.values(attnAll, Always, "attn rstd", rows, func(i int) *[]float32 { return &b.attn[i].rstd })
	l.operands(attnInside, attn, "attn qkv", rows*3*width,
		func(i int) (*[]float32, *[]uint16) { return &b.attn[i].qkv, &b.attn[i].qkv16 })
	l.values(attnInside, attn, "attn heads", rows*width, func(i int) *[]float32 { return &b.attn[i].heads })
	l.values(attnInside, attn, "attn lse", rows*c.NHead, func(i int) *[]float32 { return &b.attn[i].lse })
	l.values(stream, between, "attn out", rows*width, func(i int) *[]float32 { return &b.attn[i].y })
	l.values(mlpAll, Always, "mlp mean", rows, func(i int) *[]float32 { return &b.mlp[i].mean })
	l.values(mlpAll, Always, "mlp rstd", rows, func(i int) *[]float32 { return &b.mlp[i].rstd })
	l.values(mlpInside, InMLP, "mlp pre-activation", rows*inner, func(i int) *[]float32 { return &b.mlp[i].pre })
	l.values(never, InMLP, "mlp activation", rows*inner, func(i int) *[]float32 { return &b.mlp[i].act })
	l.values(mlpAll, Always, "mlp out", rows*width, func(i int) *[]float32 { return &b.mlp[i].y })
}

// layout builds a table.
type layout struct {
	o      GraphOptions
	reach  reach
	layers int
	table  []Buffer
}

func (l *layout) add(p Part, phase Phase, name string, n int, dst ...*[]float32) {
	l.table = append(l.table, Buffer{Name: name, Part: p, Phase: phase, Len: n, floats: dst})
}

func (l *layout) addInts(name string, n int, dst *[]int32) {
	l.table = append(l.table, Buffer{Name: name, Part: Workspace, Len: n, ints: dst})
}

// values lays out a value of every layer: a buffer of its own in the layers
// that keep it until the backward pass, one for all the others.
func (l *layout) values(kept func(int) bool, phase Phase, name string, n int, field func(int) *[]float32) {
	var shared []*[]float32
	for i := range l.layers {
		if kept(i) {
			l.add(Activations, Always, name, n, field(i))
		} else {
			shared = append(shared, field(i))
		}
	}
	if len(shared) > 0 {
		l.add(Workspace, phase, name, n, shared...)
	}
}

// operands are values that only bf16 products read: under StoreBF16 they are
// kept in that format, and in float32 only while they are at work.
func (l *layout) operands(kept func(int) bool, phase Phase, name string, n int, field func(int) (*[]float32, *[]uint16)) {
	floats := func(i int) *[]float32 { f, _ := field(i); return f }
	if !l.o.StoreBF16 {
		l.values(kept, phase, name, n, floats)
		return
	}
	l.values(func(int) bool { return false }, phase, name, n, floats)
	for i := range l.layers {
		if kept(i) {
			_, h := field(i)
			l.table = append(l.table, Buffer{Name: name + " bf16", Part: Activations, Len: (n + 1) / 2, halves: h})
		}
	}
}

// Bytes is the memory of a table: its buffers, aligned, those of different
// phases over one another.
func Bytes(table []Buffer) int64 {
	var n [phases]int64
	for _, b := range table {
		n[b.Phase] += int64(b.padded())
	}
	return 4 * (n[Always] + max(n[InLayer]+max(n[InAttention], n[InMLP]), n[InHead]))
}

func (b Buffer) padded() int { return (b.Len + align - 1) / align * align }

// newBuffers lays the table over one piece of memory: that of the options, or
// its own.
func newBuffers(c Config, untied bool, o GraphOptions) (*buffers, error) {
	b := new(buffers)
	table := b.table(c, untied, o)
	size := int(Bytes(table) / 4)
	arena := o.Memory
	if arena == nil {
		arena = kernel.Alloc(size)
	}
	if len(arena) < size {
		return nil, fmt.Errorf("graph: %d bytes of memory given, %d needed", 4*len(arena), 4*size)
	}
	var sizes, next [phases]int
	for _, r := range table {
		sizes[r.Phase] += r.padded()
	}
	next[InLayer], next[InHead] = sizes[Always], sizes[Always]
	next[InAttention], next[InMLP] = sizes[Always]+sizes[InLayer], sizes[Always]+sizes[InLayer]
	for _, r := range table {
		at := next[r.Phase]
		next[r.Phase] += r.padded()
		mem := arena[at : at+r.Len : at+r.Len]
		for _, dst := range r.floats {
			*dst = mem
		}
		if r.ints != nil {
			*r.ints = asInt32(mem)
		}
		if r.halves != nil {
			*r.halves = unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(mem))), 2*len(mem))
		}
	}
	for _, p := range spare(table) {
		b.spare = append(b.spare, arena[p[0]:p[1]:p[1]])
	}
	return b, nil
}

// spare is the pieces [lo,hi) of a graph's memory, in elements, that mean nothing
// between two steps.
func spare(table []Buffer) (pieces [][2]int) {
	lo, hi := 0, 0
	cut := func() {
		if lo < hi {
			pieces = append(pieces, [2]int{lo, hi})
		}
	}
	for _, r := range table {
		if r.Phase != Always {
			continue
		}
		if r.between {
			cut()
			lo = hi + r.padded()
		}
		hi += r.padded()
	}
	hi = int(Bytes(table) / 4) // the phases
	cut()
	return pieces
}

// SpareBytes is the size of each piece of Graph.Spare.
func SpareBytes(table []Buffer) (sizes []int) {
	for _, p := range spare(table) {
		sizes = append(sizes, 4*(p[1]-p[0]))
	}
	return sizes
}

// asInt32 is the same memory as integers.
func asInt32(f []float32) []int32 {
	return unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(f))), len(f))
}

// Bytes is the memory of the buffer, alignment included.
func (b Buffer) Bytes() int64 { return 4 * int64(b.padded()) }
