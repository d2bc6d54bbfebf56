package train

import (
	"context"
	"math"

	"promptgen/data"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model"
)

// EvalResult is how well a model predicts a stream of tokens. Its JSON is that
// of `eval --json`.
type EvalResult struct {
	Loss        float64 `json:"loss"`       // nats a token
	Perplexity  float64 `json:"perplexity"` // e^loss
	Tokens      int64   `json:"tokens"`     // that were predicted
	BitsPerChar float64 `json:"bits_per_char,omitempty"`
	UnkShare    float64 `json:"unk_share"`
}

// evalBatch is the number of windows evaluated together: enough rows for the
// kernels to run at full speed, few enough to need little memory.
const evalBatch = 4

// Evaluate measures p on tokens, over windows of n_ctx tokens that do not
// overlap: each token but a window's first is predicted from those before it.
// Fewer than two tokens are fault.Data.
func Evaluate(ctx context.Context, cpu *kernel.CPU, p *model.Params, tokens *data.Tokens) (EvalResult, error) {
	if tokens.Len() < 2 {
		return EvalResult{}, fault.Data("evaluation: %d tokens predict nothing; give text of at least two tokens", tokens.Len())
	}
	n := int(min(int64(p.Config.NCtx), tokens.Len()))
	windows := data.CountWindows(tokens.Len(), n, n)
	g, err := model.NewGraph(cpu, p, model.GraphOptions{Batch: min(evalBatch, windows), SeqLen: n, ForwardOnly: true})
	if err != nil {
		return EvalResult{}, err
	}
	defer g.Close()
	sum, count, err := evaluate(ctx, g, tokens, min(evalBatch, windows), n, 0, 1)
	if err != nil {
		return EvalResult{}, err
	}
	if math.IsNaN(sum) || math.IsInf(sum, 0) {
		return EvalResult{}, fault.Corrupt("evaluation: the model's loss is not a number: its weights are broken")
	}
	return newEvalResult(sum, count, tokens.Stats()), nil
}

// evaluate runs a graph for batches of so many sequences of seqLen over a
// rank's part of tokens, every size-th batch. It returns the sum of the losses,
// in whatever parts exactly the same, and the number of predictions.
func evaluate(ctx context.Context, g *model.Graph, tokens *data.Tokens, batch, seqLen, rank, size int) (sum float64, count int64, err error) {
	w, err := tokens.EvalWindows(seqLen)
	if err != nil {
		return 0, 0, err
	}
	ids, targets := make([]int32, batch*seqLen), make([]int32, batch*seqLen)
	for i := rank * batch; i < w.Len(); i += size * batch {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		n := min(batch, w.Len()-i)
		for j := range n {
			if _, err := w.Read(ids[j*seqLen:(j+1)*seqLen], targets[j*seqLen:(j+1)*seqLen], i+j); err != nil {
				return 0, 0, err
			}
		}
		loss, predicted, err := g.Eval(ids[:n*seqLen], targets[:n*seqLen])
		if err != nil {
			return 0, 0, err
		}
		sum += loss
		count += int64(predicted)
	}
	return sum, count, nil
}

// LossFunc is the sum of -log p of the targets that are not negative, each
// predicted from ids up to its place, and their number.
type LossFunc func(ctx context.Context, ids, targets []int32) (sum float64, predicted int, err error)

// EvaluateBy is Evaluate for anything that predicts, one window of nCtx tokens
// after another.
func EvaluateBy(ctx context.Context, loss LossFunc, nCtx int, tokens *data.Tokens) (EvalResult, error) {
	if tokens.Len() < 2 {
		return EvalResult{}, fault.Data("evaluation: %d tokens predict nothing; give text of at least two tokens", tokens.Len())
	}
	n := int(min(int64(nCtx), tokens.Len()))
	w, err := tokens.EvalWindows(n)
	if err != nil {
		return EvalResult{}, err
	}
	ids, targets := make([]int32, n), make([]int32, n)
	sum, count := 0.0, int64(0)
	for i := range w.Len() {
		if _, err := w.Read(ids, targets, i); err != nil {
			return EvalResult{}, err
		}
		s, predicted, err := loss(ctx, ids, targets)
		if err != nil {
			return EvalResult{}, err
		}
		sum, count = sum+s, count+int64(predicted)
	}
	return newEvalResult(sum, count, tokens.Stats()), nil
}

func newEvalResult(sum float64, count int64, s data.Stats) EvalResult {
	r := EvalResult{Loss: sum / float64(count), Tokens: count, UnkShare: s.UnkShare()}
	r.Perplexity = math.Exp(r.Loss)
	if s.Chars > 0 { // the predicted tokens stand for their share of the text
		r.BitsPerChar = r.Loss / math.Ln2 * float64(s.Tokens) / float64(s.Chars)
	}
	return r
}
