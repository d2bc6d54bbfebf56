package generate

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"promptgen/internal/kernel"
)

// randomRequest is any request that ends soon.
func randomRequest(r *rand.Rand, vocab, nCtx int) Request {
	req := Request{
		PromptIDs: ids(r, vocab, 1+r.IntN(2*nCtx)), Length: 1 + r.IntN(nCtx), Samples: 1 + r.IntN(5),
		Temperature: []float64{0, 0.7, 1, 1.5}[r.IntN(4)], TopK: []int{0, 5, 30}[r.IntN(3)], TopP: []float64{0, 0.9}[r.IntN(2)],
		Seed: r.Uint64(), AllowDuplicates: r.IntN(2) == 0,
	}
	switch r.IntN(6) {
	case 0:
		req.RepetitionPenalty, req.FrequencyPenalty = 1.2, 0.1
	case 1:
		req.NoRepeatNGram, req.MinP, req.TypicalP = 3, 0.01, 0.95
	case 2:
		req.Beams, req.LengthPenalty = 5, 1
	}
	return req
}

// Whatever the request and the traffic beside it, the batch and the threads, a
// request gives the same tokens and log-probabilities, to the bit.
func TestTrafficChangesNothing(t *testing.T) {
	const vocab, nCtx = 90, 40
	p := randomModel(61, vocab, nCtx)
	var engines []*Engine
	types := []kernel.DType{kernel.FP32, kernel.BF16, kernel.Q8_0, kernel.Q4_0}
	for _, dt := range types {
		for _, slots := range []int{1, 5, 16} {
			for _, threads := range []int{1, 2} {
				engines = append(engines, newEngine(t, p, newCPU(t, threads), EngineOptions{Slots: slots, DType: dt, PrefixTokens: slots * 20}))
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		req := randomRequest(r, vocab, nCtx)
		var want *Response
		for i, e := range engines {
			if i%(len(engines)/len(types)) == 0 {
				want = nil // another arithmetic
			}
			ctx, stop := context.WithCancel(context.Background())
			var traffic sync.WaitGroup
			for range r.IntN(5) {
				other := rand.New(rand.NewPCG(r.Uint64(), 1))
				traffic.Go(func() {
					for ctx.Err() == nil {
						o := randomRequest(other, vocab, nCtx)
						if other.IntN(2) == 0 { // a prompt that begins like the one in question
							o.PromptIDs = slices.Concat(req.PromptIDs[:1+other.IntN(len(req.PromptIDs))], ids(other, vocab, other.IntN(9)))
						}
						_, _ = e.Generate(ctx, o)
					}
				})
			}
			got, err := e.Generate(ctx, req)
			stop()
			traffic.Wait()
			if err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = got
			}
			for n, s := range got.Samples {
				if w := want.Samples[n]; !slices.Equal(s.Tokens, w.Tokens) || !slices.Equal(s.LogProbs, w.LogProbs) {
					t.Fatalf("%+v with %+v: sample %d has %v, want %v", req, e.opts, n, s.Tokens, w.Tokens)
				}
			}
		}
	})
}
