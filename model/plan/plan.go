// Package plan forecasts the memory of a training, to the byte where the
// program decides, and finds the settings that fit a limit.
//
// There is no second formula: weights, gradients, activations and workspace are
// the tables that model.NewGraph and the optimizer allocate by, the kernels'
// own memory is what the kernels say, and what remains, the program itself with
// Go's runtime, is one constant.
//
//	parts, err := plan.Of(cfg, plan.Settings{Batch: 8})
//	chosen, ok, err := plan.Fit(cfg, wanted, plan.Auto, limit)
package plan

import (
	"fmt"
	"math"

	"promptgen/internal/arena"
	"promptgen/internal/decode"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model"
)

// Runtime is what the program takes besides the tables: its code as far as it
// is read in, Go's heap with the vocabulary, the graph's nodes and what a save
// needs, stacks. It was measured and is the same for every configuration. Of the
// code 15 to 24 MB are in memory, depending on how the file lies in the page
// cache: of one just built, large folios are mapped whole.
const Runtime = 44 << 20

// heapLimit is what Go's own heap may grow to besides the kernels' memory: the
// part of Runtime that is not the program's code.
const heapLimit = 21 << 20

// Settings are what memory depends on besides the config.
type Settings struct {
	Batch     int // sequences in a micro-batch
	Sequences int // in an optimizer step (the effective batch); 0: Batch
	Threads   int // that compute; 0: one

	BF16          bool            // operands of products in bf16
	Recompute     model.Recompute // what the backward pass computes again
	RecomputeLast int             // in the last so many layers; 0: in all
	StoreBF16     bool            // operands of bf16 products are kept in bf16
	OptimizerBF16 bool            // moments in bf16
	Trainable     model.Trainable // what has gradients and moments
	Untied        bool            // the head has weights of its own

	// Data is memory for the tokens and their order: little, unless they come
	// from the original's text files.
	Data int64

	// Others work between two steps (samples of a validation): they put pieces of
	// Guests bytes into the graph's spare memory, as far as they fit, one after
	// another, and take Beside as well, outside of Go's heap.
	Guests []int
	Beside int64
}

// Graph is the options of the graph that these settings describe.
func (s Settings) Graph(c model.Config) model.GraphOptions {
	return model.GraphOptions{
		Batch: s.Batch, SeqLen: c.NCtx, Sequences: max(s.Batch, s.Sequences), BF16: s.BF16,
		Recompute: s.Recompute, RecomputeLast: s.RecomputeLast, StoreBF16: s.StoreBF16, Trainable: s.Trainable,
	}
}

// Recomputed is the number of layers that are computed again.
func (s Settings) Recomputed(c model.Config) int {
	switch {
	case s.Recompute == model.RecomputeOff:
		return 0
	case s.RecomputeLast == 0:
		return c.NLayer
	}
	return min(s.RecomputeLast, c.NLayer)
}

// Parts are the bytes of a training by their use.
type Parts struct {
	Weights     int64 `json:"weights"`
	Gradients   int64 `json:"gradients"`
	Optimizer   int64 `json:"optimizer"`
	Activations int64 `json:"activations"`
	Workspace   int64 `json:"workspace"`
	Runtime     int64 `json:"runtime"`
}

// Total is the planned peak.
func (p Parts) Total() int64 {
	return p.Weights + p.Gradients + p.Optimizer + p.Activations + p.Workspace + p.Runtime
}

// mostBytes is the size beyond which nothing is worked out to the byte: no
// machine has it, and below it no sum overflows.
const mostBytes = 1 << 50

// Of is the forecast. A config or settings that make no sense are a fault of
// usage (2), sizes beyond all machines are fault.CodeMemory (4).
func Of(c model.Config, s Settings) (Parts, error) {
	if err := check(c, s); err != nil {
		return Parts{}, err
	}
	table := model.Buffers(c, s.Untied, s.Graph(c))
	var p Parts
	var phases int64
	for _, b := range table {
		bytes := b.Bytes()
		switch {
		case b.Phase != model.Always: // they lie over one another: what is left of the sum below
		case b.Part == model.Gradients:
			p.Gradients += bytes
		case b.Part == model.Activations:
			p.Activations += bytes
		default:
			p.Workspace += bytes
		}
	}
	phases = model.Bytes(table) - p.Gradients - p.Activations - p.Workspace
	p.Weights, p.Optimizer = weightBytes(c, s), momentBytes(c, s)
	p.Workspace += phases + kernel.ScratchBytes(shape(c, s)) + s.Data + ids(c, s) +
		s.Beside + guests(s, table)
	p.Runtime = Runtime
	// The arena is a whole number of huge pages.
	arenaBytes := ArenaBytes(c, s)
	p.Workspace += arena.Size(arenaBytes) - arenaBytes
	return p, nil
}

// guests is what does not fit into a graph's spare memory of the others' pieces:
// a mapping of its own.
func guests(s Settings, table []model.Buffer) int64 {
	return arena.Size(int64(decode.Beside(s.Guests, model.SpareBytes(table)...)))
}

// ids is the micro-batch as it is read.
func ids(c model.Config, s Settings) int64 { return 8 * int64(s.Batch) * int64(c.NCtx) }

// ArenaBytes is the memory that is taken at once: weights, moments and the
// graph's buffers.
func ArenaBytes(c model.Config, s Settings) int64 {
	const alignment = 5 * 64 // of each of the pieces
	return weightBytes(c, s) + momentBytes(c, s) + model.Bytes(model.Buffers(c, s.Untied, s.Graph(c))) + alignment
}

// weightBytes is what the weights take, adapters included.
func weightBytes(c model.Config, s Settings) int64 {
	return 4 * (Params(c, s.Untied) + s.Trainable.LoRA.Len(c))
}

// momentBytes is what the optimizer keeps of the trained weights.
func momentBytes(c model.Config, s Settings) int64 {
	n := s.Trainable.Len(c, s.Untied)
	if s.OptimizerBF16 {
		return 4 * n
	}
	return 8 * n
}

// HeapBytes is the limit for Go's heap beside the arena.
func HeapBytes(c model.Config, s Settings) int64 {
	return heapLimit + kernel.ScratchBytes(shape(c, s)) + s.Data + ids(c, s)
}

// Params is the number of parameters.
func Params(c model.Config, untied bool) int64 {
	n := c.NumParams()
	if untied {
		n += int64(c.VocabSize) * int64(c.NEmbd)
	}
	return n
}

func shape(c model.Config, s Settings) kernel.Shape {
	return kernel.Shape{
		Threads: max(1, s.Threads), Rows: s.Batch * c.NCtx, SeqLen: c.NCtx, Width: c.NEmbd, Inner: c.Inner(),
		Heads: c.NHead, Vocab: c.VocabSize, Backward: true,
	}
}

// check refuses what the tables must not be asked for.
func check(c model.Config, s Settings) error {
	l := c.Faults()
	if c.VocabSize == 0 {
		l.Addf("vocab_size is not set")
	}
	if s.Batch < 1 || s.Batch > 1<<16 || s.Sequences < 0 || s.Sequences > 1<<32 {
		l.Addf("the batch must be between 1 and %d, not %d of %d", 1<<16, s.Batch, s.Sequences)
	}
	if s.Threads < 0 || s.Threads > 1<<16 {
		l.Addf("threads must be between 0 and %d, not %d", 1<<16, s.Threads)
	}
	if s.Data < 0 || s.Beside < 0 {
		l.Addf("the data (%d bytes) and what lies beside (%d) must not be negative", s.Data, s.Beside)
	}
	if err := l.Err("plan"); err != nil {
		return err
	}
	if b := bound(c, s); b > mostBytes {
		return fault.With(fault.CodeMemory, fmt.Errorf("plan: the config takes more than %.0f TiB; lower n_ctx, n_layer, n_embd or the batch", mostBytes/math.Pow(2, 40)))
	}
	_, err := s.Trainable.Trained(c, s.Untied) // last: it lists every tensor
	return err
}

// bound is more than any forecast, in numbers that do not overflow.
func bound(c model.Config, s Settings) float64 {
	rows, layers := float64(s.Batch)*float64(c.NCtx), float64(c.NLayer)
	width, inner, vocab := float64(c.NEmbd), float64(c.Inner()), float64(c.VocabSize)
	params := 2*vocab*width + float64(c.NPositions)*width + layers*(5*width*width+3*width*inner+20*(width+inner))
	slots := min(vocab, float64(max(s.Batch, s.Sequences))*float64(c.NCtx)) * width
	activations := rows * (layers + 2) * (16*width + 4*inner + float64(c.NHead) + 64)
	params += float64(s.Trainable.LoRA.Rank) * layers * 8 * (width + inner)
	for _, n := range s.Guests {
		slots += float64(n) / 4
	}
	scratch := float64(max(1, s.Threads)) * (1e6 + 400*float64(c.NCtx) + 40*float64(c.NCtx)*width)
	return 16*params + 4*(slots+activations+rows*vocab+10*vocab+scratch) + float64(s.Data) + float64(s.Beside)
}
