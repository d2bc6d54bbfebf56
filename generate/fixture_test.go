package generate

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"promptgen/internal/kernel"
	"promptgen/internal/testkit"
	"promptgen/model"
	"promptgen/tokenizer"
)

// loadModel reads config.json and model.safetensors.
func loadModel(t testing.TB, dir string) *model.Params {
	t.Helper()
	var c model.Config
	testkit.ReadJSON(t, &c, dir, "config.json")
	file := testkit.ReadSafetensors(t, dir, "model.safetensors")
	p := model.NewParams(c, false)
	for _, tensor := range p.Tensors {
		if copy(tensor.Data, file[tensor.Name].Floats) != len(tensor.Data) {
			t.Fatalf("%s: missing or of another size", tensor.Name)
		}
	}
	return p
}

// randomModel is a small model whose every parameter matters.
func randomModel(seed uint64, vocab, nCtx int) *model.Params {
	p := model.NewParams(model.Config{
		VocabSize: vocab, NPositions: nCtx, NCtx: nCtx, NEmbd: 32, NHead: 4, NLayer: 2, LayerNormEpsilon: 1e-5,
	}, false)
	r := rand.New(rand.NewPCG(seed, 1))
	for _, tensor := range p.Tensors {
		for i := range tensor.Data {
			tensor.Data[i] = float32(r.NormFloat64()) * 0.3
		}
	}
	return p
}

// wordTokenizer has the special tokens, some Chinese characters and some
// English words, n tokens in all.
func wordTokenizer(t testing.TB, n int) *tokenizer.Tokenizer {
	t.Helper()
	tokens := []string{"[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]", "hello", "world", "go", "##es", ",", "。", "#", "##"}
	for i := 0; len(tokens) < n; i++ {
		tokens = append(tokens, string(rune(0x4e00+i)))
	}
	v, err := tokenizer.NewVocab(tokens[:n])
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.New(v, tokenizer.Options{Level: tokenizer.LevelChar, LowerCase: true})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func newTestForwarder(t testing.TB, cpu *kernel.CPU, p *model.Params, d kernel.DType) *forwarder {
	t.Helper()
	f, err := newForwarder(cpu, FromParams(p, nil), d, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return f
}

// newEngine starts an engine without a tokenizer.
func newEngine(t testing.TB, p *model.Params, cpu *kernel.CPU, o EngineOptions) *Engine {
	t.Helper()
	return textEngine(t, p, nil, cpu, o)
}

func textEngine(t testing.TB, p *model.Params, tok *tokenizer.Tokenizer, cpu *kernel.CPU, o EngineOptions) *Engine {
	t.Helper()
	e, err := NewEngine(p, tok, cpu, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// pooledEngine is an engine without a tokenizer, unless one is given, and the
// scheduler's pages, to be counted after Close.
func pooledEngine(t testing.TB, p *model.Params, tok *tokenizer.Tokenizer, cpu *kernel.CPU, o EngineOptions) (*Engine, *pool) {
	t.Helper()
	s, err := prepare(FromParams(p, nil), tok, cpu, o)
	if err != nil {
		t.Fatal(err)
	}
	go s.run()
	t.Cleanup(s.e.Close)
	return s.e, s.f.pool
}

func ids(r *rand.Rand, vocab, n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(r.IntN(vocab))
	}
	return out
}

func describe(s Sample) string { return fmt.Sprintf("%v %q (%s)", s.Tokens, s.Text, s.Finish) }
