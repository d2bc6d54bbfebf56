package generate

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"promptgen/internal/kernel"
	"promptgen/model"
)

// BenchmarkEngine measures GPT-2 small with random weights: a prompt of 512
// tokens, one text, and several written together.
func BenchmarkEngine(b *testing.B) {
	p := model.NewParams(model.Config{
		VocabSize: 21128, NPositions: 1024, NCtx: 1024, NEmbd: 768, NHead: 12, NLayer: 12,
		LayerNormEpsilon: 1e-5, InitializerRange: 0.02,
	}, false)
	p.Init(1)
	cpu := newCPU(b, 0)
	for _, dt := range []kernel.DType{kernel.FP32, kernel.BF16} {
		e := newEngine(b, p, cpu, EngineOptions{DType: dt})
		for _, c := range []struct{ prompt, samples, length int }{{512, 1, 1}, {8, 1, 30}, {900, 1, 30}, {8, 5, 50}, {8, 16, 30}} {
			b.Run(fmt.Sprintf("%v/prompt%d/samples%d/tokens%d", dt, c.prompt, c.samples, c.length), func(b *testing.B) {
				prompt := ids(rand.New(rand.NewPCG(1, 1)), 21128, c.prompt)
				var after, first float64
				for b.Loop() {
					r, err := e.Generate(b.Context(), Request{PromptIDs: prompt, Length: c.length, Samples: c.samples, Temperature: 1, TopK: 30})
					if err != nil {
						b.Fatal(err)
					}
					first += r.FirstToken.Seconds()
					after += (r.Total - r.FirstToken).Seconds()
				}
				n := float64(b.N)
				b.ReportMetric(float64(c.prompt)*n/first, "prompt-tok/s")
				if c.length > 1 {
					b.ReportMetric(float64(c.samples*(c.length-1))*n/after, "tok/s")
				}
			})
		}
		e.Close()
	}
}

// BenchmarkDraw measures the choice of one token of 21128, where the model is
// rather sure (as trained ones are) and where it is not.
func BenchmarkDraw(b *testing.B) {
	const vocab = 21128
	cpu := newCPU(b, 1)
	s := newSampler(cpu, vocab)
	for _, width := range []float64{3, 1} {
		logits := make([]float32, vocab)
		r := rand.New(rand.NewPCG(1, 1))
		for i := range logits {
			logits[i] = float32(r.NormFloat64() * width)
		}
		if width == 3 {
			for i := range 10 {
				logits[r.IntN(vocab)] = 18 - float32(i)
			}
		}
		for _, c := range []struct {
			name string
			r    Request
		}{
			{"greedy", Request{}},
			{"all", Request{Temperature: 1}},
			{"top-k", Request{Temperature: 1, TopK: 30}},
			{"top-k,top-p", Request{Temperature: 0.8, TopK: 30, TopP: 0.9}},
			{"top-p", Request{Temperature: 1, TopP: 0.9}},
			{"min-p", Request{Temperature: 1, MinP: 0.05}},
			{"typical-p", Request{Temperature: 1, TypicalP: 0.9}},
			{"penalties", Request{Temperature: 1, TopK: 30, RepetitionPenalty: 1.1, NoRepeatNGram: 3}},
		} {
			b.Run(fmt.Sprintf("width%g/%s", width, c.name), func(b *testing.B) {
				h, rng := newHistory(ids(r, vocab, 500), &c.r), newStream(1, draft{})
				rs := &rules{never: []int32{1, 2, 3}, eos: 4}
				b.ReportAllocs()
				for b.Loop() {
					if _, _, err := s.draw(logits, &c.r, rs, &h, rng); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkScheduler measures what a step of 16 texts costs beside the model,
// which is as small as can be: the draws over a vocabulary of 21128 and the
// scheduler itself.
func BenchmarkScheduler(b *testing.B) {
	p := model.NewParams(model.Config{VocabSize: 21128, NPositions: 256, NCtx: 256, NEmbd: 8, NHead: 1, NLayer: 1, LayerNormEpsilon: 1e-5, InitializerRange: 0.02}, false)
	p.Init(1)
	e := newEngine(b, p, newCPU(b, 0), EngineOptions{})
	const steps = 200
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.Generate(b.Context(), Request{PromptIDs: []int32{1}, Length: steps, Samples: 16, Temperature: 1, TopK: 30}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N)/steps, "µs/step")
}
