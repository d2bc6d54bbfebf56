package checkpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"promptgen/internal/fault"
	"promptgen/model"
	"promptgen/model/checkpoint/blob"
	"promptgen/model/checkpoint/safetensors"
)

// writeParts writes a safetensors file of any tensors.
func writeParts(t testing.TB, path string, parts ...safetensors.Part) {
	t.Helper()
	var b bytes.Buffer
	if err := safetensors.Write(&b, parts, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// partsOf are a model's tensors under names of the caller's.
func partsOf(p *model.Params, rename func(string) string) map[string]safetensors.Part {
	m := map[string]safetensors.Part{}
	for _, t := range p.Tensors {
		m[t.Name] = safetensors.Floats(rename(t.Name), t.Shape, t.Data, blob.F32)
	}
	return m
}

func values(m map[string]safetensors.Part) []safetensors.Part {
	var out []safetensors.Part
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}

// Folders of others: bare keys, masks, a tied head that is stored all the same,
// an untied one, in all types.
func TestForeignTensors(t *testing.T) {
	m := smallModel(t, false)
	dir := filepath.Join(t.TempDir(), "model")
	if err := Save(context.Background(), dir, m); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, safetensorsName)
	editJSON(t, filepath.Join(dir, configName), func(c map[string]any) { delete(c, "tie_word_embeddings") })

	parts := partsOf(m.Params, func(s string) string { return s[len(bodyPrefix):] })
	parts["mask"] = safetensors.Floats("h.0.attn.bias", []int{1, 1, 2, 2}, []float32{1, 0, 1, 1}, blob.F32)
	parts["masked"] = safetensors.Floats("h.0.attn.masked_bias", []int{}, []float32{-1e4}, blob.F32)
	parts["head"] = safetensors.Floats(headName, []int{11, 8}, m.Params.WTE, blob.F32)
	writeParts(t, path, values(parts)...)
	got, err := Load(dir, LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sameParams(t, got.Params, m.Params)

	own := smallModel(t, true)
	parts["head"] = safetensors.Floats(headName, []int{11, 8}, own.Params.Head, blob.F32)
	writeParts(t, path, values(parts)...)
	if got, err = Load(dir, LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	if got.Params.HeadTied || got.Params.Head[3] != own.Params.Head[3] {
		t.Error("an untied head was not kept")
	}
	editJSON(t, filepath.Join(dir, configName), func(c map[string]any) { c["tie_word_embeddings"] = true })
	if got, err = Load(dir, LoadOptions{}); err != nil || !got.Params.HeadTied {
		t.Errorf("a tied head was not ignored: %v", err)
	}

	parts["wpe"] = safetensors.Floats("h.0.attn.c_attn.bias", []int{24}, make([]float32, 24), blob.F32)
	delete(parts, "transformer.h.0.attn.c_attn.bias")
	parts["long"] = safetensors.Part{Name: "wpe.weight", DType: blob.I32, Shape: []int{7, 8}, Size: 224, Write: parts["transformer.wpe.weight"].Write}
	delete(parts, "transformer.wpe.weight")
	writeParts(t, path, values(parts)...)
	_, err = Load(dir, LoadOptions{})
	wantCode(t, err, fault.CodeCorrupt, safetensorsName, "wpe.weight", "I32")
}

// A sharded model reads like a whole one, and its index may not lie.
func TestShards(t *testing.T) {
	m := smallModel(t, false)
	dir := filepath.Join(t.TempDir(), "model")
	if err := Save(context.Background(), dir, m); err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(dir, safetensorsName))
	parts := values(partsOf(m.Params, func(s string) string { return s }))
	writeParts(t, filepath.Join(dir, "a.safetensors"), parts[:9]...)
	writeParts(t, filepath.Join(dir, "b.safetensors"), parts[9:]...)
	index := func(edit func(map[string]string)) {
		w := map[string]string{}
		for i, p := range parts {
			w[p.Name] = "a.safetensors"
			if i >= 9 {
				w[p.Name] = "b.safetensors"
			}
		}
		edit(w)
		b, err := json.Marshal(map[string]any{"weight_map": w})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, safetensorsIndex), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	index(func(map[string]string) {})
	got, err := Load(dir, LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sameParams(t, got.Params, m.Params)
	os.WriteFile(filepath.Join(dir, "..", "outside.safetensors"), nil, 0o644)
	for what, edit := range map[string]func(map[string]string){
		"leaves the folder": func(w map[string]string) { w[parts[0].Name] = "../outside.safetensors" },
		"absolute":          func(w map[string]string) { w[parts[0].Name] = "/etc/passwd" },
		"the folder itself": func(w map[string]string) { w[parts[0].Name] = "." },
		"not there":         func(w map[string]string) { w[parts[0].Name] = "c.safetensors" },
		"in the other one":  func(w map[string]string) { w[parts[0].Name] = "b.safetensors" },
		"one too many":      func(w map[string]string) { w["x"] = "b.safetensors" },
		"empty":             func(w map[string]string) { clear(w) },
	} {
		index(edit)
		_, err := Load(dir, LoadOptions{})
		if fault.Code(err) != fault.CodeCorrupt {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// The tokens that begin and end a text, for folders of others.
func TestSpecialsOfOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "model")
	if err := Save(context.Background(), dir, smallModel(t, false)); err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(dir, metaName))
	edit := func(name string, bos, eos any, class string) {
		editJSON(t, filepath.Join(dir, name), func(c map[string]any) {
			c["bos_token_id"], c["eos_token_id"], c["tokenizer_class"] = bos, eos, class
		})
	}
	for _, c := range []struct {
		what           string
		set            func()
		wantBOS, wantE int32
	}{
		{"generation_config first", func() {
			edit(generationName, 5, []int{6, 7}, "")
			edit(configName, 1, 2, "")
		}, 5, 6},
		{"then config.json", func() { edit(generationName, nil, 50256, "") }, 1, 2},
		{"BERT's by its class", func() { edit(configName, 50256, 50256, "BertTokenizer") }, 1, 0},
		{"none", func() { edit(configName, 50256, nil, "") }, NoToken, NoToken},
	} {
		c.set()
		m, err := Load(dir, LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if m.BOS != c.wantBOS || m.EOS != c.wantE {
			t.Errorf("%s: bos %d, eos %d; want %d, %d", c.what, m.BOS, m.EOS, c.wantBOS, c.wantE)
		}
	}
}

var mutants = flag.Int("mutants", 300, "damaged copies of each kind of file that TestMutatedFiles tries")

// A damaged file is refused with exit code 5, or is still valid: it never
// panics and never takes memory that the files do not justify.
func TestMutatedFiles(t *testing.T) {
	rounds := *mutants
	if testing.Short() {
		rounds = min(rounds, 40)
	}
	ctx, root := context.Background(), t.TempDir()
	m := smallModel(t, false)
	targets := map[string]string{} // folder (or file) to load: file to mutate
	for name, o := range map[string]ExportOptions{
		"hf": {Format: FormatHF, DType: "fp16"}, "pt": {Format: FormatPyTorch}, "gguf": {Format: FormatGGUF},
	} {
		if err := Export(ctx, filepath.Join(root, name), m, o); err != nil {
			t.Fatal(err)
		}
	}
	legacy := filepath.Join(root, "golden")
	if err := os.Rename(copyGolden(t, "pytorch_model_legacy.bin", torchName), legacy); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{safetensorsName, configName, vocabName, metaName, generationName} {
		targets[filepath.Join(root, "hf", name)] = filepath.Join(root, "hf")
	}
	targets[filepath.Join(root, "pt", torchName)] = filepath.Join(root, "pt")
	targets[filepath.Join(legacy, torchName)] = legacy
	targets[filepath.Join(root, "gguf")] = filepath.Join(root, "gguf")
	r := rand.New(rand.NewPCG(1, 2))
	for _, file := range slices.Sorted(maps.Keys(targets)) {
		whole, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n := rounds
		if len(whole) > 1<<17 {
			n = rounds / 4
		}
		for i := range n {
			mutant := mutate(r, whole)
			if err := os.WriteFile(file, mutant, 0o644); err != nil {
				t.Fatal(err)
			}
			checkMutant(t, file, targets[file], len(mutant), i)
		}
		if err := os.WriteFile(file, whole, 0o644); err != nil {
			t.Fatal(err)
		}
		if m, err := Load(targets[file], LoadOptions{}); err != nil {
			t.Fatalf("%s as it was: %v", file, err)
		} else {
			m.Close()
		}
	}
}

// The same for a training state, its manifest before all.
func TestMutatedStates(t *testing.T) {
	rounds := *mutants
	if testing.Short() {
		rounds = min(rounds, 40)
	}
	states := t.TempDir()
	s := smallState(t, 7)
	if err := SaveState(context.Background(), states, s); err != nil {
		t.Fatal(err)
	}
	load := func(dir string) (*Model, error) {
		_, err := LoadState(dir)
		return &Model{}, err
	}
	r := rand.New(rand.NewPCG(3, 4))
	for _, name := range []string{manifestName, stateFacts, stateTensors, stateMetrics} {
		file := filepath.Join(s.Dir, name)
		whole, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i := range rounds {
			mutant := mutate(r, whole)
			if err := os.WriteFile(file, mutant, 0o644); err != nil {
				t.Fatal(err)
			}
			checkMutantBy(t, load, file, s.Dir, len(mutant), i)
		}
		if err := os.WriteFile(file, whole, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := LoadState(s.Dir); err != nil {
		t.Fatalf("the state as it was: %v", err)
	}
}

func checkMutant(t *testing.T, file, load string, size, round int) {
	t.Helper()
	checkMutantBy(t, func(path string) (*Model, error) { return Load(path, LoadOptions{}) }, file, load, size, round)
}

func checkMutantBy(t *testing.T, open func(string) (*Model, error), file, load string, size, round int) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			t.Fatalf("%s, mutant %d: panic: %v", file, round, p)
		}
	}()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	m, err := open(load)
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > uint64(2*size+16<<20) {
		t.Fatalf("%s, mutant %d: took %d bytes for a file of %d", file, round, used, size)
	}
	if err == nil {
		m.Close()
		return
	}
	wantCode(t, err, fault.CodeCorrupt, filepath.Dir(file))
}

// mutate changes bytes, cuts, doubles or inserts, mostly near the beginning,
// where the headers are.
func mutate(r *rand.Rand, b []byte) []byte {
	c := append([]byte(nil), b...)
	for range 1 + r.IntN(3) {
		if len(c) == 0 {
			return c
		}
		at := r.IntN(len(c))
		if r.IntN(2) == 0 {
			at = r.IntN(min(len(c), 2048))
		}
		switch r.IntN(6) {
		case 0:
			c[at] ^= 1 << r.IntN(8)
		case 1:
			c[at] = byte(r.Uint32())
		case 2:
			c = c[:at]
		case 3:
			c = slices.Insert(c, at, byte(r.Uint32()), byte(r.Uint32()))
		case 4:
			c = slices.Delete(c, at, min(len(c), at+1+r.IntN(16)))
		case 5: // a number made large
			for i := at; i < min(len(c), at+8); i++ {
				c[i] = 0xff
			}
		}
	}
	return c
}

// The whole of a folder may be anything.
func FuzzLoad(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "m")
	if err := Save(context.Background(), dir, smallModel(f, false)); err != nil {
		f.Fatal(err)
	}
	read := func(name string) []byte { b, _ := os.ReadFile(filepath.Join(dir, name)); return b }
	f.Add(read(configName), read(safetensorsName), read(vocabName), read(metaName))
	f.Fuzz(func(t *testing.T, config, weights, vocab, meta []byte) {
		dir := t.TempDir()
		for name, b := range map[string][]byte{configName: config, safetensorsName: weights, vocabName: vocab, metaName: meta} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		m, err := Load(dir, LoadOptions{})
		if err == nil {
			m.Close()
		} else {
			wantCode(t, err, fault.CodeCorrupt)
		}
	})
}
