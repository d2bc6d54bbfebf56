package checkpoint

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/internal/testkit"
	"promptgen/model"
	"promptgen/model/checkpoint/blob"
	"promptgen/tokenizer"
)

// smallConfig is a shape in which no two sizes are equal.
func smallConfig() model.Config {
	return model.Config{
		VocabSize: 11, NPositions: 7, NCtx: 6, NEmbd: 8, NHead: 2, NLayer: 2, NInner: 20,
		Activation: model.GELUNew, LayerNormEpsilon: 1e-5, InitializerRange: 0.02,
		EmbdDrop: 0.1, AttnDrop: 0.2, ResidDrop: 0.3,
	}
}

// smallModel has weights that are all different, none of them representable in
// few bits.
func smallModel(t testing.TB, untied bool) *Model {
	t.Helper()
	v, err := tokenizer.NewVocab([]string{"[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]", "高血压", "##a", "“<&", "##", "▁x", "[unused1]"})
	if err != nil {
		t.Fatal(err)
	}
	p := model.NewParams(smallConfig(), untied)
	p.Init(7)
	for i := range p.Tensors {
		for j := range p.Tensors[i].Data {
			p.Tensors[i].Data[j] += float32(math.Sin(float64(1 + i + 37*j)))
		}
	}
	return New(p, v, tokenizer.LevelChar, true)
}

func sameParams(t testing.TB, got, want *model.Params) {
	t.Helper()
	if got.HeadTied != want.HeadTied || len(got.Tensors) != len(want.Tensors) {
		t.Fatalf("%d tensors, tied %v; want %d, %v", len(got.Tensors), got.HeadTied, len(want.Tensors), want.HeadTied)
	}
	for i, w := range want.Tensors {
		g := got.Tensors[i]
		if g.Name != w.Name || len(g.Data) != len(w.Data) {
			t.Fatalf("%s has %d elements; want %s with %d", g.Name, len(g.Data), w.Name, len(w.Data))
		}
		for j := range w.Data {
			if math.Float32bits(g.Data[j]) != math.Float32bits(w.Data[j]) {
				t.Fatalf("%s[%d] = %v, want %v", w.Name, j, g.Data[j], w.Data[j])
			}
		}
	}
}

func wantCode(t testing.TB, err error, code int, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one of code %d", code)
	}
	if fault.Code(err) != code {
		t.Fatalf("code %d, want %d: %v", fault.Code(err), code, err)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Fatalf("the error does not name %q: %v", p, err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Fatalf("the error is not one line: %q", err)
	}
}

// copyGolden makes a model folder of the golden folder's config and one of its
// weight files.
func copyGolden(t testing.TB, weights, as string) string {
	t.Helper()
	dir := t.TempDir()
	for from, to := range map[string]string{"config.json": "config.json", weights: as} {
		b, err := os.ReadFile(filepath.Join(testkit.Golden(t), from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// The three files of the golden folder hold the same weights: they must be the
// same to the bit, whatever the format.
func TestGoldenFilesAreEqual(t *testing.T) {
	want := testkit.ReadSafetensors(t, testkit.Golden(t), "model.safetensors")
	for _, f := range []struct{ name, as string }{
		{"model.safetensors", safetensorsName},
		{"pytorch_model.bin", torchName},
		{"pytorch_model_legacy.bin", torchName},
	} {
		t.Run(f.name, func(t *testing.T) {
			m, err := Load(copyGolden(t, f.name, f.as), LoadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if !m.Params.HeadTied || len(m.Params.Tensors) != len(want) {
				t.Fatalf("%d tensors, tied %v; want %d, tied", len(m.Params.Tensors), m.Params.HeadTied, len(want))
			}
			for _, got := range m.Params.Tensors {
				if d := testkit.MaxDiff(got.Data, want[got.Name].Floats); d != 0 {
					t.Errorf("%s differs by %g", got.Name, d)
				}
			}
		})
	}
}

// A GPT-2 that nobody here made.
func TestThirdPartyFolder(t *testing.T) {
	dir := filepath.Join(testkit.Root(t), "..", "shared", "fixtures", "third_party", "ort_tiny_random_gpt2")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("third-party model not beside the checkout: ", err)
	}
	m, err := Load(dir, LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.Vocab != nil || m.BOS != 98 || m.EOS != 98 || m.Params.Config.NCtx != 512 {
		t.Errorf("bos %d, eos %d, config %+v", m.BOS, m.EOS, m.Params.Config)
	}
	if _, err := m.Tokenizer(); fault.Code(err) != fault.CodeUsage {
		t.Errorf("a tokenizer without a vocabulary: %v", err)
	}
}

// What Save writes is what Load reads, to the bit, and the folder is the one
// that the contract lists.
func TestSaveLoad(t *testing.T) {
	for _, untied := range []bool{false, true} {
		m := smallModel(t, untied)
		m.UserDict = []byte("高血压 5 n\n")
		m.Meta.Training = &Training{Steps: 12, Epochs: 2, FinalLoss: 3.5, ValLoss: math.NaN(), Seed: 9}
		dir := filepath.Join(t.TempDir(), "model")
		if err := Save(context.Background(), dir, m); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{
			configName, safetensorsName, vocabName, tokenizerName, tokenizerConfName,
			specialTokensName, generationName, metaName, userDictName,
		} {
			if !exists(filepath.Join(dir, name)) {
				t.Errorf("%s was not written", name)
			}
		}
		got, err := Load(dir, LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer got.Close()
		sameParams(t, got.Params, m.Params)
		if got.Params.Config != m.Params.Config {
			t.Errorf("config %+v, want %+v", got.Params.Config, m.Params.Config)
		}
		if got.Vocab.Hash() != m.Vocab.Hash() || got.BOS != 2 || got.EOS != 1 || got.PAD != 3 {
			t.Errorf("vocabulary or its special tokens differ: %d %d %d", got.BOS, got.EOS, got.PAD)
		}
		if got.Meta.Level != tokenizer.LevelChar || !got.Meta.LowerCase || string(got.UserDict) != string(m.UserDict) {
			t.Errorf("meta %+v", got.Meta)
		}
		if tr := got.Meta.Training; tr == nil || tr.Steps != 12 || tr.ValLoss != 0 {
			t.Errorf("training %+v", tr)
		}
		if _, err := got.Tokenizer(); err != nil {
			t.Error(err)
		}
		info, err := Inspect(dir)
		if err != nil || !info.Whole || info.UntiedHead != untied {
			t.Errorf("inspect: %+v, %v", info, err)
		}
	}
}

// Every other way of writing a model reads back to the same bits.
func TestExportLoad(t *testing.T) {
	for _, untied := range []bool{false, true} {
		m := smallModel(t, untied)
		for format, types := range exportTypes {
			for _, d := range types {
				path := filepath.Join(t.TempDir(), "out")
				if err := Export(context.Background(), path, m, ExportOptions{Format: format, DType: d}); err != nil {
					t.Fatal(err)
				}
				got, err := Load(path, LoadOptions{})
				if err != nil {
					t.Fatalf("%s %s: %v", format, d, err)
				}
				defer got.Close()
				if got.Vocab.Hash() != m.Vocab.Hash() || got.BOS != m.BOS || got.EOS != m.EOS || got.Meta.Level != m.Meta.Level {
					t.Errorf("%s %s: vocabulary or meta differ", format, d)
				}
				if d == "fp32" {
					sameParams(t, got.Params, m.Params)
				} else if worst := testkit.MaxDiff(got.Params.WTE, m.Params.WTE); worst > 0.01 {
					t.Errorf("%s %s: weights differ by %g", format, d, worst)
				}
				info, err := Inspect(path)
				if err != nil || !info.Whole {
					t.Fatalf("%s %s: inspect %+v, %v", format, d, info, err)
				}
				want := d
				if strings.HasPrefix(d, "q") { // rows that are no whole blocks
					want = "fp16"
				}
				for _, x := range info.Tensors { // each has its own type, as the file has it
					if strings.HasSuffix(x.Name, "attn.c_attn.weight") && blob.DType(x.DType).Name() != want {
						t.Errorf("%s %s: inspect says that %s is %s", format, d, x.Name, x.DType)
					}
				}
			}
		}
	}
}

// A vocabulary whose tokens collide in llama.cpp's form still comes back.
func TestGGUFKeepsTokensTwice(t *testing.T) {
	m := smallModel(t, false)
	tokens := m.Vocab.Tokens()
	tokens[7], tokens[8] = "x", "x"
	tokens[9], tokens[10] = "##▁x", "##"
	v, err := tokenizer.NewVocab(tokens)
	if err != nil {
		t.Fatal(err)
	}
	m.Vocab = v
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := Export(context.Background(), path, m, ExportOptions{Format: FormatGGUF}); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path, LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Vocab.Hash() != v.Hash() {
		t.Error("the vocabulary changed")
	}
}

// editJSON changes one file of a folder.
func editJSON(t testing.TB, path string, edit func(map[string]any)) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	edit(v)
	if b, err = json.Marshal(v); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Whatever is wrong with a folder is one line with the right exit code, which
// names the file and the tensor or key.
func TestLoadFaults(t *testing.T) {
	saved := func(t *testing.T) string {
		dir := filepath.Join(t.TempDir(), "model")
		if err := Save(context.Background(), dir, smallModel(t, false)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	config := func(edit func(map[string]any)) func(*testing.T, string) {
		return func(t *testing.T, dir string) { editJSON(t, filepath.Join(dir, configName), edit) }
	}
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, name)) }
	}
	cases := []struct {
		name  string
		spoil func(*testing.T, string)
		names []string
	}{
		{"no config", remove(configName), []string{configName}},
		{"no weights", remove(safetensorsName), []string{safetensorsName}},
		{"another model", config(func(c map[string]any) { c["model_type"] = "llama" }), []string{configName, "llama"}},
		{"unscaled attention", config(func(c map[string]any) { c["scale_attn_weights"] = false }), []string{"scale_attn_weights"}},
		{"cross attention", config(func(c map[string]any) { c["add_cross_attention"] = true }), []string{"add_cross_attention"}},
		{"no n_embd", config(func(c map[string]any) { delete(c, "n_embd") }), []string{configName, "n_embd"}},
		{"heads", config(func(c map[string]any) { c["n_head"] = 3 }), []string{configName, "n_head"}},
		{"a layer more", config(func(c map[string]any) { c["n_layer"] = 3 }), []string{safetensorsName, "transformer.h.2.ln_1.weight"}},
		{"a layer less", config(func(c map[string]any) { c["n_layer"] = 1 }), []string{safetensorsName, "transformer.h.1."}},
		{"another width", config(func(c map[string]any) { c["n_inner"] = 24 }), []string{safetensorsName, "c_fc.weight"}},
		{"huge", config(func(c map[string]any) { c["n_embd"], c["n_layer"] = 1<<22, 1<<12 }), []string{safetensorsName, "wte"}},
		{"untied without head", config(func(c map[string]any) { c["tie_word_embeddings"] = false }), []string{"lm_head.weight"}},
		{"no json", func(t *testing.T, dir string) {
			os.WriteFile(filepath.Join(dir, configName), []byte(`{"n_embd":`), 0o644)
		}, []string{configName}},
		{"vocabulary of another size", func(t *testing.T, dir string) {
			os.WriteFile(filepath.Join(dir, vocabName), []byte("[SEP]\n[CLS]\n[MASK]\n[PAD]\n[UNK]\n"), 0o644)
		}, []string{vocabName}},
		{"vocabulary in another order", func(t *testing.T, dir string) {
			os.WriteFile(filepath.Join(dir, vocabName), []byte("[SEP]\n[CLS]\n[MASK]\n[PAD]\n[UNK]\na\nb\nc\nd\ne\nf\n"), 0o644)
		}, []string{vocabName}},
		{"newer promptgen", func(t *testing.T, dir string) {
			editJSON(t, filepath.Join(dir, metaName), func(m map[string]any) { m["format"] = 99 })
		}, []string{metaName}},
		{"a level that is none", func(t *testing.T, dir string) {
			editJSON(t, filepath.Join(dir, metaName), func(m map[string]any) { m["level"] = "xx" })
		}, []string{metaName, "level"}},
		{"a token that is none", func(t *testing.T, dir string) {
			editJSON(t, filepath.Join(dir, metaName), func(m map[string]any) { m["eos_token"] = "[NOPE]" })
		}, []string{metaName, "[NOPE]"}},
		{"no vocabulary", remove(vocabName), []string{vocabName, "--vocab FILE"}},
		{"user dictionary elsewhere", func(t *testing.T, dir string) {
			editJSON(t, filepath.Join(dir, metaName), func(m map[string]any) { m["user_dict"] = "../secret" })
		}, []string{metaName}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := saved(t)
			c.spoil(t, dir)
			_, err := Load(dir, LoadOptions{})
			wantCode(t, err, fault.CodeCorrupt, append(c.names, dir)...)
			if info, err := Inspect(dir); err == nil && (info.Whole || info.Problem == "") {
				t.Errorf("inspect finds nothing wrong: %+v", info)
			}
		})
	}
	_, err := Load(filepath.Join(t.TempDir(), "nowhere"), LoadOptions{})
	wantCode(t, err, fault.CodeUsage, "nowhere")
	_, err = Load(saved(t), LoadOptions{VocabPath: "nowhere.txt"})
	wantCode(t, err, fault.CodeUsage, "nowhere.txt")
}
