package checkpoint

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/model"
	"promptgen/model/checkpoint/blob"
	"promptgen/model/checkpoint/safetensors"
)

// savedAdapters are a base model and a folder of adapters on it.
func savedAdapters(t testing.TB, targets ...string) (m *Model, base, dir string) {
	t.Helper()
	m = smallModel(t, false)
	base, dir = filepath.Join(t.TempDir(), "base"), filepath.Join(t.TempDir(), "adapters")
	if err := Save(context.Background(), base, m); err != nil {
		t.Fatal(err)
	}
	l := model.LoRA{Rank: 3, Alpha: 5, Targets: targets}
	m.Params = m.Params.Adapt(l, make([]float32, l.Len(m.Params.Config)))
	for i, tensor := range m.Params.Adapters() {
		for j := range tensor.Data {
			tensor.Data[j] = float32(math.Cos(float64(1 + 5*i + 13*j)))
		}
	}
	m.Base = &Base{Path: base, Hash: WeightsHash(m.Params)}
	if err := Save(context.Background(), dir, m); err != nil {
		t.Fatal(err)
	}
	return m, base, dir
}

// What is read is W + alpha/r·(B·A)ᵀ in the targets and the base elsewhere, also
// where PEFT wrote the folder: with its adapter's name in the keys, one
// expression of targets, a base beside it, and no facts of ours.
func TestAdaptersAreAddedToTheirBase(t *testing.T) {
	m, base, dir := savedAdapters(t, "c_attn", "mlp.c_proj")
	c := m.Params.Config
	check := func(path string, scale float64) *Model {
		t.Helper()
		got, err := Load(path, LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { got.Close() })
		low := m.Params.Adapters()
		for i, tensor := range got.Params.Tensors {
			want := m.Params.Tensors[i]
			adapted := m.Params.LoRA.Adapts(want.TensorSpec)
			for j, v := range tensor.Data {
				w := float64(want.Data[j])
				if adapted {
					in, out := j/want.Shape[1], j%want.Shape[1]
					for r := range 3 {
						w += scale * float64(low[0].Data[r*want.Shape[0]+in]) * float64(low[1].Data[out*3+r])
					}
				}
				if math.Abs(float64(v)-w) > 1e-5 || !adapted && float64(v) != w {
					t.Fatalf("%s: %s[%d] is %v, not %v", path, want.Name, j, v, w)
				}
			}
			if adapted {
				low = low[2:]
			}
		}
		return got
	}
	got := check(dir, 5.0/3)
	if got.Base.Path != base || got.LoRA.Rank != 3 || got.Meta.Level != m.Meta.Level || got.BOS != m.BOS {
		t.Errorf("read %+v, %+v, level %q, begin %d", got.Base, got.LoRA, got.Meta.Level, got.BOS)
	}

	theirs := filepath.Join(filepath.Dir(base), "theirs")
	if err := os.CopyFS(theirs, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(theirs, metaName))
	editJSON(t, filepath.Join(theirs, adapterConfigName), func(a map[string]any) {
		a["base_model_name_or_path"], a["target_modules"], a["use_rslora"] = "../base", ".*(c_attn|mlp.c_proj)", true
	})
	f, err := os.Create(filepath.Join(theirs, adapterName))
	if err != nil {
		t.Fatal(err)
	}
	var parts []safetensors.Part
	for _, tensor := range m.Params.Adapters() {
		parts = append(parts, safetensors.Floats(strings.Replace(tensor.Name, ".weight", ".default.weight", 1), tensor.Shape, tensor.Data, blob.F32))
	}
	if err := safetensors.Write(f, parts, nil); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if got := check(theirs, 5/math.Sqrt(3)); len(got.Notes) == 0 {
		t.Error("it is not told that the base could not be checked")
	}

	whole := filepath.Join(t.TempDir(), "whole")
	if err := Export(context.Background(), whole, got, ExportOptions{Format: FormatHF}); err != nil {
		t.Fatal(err)
	}
	merged := check(whole, 5.0/3)
	if merged.Base != nil || merged.Meta.Base != nil || merged.Params.Config != c {
		t.Errorf("the merged model says %+v", merged.Meta)
	}
}

// The shape of a model is known from wherever it can be loaded from, without its
// weights.
func TestShapeOf(t *testing.T) {
	m, base, adapters := savedAdapters(t, "c_fc")
	whole, err := Load(base, LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	file := filepath.Join(t.TempDir(), "m.gguf")
	if err := Export(t.Context(), file, whole, ExportOptions{Format: FormatGGUF}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{base, adapters, file} {
		if c, err := ShapeOf(path); err != nil || c != m.Params.Config {
			t.Errorf("%s: %+v, %v", path, c, err)
		}
	}
	_, err = ShapeOf(base + "-nowhere")
	wantCode(t, err, fault.CodeUsage, "-nowhere")
	editJSON(t, filepath.Join(adapters, adapterConfigName), func(a map[string]any) { a["base_model_name_or_path"] = adapters })
	_, err = ShapeOf(adapters)
	wantCode(t, err, fault.CodeCorrupt, "adapters itself")
}

// Inspect says what adapters are, and whether they and their base are whole.
func TestInspectAdapters(t *testing.T) {
	m, base, dir := savedAdapters(t, "c_fc")
	in, err := Inspect(dir)
	if err != nil {
		t.Fatal(err)
	}
	if in.Kind != "adapter folder" || !in.Whole || in.Parameters != m.Params.LoRA.Len(m.Params.Config) || in.Base.Path != base || len(in.Tensors) != 4 {
		t.Errorf("%+v", in)
	}
	os.Rename(base, base+"-moved")
	if in, err = Inspect(dir); err != nil || in.Whole || !strings.Contains(in.Problem, base) {
		t.Errorf("without the base: %+v, %v", in, err)
	}
}

// What is no adapter of the base, or of a kind that is not computed here, must
// be refused, and named.
func TestAdaptersRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(map[string]any)
		code   int
		part   string
	}{
		"kind":     {func(a map[string]any) { a["peft_type"] = "IA3" }, fault.CodeCorrupt, "IA3"},
		"dora":     {func(a map[string]any) { a["use_dora"] = true }, fault.CodeCorrupt, "use_dora"},
		"bias":     {func(a map[string]any) { a["bias"] = "all" }, fault.CodeCorrupt, "bias"},
		"modules":  {func(a map[string]any) { a["modules_to_save"] = []string{"wte"} }, fault.CodeCorrupt, "modules_to_save"},
		"rank":     {func(a map[string]any) { a["r"] = 4 }, fault.CodeCorrupt, "shape"},
		"no rank":  {func(a map[string]any) { a["r"] = 0 }, fault.CodeCorrupt, "r 0"},
		"no base":  {func(a map[string]any) { delete(a, "base_model_name_or_path") }, fault.CodeUsage, "--base"},
		"hub name": {func(a map[string]any) { a["base_model_name_or_path"] = "gpt2" }, fault.CodeUsage, "gpt2"},
		"type":     {func(a map[string]any) { a["r"] = "three" }, fault.CodeCorrupt, "broken JSON"},
	} {
		_, _, dir := savedAdapters(t, "c_fc")
		editJSON(t, filepath.Join(dir, adapterConfigName), c.change)
		_, err := Load(dir, LoadOptions{})
		t.Run(name, func(t *testing.T) { wantCode(t, err, c.code, c.part) })
	}
	_, base, dir := savedAdapters(t, "c_fc")
	_, err := Load(dir, LoadOptions{Base: dir})
	wantCode(t, err, fault.CodeCorrupt, "adapters itself")
	file := filepath.Join(dir, adapterName)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(b); n += 97 { // cut short anywhere
		if err := os.WriteFile(file, b[:n], 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir, LoadOptions{}); fault.Code(err) != fault.CodeCorrupt {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	if err := os.WriteFile(file, b, 0o666); err != nil {
		t.Fatal(err)
	}
	other := smallModel(t, false)
	other.Params.Blocks[0].FcB[0]++
	if err := Save(context.Background(), base, other); err != nil {
		t.Fatal(err)
	}
	_, err = Load(dir, LoadOptions{})
	wantCode(t, err, fault.CodeCorrupt, "other weights")
}
