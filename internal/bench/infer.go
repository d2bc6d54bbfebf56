package bench

import (
	"context"
	"hash/fnv"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"promptgen/generate"
	"promptgen/internal/decode"
	"promptgen/internal/kernel"
	"promptgen/model"
	"promptgen/train"
)

// InferOptions say what to measure.
type InferOptions struct {
	Source generate.Source // nil: random weights of Config
	Config model.Config
	DType  kernel.DType
	CPU    *kernel.CPU
	Seed   uint64
}

// InferResult is the speed of generation. Its JSON is that of `bench infer
// --json`.
type InferResult struct {
	Prefill     float64 `json:"prefill_tokens_per_s"`       // of a prompt of PrefillTokens, read at once
	Decode      float64 `json:"decode_tokens_per_s"`        // one text, token by token, from 8 tokens on
	DecodeLong  float64 `json:"decode_long_tokens_per_s"`   // the same from LongTokens on
	Batch5      float64 `json:"batch5_tokens_per_s"`        // five texts of 50 tokens together
	Request     float64 `json:"request_5x50_ms"`            // the same asked of an engine, with prompt and top-k 30
	First       float64 `json:"first_token_ms"`             // of that request
	DecodeBytes int     `json:"decode_bytes_per_token"`     // of weights
	LimitBytes  float64 `json:"limit_bytes_per_s"`          // what the machine reads at most
	Share       float64 `json:"decode_share_of_limit"`      // Decode*DecodeBytes / LimitBytes
	LongShare   float64 `json:"decode_long_share_of_speed"` // DecodeLong / Decode
	LoadMS      float64 `json:"load_ms"`                    // packing the weights
	PeakRSS     int64   `json:"peak_rss_bytes"`             // before the limits were measured
	PrefillLen  int     `json:"prefill_tokens"`
	LongLen     int     `json:"long_tokens"`
	DType       string  `json:"dtype"`
	ISA         string  `json:"isa"`
	Threads     int     `json:"threads"`
	Machine     Machine `json:"limits"`
}

// What is measured, where n_ctx allows it.
const (
	prefillTokens = 512
	longTokens    = 900
	promptTokens  = 6
	decodeTokens  = 128
	longSteps     = 64
	samples       = 5
	sampleTokens  = 50
	repeats       = 5 // of each; the median counts
)

// Infer measures prefill and decoding, and what of it the memory's speed would
// allow.
func Infer(ctx context.Context, o InferOptions) (*InferResult, error) {
	if o.Source == nil {
		o.Source = randomSource{o.Config, o.Seed}
	}
	c, _ := o.Source.Config()
	begun := time.Now()
	reader, err := generate.NewReader(o.Source, o.CPU, o.DType)
	if err != nil {
		return nil, err
	}
	r := &InferResult{
		DType: o.DType.String(), ISA: o.CPU.ISA(), Threads: o.CPU.Threads(),
		LoadMS: ms(time.Since(begun)), DecodeBytes: reader.WeightBytes(),
	}
	b := &inferBench{ctx: ctx, r: reader, ids: randomIDs(c.VocabSize, c.NCtx, o.Seed)}
	r.PrefillLen = min(prefillTokens, max(1, c.NCtx/2))
	r.LongLen = min(longTokens, max(1, c.NCtx-longSteps))
	r.Prefill = b.speeds(timed{r.PrefillLen, func() time.Duration { return b.prefill(r.PrefillLen) }})[0]
	decode := b.speeds(b.decode(min(8, c.NCtx/2), decodeTokens, 1, c.NCtx), b.decode(r.LongLen, longSteps, 1, c.NCtx))
	r.Decode, r.DecodeLong = decode[0], decode[1]
	r.Batch5 = b.speeds(b.decode(promptTokens, sampleTokens, samples, c.NCtx))[0]
	reader.Close()
	debug.FreeOSMemory() // its cache, before the engine makes another
	if b.err != nil {
		return nil, b.err
	}
	if err := r.request(ctx, o, b.ids); err != nil {
		return nil, err
	}
	r.LongShare = r.DecodeLong / r.Decode
	r.PeakRSS = train.PeakRSS()
	r.Machine = MeasureMachine(o.CPU, o.DType, 0)
	r.LimitBytes = r.Machine.Bytes
	r.Share = r.Decode * float64(r.DecodeBytes) / r.LimitBytes
	return r, nil
}

// request measures the original's request through an engine.
func (r *InferResult) request(ctx context.Context, o InferOptions, ids []int32) error {
	e, err := generate.NewEngineFrom(o.Source, nil, o.CPU, generate.EngineOptions{DType: o.DType})
	if err != nil {
		return err
	}
	defer e.Close()
	var times, firsts []time.Duration
	for i := range repeats {
		// Another prompt each time: what was read before is remembered.
		resp, err := e.Generate(ctx, generate.Request{
			PromptIDs: ids[min(i*promptTokens, max(0, len(ids)-promptTokens)):][:min(promptTokens, len(ids))],
			Length:    sampleTokens, Samples: samples, Temperature: 1, TopK: 30, Seed: o.Seed,
		})
		if err != nil {
			return err
		}
		times, firsts = append(times, resp.Total), append(firsts, resp.FirstToken)
	}
	r.Request, r.First = ms(median(times)), ms(median(firsts))
	return nil
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }

// inferBench measures a reader.
type inferBench struct {
	ctx context.Context
	r   *generate.Reader
	ids []int32 // n_ctx of them
	err error
}

// timed is a run that reads or writes so many tokens in the time it returns.
type timed struct {
	tokens int
	run    func() time.Duration
}

// speeds are the tokens a second of some runs: of the median of several rounds
// after one to warm up. Runs that are compared take turns, for the machine's
// speed drifts.
func (b *inferBench) speeds(runs ...timed) []float64 {
	times := make([][]time.Duration, len(runs))
	for round := range repeats + 1 {
		for i, t := range runs {
			d := t.run()
			if b.err = b.ctx.Err(); b.err != nil { // this one may have been cut short
				return make([]float64, len(runs))
			}
			if round > 0 {
				times[i] = append(times[i], d)
			}
		}
	}
	speeds := make([]float64, len(runs))
	for i, t := range runs {
		speeds[i] = float64(t.tokens) / median(times[i]).Seconds()
	}
	return speeds
}

func (b *inferBench) prefill(n int) time.Duration {
	var t generate.Text
	defer b.r.Drop(&t)
	begun := time.Now()
	b.r.Read(generate.Part{Text: &t, IDs: b.ids[:n]})
	return time.Since(begun)
}

// decode writes some texts that begin with the same n tokens; reading these is
// not timed.
func (b *inferBench) decode(n, steps, texts, nCtx int) timed {
	n = max(1, min(n, nCtx-1))
	steps = min(steps, nCtx-n)
	return timed{steps * texts, func() time.Duration {
		var first generate.Text
		b.r.Read(generate.Part{Text: &first, IDs: b.ids[:n]})
		parts := make([]generate.Part, texts)
		for i := range parts {
			parts[i].Text = b.r.Fork(&first)
		}
		b.r.Drop(&first)
		begun := time.Now()
		for s := 0; s < steps && b.ctx.Err() == nil; s++ {
			for i := range parts {
				at := (n + s + i) % len(b.ids)
				parts[i].IDs = b.ids[at : at+1]
			}
			b.r.Read(parts...)
		}
		d := time.Since(begun)
		for _, p := range parts {
			b.r.Drop(p.Text)
		}
		return d
	}}
}

func randomIDs(vocab, n int, seed uint64) []int32 {
	r := rand.New(rand.NewPCG(seed, 0))
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(r.IntN(vocab))
	}
	return ids
}

// randomSource is a model whose weights are made while they are read, so that
// the memory measured is generation's.
type randomSource struct {
	c    model.Config
	seed uint64
}

func (s randomSource) Config() (model.Config, bool) { return s.c, false }

func (s randomSource) Vector(name string) ([]float32, error) {
	for _, t := range s.c.Tensors(false) {
		if t.Name == name {
			v := make([]float32, t.Len())
			s.fill(v, name, 0)
			return v, nil
		}
	}
	return nil, nil
}

func (s randomSource) Parts(name string, k, _ int, _ kernel.DType, workers int) decode.Parts {
	buf := make([][]float32, workers)
	return func(worker, lo, hi int) (decode.Part, error) {
		b := &buf[worker]
		*b = slices.Grow((*b)[:0], (hi-lo)*k)[:(hi-lo)*k]
		s.fill(*b, name, lo)
		return decode.Part{Columns: *b}, nil
	}
}

func (randomSource) Done(string) {}

// fill draws evenly from an interval with the standard deviation of GPT-2's
// first weights.
func (s randomSource) fill(x []float32, name string, part int) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	r := rand.NewPCG(s.seed+uint64(part), h.Sum64())
	const width = 0.02 * 3.4641016 / (1 << 32)
	for i := 0; i < len(x); i += 2 {
		u := r.Uint64()
		x[i] = float32(int32(u)) * width
		if i+1 < len(x) {
			x[i+1] = float32(int32(u>>32)) * width
		}
	}
}
