package train_test

import (
	"context"
	"math"
	"testing"

	"promptgen/data"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model"
	"promptgen/train"
)

// Evaluation predicts every token but a window's first from those before it,
// the last, shorter window included, and counts each once.
func TestEvaluateAgainstLogits(t *testing.T) {
	cpu, err := kernel.New(kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cpu.Close()
	c := model.Config{VocabSize: 11, NPositions: 8, NCtx: 8, NEmbd: 8, NHead: 2, NLayer: 1,
		LayerNormEpsilon: 1e-5, InitializerRange: 0.5, EmbdDrop: 0.5, AttnDrop: 0.5, ResidDrop: 0.5}
	p := model.NewParams(c, false)
	p.Init(1)
	for _, n := range []int{2, 7, 8, 9, 8*5 + 3} { // 9: the ninth token predicts nothing
		ids := make([]int32, n)
		for i := range ids {
			ids[i] = int32(i * i % 11)
		}
		sum, count := 0.0, 0
		for at := 0; at+1 < n; at += 8 {
			window := ids[at:min(at+8, n)]
			g, err := model.NewGraph(cpu, p, model.GraphOptions{Batch: 1, SeqLen: len(window), ForwardOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			logits, err := g.Logits(window)
			if err != nil {
				t.Fatal(err)
			}
			for i, next := range window[1:] {
				row := logits[i*11:][:11]
				z := 0.0
				for _, l := range row {
					z += math.Exp(float64(l))
				}
				sum += math.Log(z) - float64(row[next])
				count++
			}
			g.Close()
		}
		tokens := data.NewTokens(ids, data.Stats{Unk: 1, Chars: int64(2 * n)}, 11)
		r, err := train.Evaluate(context.Background(), cpu, p, tokens)
		if err != nil {
			t.Fatal(err)
		}
		want := sum / float64(count)
		if r.Tokens != int64(count) || math.Abs(r.Loss-want) > 1e-5 || math.Abs(r.Perplexity-math.Exp(r.Loss)) > 1e-9 {
			t.Errorf("%d tokens: %+v, want loss %v of %d", n, r, want, count)
		}
		if math.Abs(r.BitsPerChar-r.Loss/math.Ln2/2) > 1e-9 || r.UnkShare != 1/float64(n) {
			t.Errorf("%d tokens: %+v", n, r)
		}
	}
	if _, err := train.Evaluate(context.Background(), cpu, p, data.NewTokens([]int32{1}, data.Stats{}, 11)); fault.Code(err) != fault.CodeData {
		t.Errorf("one token: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := train.Evaluate(ctx, cpu, p, data.NewTokens(make([]int32, 99), data.Stats{}, 11)); fault.Code(err) != fault.CodeInterrupted {
		t.Errorf("cancelled: %v", err)
	}
	p.Blocks[0].FcW[3] = float32(math.NaN())
	if _, err := train.Evaluate(context.Background(), cpu, p, data.NewTokens(make([]int32, 99), data.Stats{}, 11)); fault.Code(err) != fault.CodeCorrupt {
		t.Errorf("a weight that is no number: %v", err)
	}
}
