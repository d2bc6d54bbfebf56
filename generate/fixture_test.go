package generate

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"promptgen/internal/kernel"
	"promptgen/model"
	"promptgen/tokenizer"
)

func goldenDir() string {
	if dir := os.Getenv("PROMPTGEN_GOLDEN"); dir != "" {
		return dir
	}
	return filepath.Join("testdata", "gpt2_golden")
}

// array is the contents of an .npy file.
type array[T any] struct {
	shape []int
	data  []T
}

var npyShape = regexp.MustCompile(`'shape': \(([^)]*)\)`)

// readNPY reads a little-endian, C-order file of float32 or int32.
func readNPY[T int32 | float32](t testing.TB, dir, name string) array[T] {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	head := 10 + int(binary.LittleEndian.Uint16(b[8:]))
	m := npyShape.FindSubmatch(b[:head])
	if m == nil {
		t.Fatalf("%s: no shape in its header", name)
	}
	a, n := array[T]{}, 1
	for _, f := range strings.FieldsFunc(string(m[1]), func(r rune) bool { return r == ',' || r == ' ' }) {
		d, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		a.shape, n = append(a.shape, d), n*d
	}
	a.data = make([]T, n)
	if err := binary.Read(bytes.NewReader(b[head:]), binary.LittleEndian, a.data); err != nil {
		t.Fatal(err)
	}
	return a
}

// loadGolden reads config.json and model.safetensors.
func loadGolden(t testing.TB, dir string) *model.Params {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var c model.Config
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	if b, err = os.ReadFile(filepath.Join(dir, "model.safetensors")); err != nil {
		t.Fatal(err)
	}
	head := 8 + int(binary.LittleEndian.Uint64(b))
	var index map[string]struct {
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(b[8:head], &index); err != nil {
		// __metadata__ has strings only
		t.Fatal(err)
	}
	p := model.NewParams(c, false)
	for _, tensor := range p.Tensors {
		at, ok := index[tensor.Name]
		if !ok || at.Offsets[1]-at.Offsets[0] != 4*len(tensor.Data) {
			t.Fatalf("%s: missing or of another size", tensor.Name)
		}
		if err := binary.Read(bytes.NewReader(b[head+at.Offsets[0]:]), binary.LittleEndian, tensor.Data); err != nil {
			t.Fatal(err)
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
	f, err := newForwarder(cpu, p, d)
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

func ids(r *rand.Rand, vocab, n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(r.IntN(vocab))
	}
	return out
}

func describe(s Sample) string { return fmt.Sprintf("%v %q (%s)", s.Tokens, s.Text, s.Finish) }
