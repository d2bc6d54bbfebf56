package data

import (
	"promptgen/internal/fault"
	"promptgen/internal/splitmix"
)

// Windows cuts a stream of tokens into the sequences that training learns from:
// nCtx tokens every stride tokens, and one more that ends where the stream ends,
// so that nothing is left out. Documents are packed: a window may begin inside
// one and hold several, each framed by [MASK] and [CLS].
type Windows struct {
	tokens       *Tokens
	nCtx, stride int
	n            int
	tail         bool // the last window begins nCtx before the end, not at a multiple of stride
}

// NewWindows lays windows over t; stride 0 means nCtx, side by side. A stream
// shorter than nCtx has none.
func NewWindows(t *Tokens, nCtx, stride int) (*Windows, error) {
	if stride == 0 {
		stride = nCtx
	}
	var faults fault.List
	if nCtx < 2 {
		faults.Addf("n_ctx is %d and must be at least 2 for a token to be predicted from another", nCtx)
	}
	if stride < 0 {
		faults.Addf("stride is %d and must be positive", stride)
	}
	if err := faults.Err("training windows"); err != nil {
		return nil, err
	}
	w := &Windows{tokens: t, nCtx: nCtx, stride: stride}
	w.n, w.tail = countWindows(t.Len(), nCtx, stride)
	return w, nil
}

// countWindows is the number of windows over a stream of that length, and whether
// the last is one that ends at the end out of turn.
func countWindows(length int64, nCtx, stride int) (n int, tail bool) {
	if length < int64(nCtx) {
		return 0, false
	}
	n = int((length-int64(nCtx))/int64(stride)) + 1
	tail = int64(n-1)*int64(stride)+int64(nCtx) < length
	if tail {
		n++
	}
	return n, tail
}

// CountWindows is the number of windows that NewWindows lays over a stream of
// that many tokens.
func CountWindows(tokens int64, nCtx, stride int) int {
	if stride == 0 {
		stride = nCtx
	}
	if nCtx < 1 || stride < 1 {
		return 0
	}
	n, _ := countWindows(tokens, nCtx, stride)
	return n
}

// Len is the number of windows.
func (w *Windows) Len() int { return w.n }

// Start is where window i begins in the stream.
func (w *Windows) Start(i int) int64 {
	if w.tail && i == w.n-1 {
		return w.tokens.Len() - int64(w.nCtx)
	}
	return int64(i) * int64(w.stride)
}

// Read copies window i into dst, [nCtx].
func (w *Windows) Read(dst []int32, i int) error {
	return w.tokens.ReadAt(dst[:w.nCtx], w.Start(i))
}

// Order is the order in which an epoch visits n windows: a permutation that
// depends on the seed and the epoch alone.
func Order(n int, seed uint64, epoch int) []int32 {
	order := make([]int32, n)
	for i := range order {
		order[i] = int32(i)
	}
	r := splitmix.Source(splitmix.Mix(seed) ^ splitmix.Mix(uint64(epoch)+0x6f72646572))
	for i := n - 1; i > 0; i-- {
		j := r.Below(uint64(i + 1))
		order[i], order[j] = order[j], order[i]
	}
	return order
}

// EvalWindows cuts a stream into windows that do not overlap, for evaluation:
// every token but a window's first is predicted once, from those before it in
// its window. The last window may be shorter.
type EvalWindows struct {
	tokens *Tokens
	nCtx   int
}

// EvalWindows lays evaluation windows of nCtx tokens over t.
func (t *Tokens) EvalWindows(nCtx int) (*EvalWindows, error) {
	if nCtx < 2 {
		return nil, fault.Usage("evaluation windows: n_ctx is %d and must be at least 2", nCtx)
	}
	return &EvalWindows{t, nCtx}, nil
}

// Len is the number of windows. A single token left at the end predicts nothing
// and makes none.
func (e *EvalWindows) Len() int {
	n := e.tokens.Len() / int64(e.nCtx)
	if e.tokens.Len()%int64(e.nCtx) > 1 {
		n++
	}
	return int(n)
}

// Read fills ids and targets, both [nCtx], with window i: targets[r] is
// ids[r+1], and -1 where there is nothing to predict. Behind a shorter window's
// end ids are 0, which no earlier position sees. n is the number of targets.
func (e *EvalWindows) Read(ids, targets []int32, i int) (n int, err error) {
	start := int64(i) * int64(e.nCtx)
	size := int(min(int64(e.nCtx), e.tokens.Len()-start))
	if err := e.tokens.ReadAt(ids[:size], start); err != nil {
		return 0, err
	}
	copy(targets, ids[1:size])
	for r := size - 1; r < e.nCtx; r++ {
		targets[r] = -1
	}
	for r := size; r < e.nCtx; r++ {
		ids[r] = 0
	}
	return size - 1, nil
}
