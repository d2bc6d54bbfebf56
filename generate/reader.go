package generate

import (
	"context"
	"fmt"
	"math"

	"promptgen/internal/fault"
	"promptgen/internal/kernel"
)

// Reader runs a model over tokens without drawing any: what an Engine does to
// the weights, for those who measure its speed or how well it predicts. One
// caller uses it at a time.
type Reader struct{ f *forwarder }

// Text is what was read of a text.
type Text struct{ cache cache }

// Part is tokens to read behind those of a text.
type Part struct {
	Text *Text
	IDs  []int32
}

// NewReader packs the weights of src in the format d. cpu is the Reader's until
// Close.
func NewReader(src Source, cpu *kernel.CPU, d kernel.DType) (*Reader, error) {
	f, err := newForwarder(cpu, src, d, nil)
	if err != nil {
		return nil, err
	}
	return &Reader{f}, nil
}

// Close gives the packed weights back.
func (r *Reader) Close() { r.f.close() }

// Read reads the parts, of different texts, in one pass over the weights. It
// returns the logits after each, [parts, vocab], valid until the next call. A
// text must not become longer than n_ctx.
func (r *Reader) Read(parts ...Part) []float32 {
	segs := make([]segment, len(parts))
	for i, p := range parts {
		segs[i] = segment{&p.Text.cache, p.IDs}
	}
	return r.f.run(segs)
}

// Fork is a text that begins as t does.
func (r *Reader) Fork(t *Text) *Text { return &Text{r.f.pool.fork(&t.cache, t.cache.n)} }

// Drop gives a text's cache back.
func (r *Reader) Drop(t *Text) { r.f.pool.release(&t.cache) }

// WeightBytes is what reading one token reads of the weights.
func (r *Reader) WeightBytes() int { return r.f.w.bytes() }

// Loss is the sum of -log p of the targets, each predicted from ids up to its
// place; negative targets are left out. There are at most n_ctx ids.
func (r *Reader) Loss(ctx context.Context, ids, targets []int32) (sum float64, predicted int, err error) {
	f := r.f
	e, vocab := f.c.NEmbd, f.c.VocabSize
	var text Text
	defer r.Drop(&text)
	f.pool.grow(&text.cache, len(ids))
	for at := 0; at < len(ids); at += passRows {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		rows := min(passRows, len(ids)-at)
		f.pass([]piece{{cache: &text.cache, ids: ids[at : at+rows]}}, rows, true)
		for lo := 0; lo < rows; lo += lossRows {
			n := min(lossRows, rows-lo)
			logits := f.headOf(f.x[lo*e:], n)
			for i, t := range targets[at+lo : at+lo+n] {
				if t >= 0 {
					row := logits[i*vocab:][:vocab]
					logit := row[t]
					top := row[0]
					for _, v := range row {
						top = max(top, v)
					}
					sum += float64(top-logit) + math.Log(float64(f.cpu.RowExp(row, row, 1)))
					predicted++
				}
			}
		}
	}
	if math.IsNaN(sum) {
		return 0, 0, fault.With(fault.CodeCorrupt, fmt.Errorf("the model's logits are not finite: its weights are broken"))
	}
	return sum, predicted, nil
}

// lossRows is how many rows' logits exist together.
const lossRows = 32
