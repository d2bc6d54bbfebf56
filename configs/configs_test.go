package configs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"promptgen/internal/fault"
)

// Every preset must load by its short and its file name, and be usable.
func TestPresets(t *testing.T) {
	for _, name := range Names() {
		for _, as := range []string{name, "model_config_" + name, "model_config_" + name + ".json"} {
			cfg, err := Load(as)
			if err != nil {
				t.Errorf("%s: %v", as, err)
			}
			if cfg.VocabSize != 0 || cfg.AttnDrop != 0.1 || cfg.EmbdDrop != 0.1 || cfg.ResidDrop != 0.1 {
				t.Errorf("%s: %+v", as, cfg)
			}
		}
	}
}

// The original's config files have no dropout and must give the library's.
func TestOriginalsConfig(t *testing.T) {
	cfg, err := Parse("c", []byte(`{"initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
		"n_ctx": 64, "n_embd": 128, "n_head": 2, "n_layer": 1, "n_positions": 64, "vocab_size": 13317}`))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.VocabSize != 13317 || cfg.NPositions != 64 || cfg.AttnDrop != 0.1 || cfg.LayerNormEpsilon != 1e-5 {
		t.Errorf("%+v", cfg)
	}
}

// What is left out has its default; one dropout is overridden by name.
func TestDefaults(t *testing.T) {
	cfg, err := Parse("c", []byte(`{"n_ctx": 32, "n_embd": 8, "n_head": 2, "n_layer": 1, "dropout": 0, "attn_pdrop": 0.2, "n_inner": null}`))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.NPositions != 32 || cfg.EmbdDrop != 0 || cfg.AttnDrop != 0.2 || cfg.InitializerRange != 0.02 {
		t.Errorf("%+v", cfg)
	}
}

// Editors put a byte order mark before a text, which is no fault of the config.
func TestByteOrderMark(t *testing.T) {
	cfg, err := Parse("c", []byte("\ufeff"+`{"n_ctx": 32, "n_embd": 8, "n_head": 2, "n_layer": 1}`))
	if err != nil || cfg.NCtx != 32 {
		t.Errorf("%+v, %v", cfg, err)
	}
}

// A user mends all faults in one go, so all must be named, each once.
func TestEveryFaultAtOnce(t *testing.T) {
	_, err := Parse("bad.json", []byte(`{"n_ctx": -1, "n_embd": 100, "n_head": 3, "n_layers": 2,
		"n_positions": "many", "resid_pdrop": 1.5, "vocab_size": 0}`))
	if fault.Code(err) != fault.CodeUsage {
		t.Fatalf("code %d: %v", fault.Code(err), err)
	}
	for _, want := range []string{
		"bad.json", `"n_layers", did you mean "n_layer"`, "n_ctx must be", "n_embd (100) must be a multiple of n_head (3)",
		`n_positions must be a whole number, not "many"`, "n_layer is missing", "resid_pdrop must be", "vocab_size must be positive",
	} {
		if strings.Count(err.Error(), want) != 1 {
			t.Errorf("%q is not named once in: %v", want, err)
		}
	}
	if n := strings.Count(err.Error(), "; "); n != 6 {
		t.Errorf("%d faults, want 7: %v", n+1, err)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %v", err)
	}
}

// Broken files end with code 2, a place, and no panic.
func TestBrokenFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"empty": "", "list": "[1]", "cut": `{"n_ctx": 3,` + "\n", "null": "null", "two": `{} {}`, "binary": "\x80\x02}q",
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, path := range []string{dir, filepath.Join(dir, "absent.json"), "smal"} {
		if _, err := Load(path); fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), "small") && path != dir {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Each error must say what to do: a preset that is near, a file instead of a
// folder, an object instead of something else, a flag that is no key.
func TestAdvice(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("folder", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"folder": "config folder: is a folder; name the JSON file", "minii": "did you mean mini?", "model_config_smal.json": "did you mean small?",
	} {
		if _, err := Load(name); fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: no %q in %v", name, want, err)
		}
	}
	if _, err := Load("elsewhere.json"); err == nil || strings.Contains(err.Error(), "did you mean") {
		t.Errorf("a name that is far from all: %v", err)
	}
	for text, want := range map[string]string{
		"":                            "is empty; a config is a JSON object",
		"[]":                          "holds a JSON array; a config is a JSON object",
		"null":                        "holds a JSON null; a config is a JSON object",
		"n_ctx: 3":                    "a config is a JSON object",
		"{\"n_ctx\": 3,\n\"n_embd\":": "line 2: ends in the middle",
		`{"N_LAYER": 2}`:              `unknown key "N_LAYER", did you mean "n_layer"?`,
		`{"lr": 1}`:                   `unknown key "lr": that is a flag, --lr;`,
		`{"Batch_Size": 1}`:           `unknown key "Batch_Size": that is a flag, --batch-size;`,
		`{"log_step": 1}`:             `--log_step;`,
		`{"n_ctx": 3, "n_ctx": 4}`:    `n_ctx stands there twice: leave one out`,
		`{"colour": 1}`:               `unknown key "colour" (the keys are dropout, vocab_size,`,
	} {
		if _, err := Parse("c", []byte(text)); fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: no %q in %v", text, want, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"n_ctx": 64, "n_embd": 128, "n_head": 2, "n_layer": 1, "dropout": 0.1}`))
	f.Add([]byte(`{"n_ctx": 1e99, "n_embd": null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg, err := Parse("fuzz", text)
		if err == nil && len(cfg.Faults()) > 0 {
			t.Errorf("accepted with faults: %v", cfg.Faults())
		}
	})
}
