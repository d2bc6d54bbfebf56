package generate

import (
	"path/filepath"
	"slices"
	"testing"

	"promptgen/internal/kernel"
	"promptgen/model/checkpoint"
	"promptgen/tokenizer"
)

// A GGUF file's blocks are packed as they lie there: the same texts as from
// weights that are quantized while they are read, and from a file of another
// format they are converted.
func TestGGUFIsReadStraight(t *testing.T) {
	const vocab = 70
	tok := wordTokenizer(t, vocab)
	m := checkpoint.New(randomModel(17, vocab, 32), tok.Vocab(), tokenizer.LevelChar, true)
	cpu := newCPU(t, 2)
	write := func(src Source, d kernel.DType) []int32 {
		e, err := NewEngineFrom(src, nil, cpu, EngineOptions{DType: d})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		r, err := e.Generate(t.Context(), Request{PromptIDs: []int32{7, 8, 9}, Length: 25, Temperature: 1, Seed: 3})
		if err != nil {
			t.Fatal(err)
		}
		return r.Samples[0].Tokens
	}
	for _, d := range []kernel.DType{kernel.FP32, kernel.BF16, kernel.Q8_0, kernel.Q4_0} {
		path := filepath.Join(t.TempDir(), "model.gguf")
		err := checkpoint.Export(t.Context(), path, m, checkpoint.ExportOptions{Format: checkpoint.FormatGGUF, DType: d.String()})
		if err != nil {
			t.Fatal(err)
		}
		kept, err := checkpoint.Load(path, checkpoint.LoadOptions{KeepEncoded: true})
		if err != nil {
			t.Fatal(err)
		}
		defer kept.Close()
		if enc, ok := kept.Encoded("transformer.h.0.mlp.c_fc.weight"); !ok || enc.DType.Name() != d.String() {
			t.Fatalf("%v: not kept encoded", d)
		}
		if got, want := write(FromModel(kept), d), write(FromParams(m.Params, nil), d); !slices.Equal(got, want) {
			t.Errorf("%v: %v, want %v", d, got, want)
		}
		decoded, err := checkpoint.Load(path, checkpoint.LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer decoded.Close()
		if got, want := write(FromModel(kept), kernel.BF16), write(FromModel(decoded), kernel.BF16); !slices.Equal(got, want) {
			t.Errorf("%v as bf16: %v, want %v", d, got, want)
		}
	}
}
