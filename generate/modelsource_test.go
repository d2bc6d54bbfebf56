package generate

import (
	"path/filepath"
	"slices"
	"testing"

	"promptgen/internal/kernel"
	"promptgen/model/checkpoint"
	"promptgen/tokenizer"
)

// What a file has in another form than float32 is packed as it lies there, or
// converted while it is read: the same texts as from weights in memory.
func TestFilesAreReadStraight(t *testing.T) {
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
	load := func(path string, keep bool) *checkpoint.Model {
		m, err := checkpoint.Load(path, checkpoint.LoadOptions{KeepEncoded: keep})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		return m
	}
	const name = "transformer.h.0.mlp.c_fc.weight"
	for _, c := range []struct {
		format checkpoint.Format
		dtype  kernel.DType
	}{
		{checkpoint.FormatGGUF, kernel.FP32}, {checkpoint.FormatGGUF, kernel.BF16},
		{checkpoint.FormatGGUF, kernel.Q8_0}, {checkpoint.FormatGGUF, kernel.Q4_0},
		{checkpoint.FormatHF, kernel.BF16}, {checkpoint.FormatHF, kernel.FP16},
	} {
		path := filepath.Join(t.TempDir(), "model")
		err := checkpoint.Export(t.Context(), path, m, checkpoint.ExportOptions{Format: c.format, DType: c.dtype.String()})
		if err != nil {
			t.Fatal(err)
		}
		kept, decoded := load(path, true), load(path, false)
		if enc, ok := kept.Encoded(name); !ok || enc.DType.Name() != c.dtype.String() {
			t.Fatalf("%s, %v: not kept encoded", c.format, c.dtype)
		}
		if c.format == checkpoint.FormatGGUF { // whose vectors stay float32
			if got, want := write(FromModel(kept), c.dtype), write(FromParams(m.Params, nil), c.dtype); !slices.Equal(got, want) {
				t.Errorf("%s, %v: %v, want %v", c.format, c.dtype, got, want)
			}
		}
		for _, d := range []kernel.DType{kernel.BF16, kernel.Q4_0} {
			if got, want := write(FromModel(kept), d), write(FromModel(decoded), d); !slices.Equal(got, want) {
				t.Errorf("%s, %v as %v: %v, want %v", c.format, c.dtype, d, got, want)
			}
		}
	}
}
