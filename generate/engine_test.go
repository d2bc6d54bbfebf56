package generate

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"promptgen/internal/fault"
	"promptgen/internal/kernel"
)

// wholeForward is greedy decoding without a cache: the whole text is read again
// for each token.
func wholeForward(f *forwarder, prompt []int32, n int) []int32 {
	text := slices.Clone(prompt)
	for range n {
		var c cache
		text = append(text, argmax(f.run([]segment{{&c, text}})))
		f.pool.release(&c)
	}
	return text[len(prompt):]
}

// What the cache holds is what reading everything again would give, for one
// sequence and for sixteen together.
func TestCachedEqualsWhole(t *testing.T) {
	prompts := 1000
	if testing.Short() {
		prompts = 24
	}
	const vocab, nCtx, length = 97, 40, 6
	p := randomModel(1, vocab, nCtx)
	f := newTestForwarder(t, newCPU(t, 1), p, kernel.FP32)
	for _, slots := range []int{1, 16} {
		e := newEngine(t, p, newCPU(t, 0), EngineOptions{Slots: slots})
		r := rand.New(rand.NewPCG(2, uint64(slots)))
		var wg sync.WaitGroup
		places := make(chan struct{}, slots)
		for range prompts / 2 {
			prompt := ids(r, vocab, 1+r.IntN(nCtx-length))
			want := wholeForward(f, prompt, length)
			places <- struct{}{}
			wg.Go(func() {
				defer func() { <-places }()
				got, err := e.Generate(t.Context(), Request{PromptIDs: prompt, Length: length})
				if err != nil {
					t.Error(err)
				} else if !slices.Equal(got.Samples[0].Tokens, want) {
					t.Errorf("slots %d, prompt %v: %v, want %v", slots, prompt, got.Samples[0].Tokens, want)
				}
			})
		}
		wg.Wait()
	}
}

// The same seed gives the same text whatever the batch, the threads and the
// traffic beside it.
func TestSeedAloneDecides(t *testing.T) {
	const vocab = 300
	p, tok := randomModel(3, vocab, 48), wordTokenizer(t, vocab)
	dtypes, batches := []kernel.DType{kernel.FP32, kernel.BF16, kernel.Q4_0}, []int{1, 5, 16}
	if testing.Short() {
		dtypes, batches = dtypes[:1], batches[1:]
	}
	for _, dt := range dtypes {
		req := Request{
			Prompt: "hello 丂七丄", Length: 60, Samples: 5, Temperature: 1.1, TopK: 50, TopP: 0.95,
			RepetitionPenalty: 1.1, MinLength: 50, Seed: 42,
		}
		var want *Response
		for _, slots := range batches {
			for _, threads := range []int{1, 2} {
				e := textEngine(t, p, tok, newCPU(t, threads), EngineOptions{Slots: slots, DType: dt})
				ctx, stop := context.WithCancel(t.Context())
				var traffic sync.WaitGroup
				for i := range 3 {
					traffic.Go(func() {
						for seed := uint64(i); ctx.Err() == nil; seed++ {
							_, _ = e.Generate(ctx, Request{Prompt: "丂世丄丅", Length: 7, Samples: 2, Temperature: 1, Seed: seed})
						}
					})
				}
				got, err := e.Generate(t.Context(), req)
				stop()
				traffic.Wait()
				if err != nil {
					t.Fatal(err)
				}
				if want == nil {
					want = got
				}
				for i, s := range got.Samples {
					if w := want.Samples[i]; s.Text != w.Text || s.LogProb != w.LogProb {
						t.Errorf("%v, slots %d, threads %d, sample %d: %s, want %s", dt, slots, threads, i, describe(s), describe(w))
					}
				}
			}
		}
	}
}

// What is streamed joins to the continuation, and the text begins with the
// prompt as it was sent.
func TestStreamJoins(t *testing.T) {
	const vocab = 120
	e := textEngine(t, randomModel(4, vocab, 32), wordTokenizer(t, vocab), newCPU(t, 0), EngineOptions{})
	for _, prompt := range []string{"", " ", "hello", "HELLO ", "丂七\n", "a  b\t#", "\x00\u200b丂", strings.Repeat("丂", 100)} {
		pieces := make([]strings.Builder, 3)
		ended := make([]Finish, 3)
		r, err := e.Generate(t.Context(), Request{
			Prompt: prompt, Length: 40, Samples: 3, Temperature: 2, Seed: 7,
			OnToken: func(p Piece) {
				pieces[p.Sample].WriteString(p.Text)
				ended[p.Sample] = p.Finish
			},
		})
		if err != nil {
			t.Fatalf("%q: %v", prompt, err)
		}
		for i, s := range r.Samples {
			if s.Text != prompt+s.Continuation || pieces[i].String() != s.Continuation || ended[i] != s.Finish {
				t.Errorf("%q: streamed %q (%s), text %s", prompt, pieces[i].String(), ended[i], describe(s))
			}
			if s.Continuation != strings.TrimRight(s.Continuation, whiteSpace) {
				t.Errorf("%q: %q ends with white space", prompt, s.Continuation)
			}
			if strings.ContainsAny(s.Continuation, "[]") {
				t.Errorf("%q: a special token in %q", prompt, s.Continuation)
			}
		}
	}
}

// [PAD], [UNK], [MASK] and rows of the head without a token are never drawn;
// the end of text not before MinLength.
func TestNeverDrawn(t *testing.T) {
	const vocab = 40
	p, tok := randomModel(5, vocab+3, 32), wordTokenizer(t, vocab)
	e := textEngine(t, p, tok, newCPU(t, 0), EngineOptions{})
	ended := 0
	for seed := range uint64(20) {
		r, err := e.Generate(t.Context(), Request{Prompt: "丂", Length: 50, MinLength: 10, Samples: 4, Temperature: 3, Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range r.Samples {
			if s.Finish == FinishEOS {
				ended++
			}
			if len(s.Tokens) < 10 {
				t.Errorf("ended after %d tokens", len(s.Tokens))
			}
			for _, id := range s.Tokens {
				if id >= vocab || slices.Contains([]string{"[PAD]", "[UNK]", "[MASK]", "[CLS]"}, tok.Vocab().Token(id)) {
					t.Errorf("drew token %d", id)
				}
			}
		}
	}
	if ended == 0 {
		t.Error("no text ended at [CLS]")
	}
}

// Samples of one request differ unless that is asked for or cannot be.
func TestDuplicatesAreDrawnAgain(t *testing.T) {
	const vocab = 60
	e := newEngine(t, randomModel(6, vocab, 16), newCPU(t, 0), EngineOptions{Slots: 3})
	equal := func(r Request) (pairs int) {
		for seed := range uint64(30) {
			r.Seed = seed
			resp, err := e.Generate(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			for i, s := range resp.Samples {
				for _, o := range resp.Samples[:i] {
					if slices.Equal(s.Tokens, o.Tokens) {
						pairs++
					}
				}
			}
		}
		return pairs
	}
	r := Request{PromptIDs: []int32{1, 2, 3}, Length: 1, Samples: 4, Temperature: 2, TopK: 12}
	fewer := equal(r)
	r.AllowDuplicates = true
	if more := equal(r); fewer*3 > more {
		t.Errorf("%d equal pairs, %d with duplicates allowed", fewer, more)
	}
	r.Temperature = 0
	if pairs := equal(r); pairs != 30*6 {
		t.Errorf("greedy samples differ: %d equal pairs", pairs)
	}
}

func TestPastTheWindow(t *testing.T) {
	const vocab, nCtx = 50, 8
	p := randomModel(7, vocab, nCtx)
	f := newTestForwarder(t, newCPU(t, 1), p, kernel.FP32)
	e := newEngine(t, p, newCPU(t, 0), EngineOptions{})
	prompt := []int32{4, 8, 15, 16, 23, 42, 1, 2, 3, 4, 5}
	got, err := e.Generate(t.Context(), Request{PromptIDs: prompt, Length: 40})
	if err != nil {
		t.Fatal(err)
	}
	// By hand: a full window is replaced by its last half.
	text, window := slices.Clone(prompt), slices.Clone(prompt[len(prompt)-nCtx:])
	for range 40 {
		var c cache
		next := argmax(f.run([]segment{{&c, window}}))
		text, window = append(text, next), append(window, next)
		if len(window) > nCtx {
			window = window[len(window)-nCtx/2:]
		}
	}
	if want := text[len(prompt):]; !slices.Equal(got.Samples[0].Tokens, want) {
		t.Errorf("got  %v\nwant %v", got.Samples[0].Tokens, want)
	}
}

func TestClearAnswers(t *testing.T) {
	const vocab = 50
	p, tok := randomModel(8, vocab, 8), wordTokenizer(t, vocab)
	e := textEngine(t, p, tok, newCPU(t, 0), EngineOptions{})
	none := int32(-1)
	ask := func(r Request) (*Response, error) { return e.Generate(t.Context(), r) }

	if r, err := ask(Request{Prompt: "hello"}); err != nil || r.Samples[0].Text != "hello" || r.Samples[0].Finish != FinishLength {
		t.Errorf("length 0: %v, %v", r, err)
	}
	if r, err := ask(Request{Prompt: "", Length: 3}); err != nil || len(r.Samples[0].Tokens) > 3 {
		t.Errorf("empty prompt: %v, %v", r, err)
	}
	bare := textEngine(t, p, tok, newCPU(t, 0), EngineOptions{BOS: &none})
	if _, err := bare.Generate(t.Context(), Request{Prompt: "", Length: 3}); fault.Code(err) != fault.CodeUsage {
		t.Errorf("empty prompt without a first token: %v", err)
	}
	if r, err := ask(Request{Prompt: strings.Repeat("丂七 ", 500), Length: 3, MinLength: 3}); err != nil || len(r.Samples[0].Tokens) != 3 {
		t.Errorf("long prompt: %v, %v", r, err)
	}
	_, err := ask(Request{Length: -1, Samples: MaxSamples + 1, TopP: 2, Temperature: math.NaN(), Stop: []string{""}})
	for _, field := range []string{"length", "samples", "top_p", "temperature", "stop"} {
		if err == nil || fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not named: %v", field, err)
		}
	}
	if _, err := ask(Request{Prompt: "丂", Length: 3, TypicalP: 0.9, RepetitionPenalty: 1e-40}); fault.Code(err) != fault.CodeUsage {
		t.Errorf("a penalty that makes logits infinite: %v", err)
	}
	_, err = ask(Request{PromptIDs: []int32{0, vocab}, Length: 1})
	if bad := new(PromptError); fault.Code(err) != fault.CodeUsage || !errors.As(err, &bad) || !strings.Contains(err.Error(), "prompt token 1 is 50; give tokens that the model has, 0 to 49") {
		t.Errorf("token beyond the vocabulary: %v", err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := e.Generate(ctx, Request{Prompt: "丂", Length: 1_000_000, MinLength: 1_000_000}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a million tokens, cut short: %v", err)
	}

	p = randomModel(8, vocab, 8)
	p.Blocks[1].FcW[3] = float32(math.NaN())
	for d := kernel.FP32; d <= kernel.Q4_0; d++ {
		if d == kernel.FP16 {
			continue
		}
		if _, err := NewEngine(p, tok, newCPU(t, 0), EngineOptions{DType: d}); fault.Code(err) != fault.CodeCorrupt ||
			!strings.Contains(err.Error(), "transformer.h.1.mlp.c_fc.weight") {
			t.Errorf("NaN weight, %v: %v", d, err)
		}
	}
	p.Blocks[0].LN1Gain[2] = float32(math.Inf(1)) // the first that is read
	const advice = "; the weights are damaged, copy the model again or take another one"
	for name, want := range map[string]string{
		"":          "tensor transformer.h.0.ln_1.weight: value 2 is not finite" + advice,
		"dir/model": "dir/model: tensor transformer.h.0.ln_1.weight: value 2 is not finite" + advice,
	} {
		if _, err := NewEngine(p, tok, newCPU(t, 0), EngineOptions{Name: name}); fault.Code(err) != fault.CodeCorrupt || err.Error() != want {
			t.Errorf("a weight that is not finite: %v, want %s", err, want)
		}
	}
	p = randomModel(8, vocab, 8)
	for i := range p.Blocks[1].LN2Gain {
		p.Blocks[1].LN2Gain[i] = math.MaxFloat32 // finite, and what comes of it is not
	}
	e = textEngine(t, p, tok, newCPU(t, 0), EngineOptions{})
	if _, err := ask(Request{Prompt: "丂", Length: 5, Samples: 4, Temperature: 1}); fault.Code(err) != fault.CodeCorrupt {
		t.Errorf("NaN logits: %v", err)
	}
}
