package generate

import (
	"cmp"
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"promptgen/model"

	"promptgen/internal/kernel"
)

// text is a text with its score.
type text struct {
	tokens []int32
	score  float64 // sum of logarithms; of one that has ended, divided by its length
}

// refBeams is beam search in the words of its definition, reading the whole
// text again for each token.
func refBeams(t *testing.T, p *model.Params, r Request, eos int32) []text {
	f := newTestForwarder(t, newCPU(t, 1), p, kernel.FP32)
	live, done := []text{{}}, []text(nil)
	finish := func(x text, length int) {
		x.score /= math.Pow(float64(length), r.LengthPenalty)
		done = append(done, x)
		slices.SortStableFunc(done, func(a, b text) int { return cmp.Compare(b.score, a.score) })
		done = done[:min(len(done), r.Beams)]
	}
	for n := 1; n <= r.Length; n++ {
		var ways []text
		for _, x := range live {
			var c cache
			logits := f.run([]segment{{&c, slices.Concat(r.PromptIDs, x.tokens)}})
			norm := logSumExp(logits)
			for id, l := range logits {
				if n <= r.MinLength && int32(id) == eos {
					continue
				}
				ways = append(ways, text{append(slices.Clip(x.tokens), int32(id)), x.score + float64(l) - norm})
			}
			f.pool.release(&c)
		}
		slices.SortStableFunc(ways, func(a, b text) int { return cmp.Compare(b.score, a.score) })
		live = nil
		for place, x := range ways[:min(len(ways), 2*r.Beams)] {
			if x.tokens[n-1] != eos {
				live = append(live, x)
			} else if place < r.Beams {
				x.tokens = x.tokens[:n-1]
				finish(x, n)
			}
			if len(live) == r.Beams {
				break
			}
		}
		if len(done) == r.Beams && done[len(done)-1].score >= live[0].score/math.Pow(float64(n), r.LengthPenalty) {
			return done
		}
	}
	for _, x := range live {
		finish(x, r.Length)
	}
	return done
}

// The search finds what the plain one finds, also past the window's beginning,
// with an end of text and beside other requests; all pages come back.
func TestBeamsEqualPlainSearch(t *testing.T) {
	const vocab = 12
	r := rand.New(rand.NewPCG(1, 1))
	for round := range 12 {
		p := randomModel(uint64(40+round), vocab, 64)
		eos := int32(-1)
		if round%3 > 0 {
			eos = 3
		}
		e, pages := pooledEngine(t, p, nil, newCPU(t, 0), EngineOptions{Slots: 3, EOS: &eos})
		req := Request{
			PromptIDs: ids(r, vocab, 3+r.IntN(40)), Length: 1 + r.IntN(9), Beams: 1 + r.IntN(6), MinLength: r.IntN(3),
			LengthPenalty: []float64{0, 1, 2, -1}[r.IntN(4)],
		}
		req.Samples = 1 + r.IntN(req.Beams)
		ctx, stop := context.WithCancel(t.Context())
		var traffic sync.WaitGroup
		for i := range 2 {
			traffic.Go(func() {
				for seed := uint64(i); ctx.Err() == nil; seed++ {
					_, _ = e.Generate(ctx, Request{PromptIDs: []int32{1, 2, 5}, Length: 7, Samples: 2, Temperature: 1, Seed: seed})
				}
			})
		}
		got, err := e.Generate(t.Context(), req)
		stop()
		traffic.Wait()
		if err != nil {
			t.Fatal(err)
		}
		want := refBeams(t, p, req, eos)
		for i, s := range got.Samples {
			if !slices.Equal(s.Tokens, want[i].tokens) {
				t.Errorf("%+v, text %d: %v, want %v", req, i, s.Tokens, want[i].tokens)
			}
		}
		e.Close()
		if len(pages.free) != pages.made {
			t.Errorf("%d of %d pages came back", len(pages.free), pages.made)
		}
	}
}

// With beams for every text there is, the best of all is found.
func TestBeamsFindTheBest(t *testing.T) {
	const vocab, length = 5, 3
	p := randomModel(50, vocab, 16)
	e := newEngine(t, p, newCPU(t, 0), EngineOptions{})
	got, err := e.Generate(t.Context(), Request{PromptIDs: []int32{1, 2}, Length: length, Beams: 25, Samples: 25})
	if err != nil {
		t.Fatal(err)
	}
	f := newTestForwarder(t, newCPU(t, 1), p, kernel.FP32)
	best := math.Inf(-1)
	for code := range vocab * vocab * vocab {
		x := []int32{1, 2, int32(code % vocab), int32(code / vocab % vocab), int32(code / vocab / vocab)}
		sum := 0.0
		for n := 2; n < len(x); n++ {
			var c cache
			logits := f.run([]segment{{&c, x[:n]}})
			sum += float64(logits[x[n]]) - logSumExp(logits)
			f.pool.release(&c)
		}
		best = max(best, sum)
	}
	if d := got.Samples[0].LogProb - best; math.Abs(d) > 1e-5 {
		t.Errorf("the best text has %g, the search found %g", best, got.Samples[0].LogProb)
	}
	for i, s := range got.Samples[1:] {
		if s.LogProb > got.Samples[i].LogProb || slices.Equal(s.Tokens, got.Samples[i].Tokens) {
			t.Errorf("text %d: %v %g after %g", i+1, s.Tokens, s.LogProb, got.Samples[i].LogProb)
		}
	}
}

// A search past n_ctx, with stop strings, bans and log-probabilities, and one
// that is left: the texts are whole and nothing is lost.
func TestBeamsWithTexts(t *testing.T) {
	const vocab = 60
	tok := wordTokenizer(t, vocab)
	e, pages := pooledEngine(t, randomModel(51, vocab, 16), tok, newCPU(t, 0), EngineOptions{})
	req := Request{Prompt: "丂七", Length: 60, MinLength: 40, Beams: 3, Samples: 3, LengthPenalty: 1, TopLogProbs: 2}
	plain, err := e.Generate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range plain.Samples {
		if s.Text != req.Prompt+s.Continuation || len(s.LogProbs) != len(s.Tokens) || len(s.Top) != len(s.Tokens) || s.Finish == "" {
			t.Errorf("text %d: %s, %d log-probabilities for %d tokens", i, describe(s), len(s.LogProbs), len(s.Tokens))
		}
	}
	stop := string([]rune(plain.Samples[0].Continuation)[5:7])
	req.Stop, req.MinLength, req.Length = []string{stop}, 0, 20
	stopped, err := e.Generate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stopped.Samples {
		if strings.Contains(s.Continuation, stop) {
			t.Errorf("%q is shown: %s", stop, describe(s))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := e.Generate(ctx, Request{Prompt: "丂", Length: MaxLength, MinLength: MaxLength, Beams: 4, Samples: 1})
		ended <- err
	}()
	waitFor(t, func() bool { return e.Stats().Active == 1 })
	cancel()
	<-ended
	waitFor(t, func() bool { return e.Stats().Active == 0 })
	e.Close()
	if len(pages.free) != pages.made {
		t.Errorf("%d of %d pages came back", len(pages.free), pages.made)
	}
	for _, bad := range []Request{{Prompt: "丂", Beams: 2, Samples: 3}, {Prompt: "丂", Beams: MaxBeams + 1}, {Prompt: "丂", Beams: 2, OnToken: func(Piece) {}}} {
		if bad.Validate() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}
