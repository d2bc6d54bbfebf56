package generate

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"promptgen/internal/kernel"
	"promptgen/internal/testkit"
	"promptgen/model"
)

// A Reader's logits and losses are those of the model's graph, whose weights are
// float32.
func TestReaderEqualsTheGraph(t *testing.T) {
	const vocab, nCtx = 83, 48
	p := randomModel(31, vocab, nCtx)
	cpu := newCPU(t, 2)
	r, err := NewReader(FromParams(p, nil), cpu, kernel.FP32)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{1, 2, 31, nCtx} {
		text := ids(rnd, vocab, n)
		g, err := model.NewGraph(cpu, p, model.GraphOptions{Batch: 1, SeqLen: n, ForwardOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		want, err := g.Logits(text)
		if err != nil {
			t.Fatal(err)
		}
		var whole Text
		if d := testkit.MaxDiff(r.Read(Part{&whole, text}), want[(n-1)*vocab:]); d > 1e-4 {
			t.Errorf("%d tokens: logits differ by %g", n, d)
		}
		r.Drop(&whole)
		targets := append(slices.Clone(text[1:]), -1)
		loss, count, err := r.Loss(context.Background(), text, targets)
		if err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for i, id := range text[1:] {
			sum += logSumExp(want[i*vocab:][:vocab]) - float64(want[i*vocab+int(id)])
		}
		if count != n-1 || math.Abs(loss-sum) > 1e-4*float64(n) {
			t.Errorf("%d tokens: loss %g of %d, want %g", n, loss, count, sum)
		}
		g.Close()
	}
}
