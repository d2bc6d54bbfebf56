// Package configs holds the model presets and reads model configs.
//
// A config is a JSON object with the original's fields (n_ctx, n_embd, n_head,
// n_layer, n_positions, initializer_range, layer_norm_epsilon, vocab_size) and
// the dropouts, either all three at once ("dropout") or each by its Hugging
// Face name (embd_pdrop, attn_pdrop, resid_pdrop). A preset is reached by name:
//
//	cfg, err := configs.Load("small")
//	cfg, err := configs.Load("my/config.json")
//
// Presets: test (0.2 million parameters beside the embeddings), mini (11 M),
// small (GPT-2 small, 85 M) and base (GPT-2 medium's shape, 302 M).
package configs

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"promptgen/internal/fault"
	"promptgen/internal/nearest"
	"promptgen/model"
)

//go:embed model_config_*.json
var presets embed.FS

// Defaults of the fields that a config may leave out.
const (
	defaultDropout          = 0.1 // transformers' own
	defaultInitializerRange = 0.02
	defaultLayerNormEpsilon = 1e-5
)

const maxFileSize = 1 << 20 // a larger file is no config

// Names lists the presets.
func Names() []string { return []string{"test", "mini", "small", "base"} }

// Load reads a preset by its name (small, model_config_small.json) or a file by
// its path. Every fault of the config is named in one error (exit code 2).
func Load(nameOrPath string) (model.Config, error) {
	name := strings.TrimSuffix(strings.TrimPrefix(nameOrPath, "model_config_"), ".json")
	b, err := readFile(nameOrPath)
	switch {
	case err == nil:
	case slices.Contains(Names(), name) && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, errFolder)):
		if b, err = presets.ReadFile("model_config_" + name + ".json"); err != nil {
			return model.Config{}, err
		}
	case errors.Is(err, errFolder):
		return model.Config{}, fault.Usage("config %s: is a folder; name the JSON file in it", nameOrPath)
	case errors.Is(err, fs.ErrNotExist):
		return model.Config{}, fault.Usage("config %s: no such file and no preset%s; presets are %s",
			nameOrPath, meant(name), strings.Join(Names(), ", "))
	default:
		return model.Config{}, fault.Usage("config %s: %w", nameOrPath, err)
	}
	return Parse(nameOrPath, b)
}

// meant asks for the preset that name is a slip of, if it is one.
func meant(name string) string {
	if preset := nearest.Near(name, Names()); preset != "" {
		return fmt.Sprintf(", did you mean %s?", preset)
	}
	return ""
}

var errFolder = errors.New("is a folder")

// readFile reads a file that is small enough to be a config. A folder does not
// hide a preset of the same name.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, errFolder
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err == nil && len(b) > maxFileSize {
		err = fmt.Errorf("larger than %d bytes, no model config", maxFileSize)
	}
	return b, err
}

// wanted tells what to write where there is no config.
const wanted = `a config is a JSON object like {"n_ctx": 64, "n_embd": 128, "n_head": 2, "n_layer": 1}`

// Parse reads the text of a config; name stands for it in errors.
func Parse(name string, text []byte) (model.Config, error) {
	what := "config " + name
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // a byte order mark, which some editors write
	if len(bytes.TrimSpace(text)) == 0 {
		return model.Config{}, fault.Usage("%s: is empty; %s", what, wanted)
	}
	var fields map[string]json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&fields); err != nil {
		line := 1 + bytes.Count(text[:min(int(dec.InputOffset()), len(text))], []byte{'\n'})
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			line = 1 + bytes.Count(text[:min(int(syntax.Offset), len(text))], []byte{'\n'})
		}
		var other *json.UnmarshalTypeError
		switch {
		case errors.As(err, &other):
			return model.Config{}, fault.Usage("%s: holds a JSON %s; %s", what, other.Value, wanted)
		case errors.Is(err, io.ErrUnexpectedEOF):
			return model.Config{}, fault.Usage("%s, line %d: ends in the middle of the JSON object; copy the file again or close the object",
				what, 1+bytes.Count(bytes.TrimSpace(text), []byte{'\n'}))
		}
		return model.Config{}, fault.Usage("%s, line %d: not JSON: %w; %s", what, line, err, wanted)
	}
	if fields == nil {
		return model.Config{}, fault.Usage("%s: holds a JSON null; %s", what, wanted)
	}
	if _, err := dec.Token(); err != io.EOF {
		return model.Config{}, fault.Usage("%s: something follows the JSON object; remove it", what)
	}

	cfg := model.Config{
		InitializerRange: defaultInitializerRange, LayerNormEpsilon: defaultLayerNormEpsilon,
		EmbdDrop: defaultDropout, AttnDrop: defaultDropout, ResidDrop: defaultDropout,
	}
	faults := append(twice(text), readFields(&cfg, fields)...)
	if _, given := fields["n_positions"]; !given {
		cfg.NPositions = cfg.NCtx
	}
	faults = append(faults, checkShape(cfg, fields, faults)...)
	return cfg, faults.Err(what)
}

// twice names the keys of a JSON object that stand in it more than once: which of
// them was meant is not known, and a parser takes the last without a word.
func twice(object []byte) (faults fault.List) {
	dec := json.NewDecoder(bytes.NewReader(object))
	if _, err := dec.Token(); err != nil { // the brace
		return nil
	}
	seen := map[string]int{}
	for dec.More() {
		name, err := dec.Token()
		var value json.RawMessage
		if err != nil || dec.Decode(&value) != nil {
			break
		}
		key, _ := name.(string)
		if seen[key]++; seen[key] == 2 {
			faults.Addf("%s stands there twice: leave one out", key)
		}
	}
	return faults
}

// key is one field of the JSON: where its value goes and what it must be.
type key struct {
	name string
	dst  any    // *int, *float64, *model.Activation; nil: read over
	kind string // as an error calls it
}

// keys lists what a config may hold.
func keys(c *model.Config) []key {
	const whole, number = "a whole number", "a number"
	return []key{
		{"vocab_size", &c.VocabSize, whole},
		{"n_positions", &c.NPositions, whole},
		{"n_ctx", &c.NCtx, whole},
		{"n_embd", &c.NEmbd, whole},
		{"n_head", &c.NHead, whole},
		{"n_layer", &c.NLayer, whole},
		{"n_inner", &c.NInner, whole},
		{"activation_function", &c.Activation, "a text"},
		{"layer_norm_epsilon", &c.LayerNormEpsilon, number},
		{"initializer_range", &c.InitializerRange, number},
		{"embd_pdrop", &c.EmbdDrop, number},
		{"attn_pdrop", &c.AttnDrop, number},
		{"resid_pdrop", &c.ResidDrop, number},
	}
}

// readOver are the keys of a model folder's config.json that say nothing about
// the model's shape.
var readOver = []string{
	"model_type", "architectures", "bos_token_id", "eos_token_id", "pad_token_id",
	"torch_dtype", "dtype", "transformers_version", "use_cache", "task_specific_params",
	"tokenizer_class", "tie_word_embeddings", "gradient_checkpointing", "_name_or_path",
	"summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels",
	"summary_first_dropout", "output_past", "output_attentions", "output_hidden_states",
	"finetuning_task", "num_labels", "pruned_heads", "torchscript", "use_bfloat16",
}

// readFields sets cfg from the fields; "dropout" stands for all three and gives
// way to the one that is named.
func readFields(cfg *model.Config, fields map[string]json.RawMessage) (faults fault.List) {
	known := keys(cfg)
	names := []string{"dropout"}
	for _, k := range known {
		names = append(names, k.name)
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(names, name) && !slices.Contains(readOver, name) {
			faults.Addf("unknown key %q%s", name, instead(name, names))
		}
	}
	var all float64
	if raw, ok := fields["dropout"]; ok {
		if json.Unmarshal(raw, &all) != nil || isNull(raw) {
			faults.Addf("dropout must be a number, not %s", raw)
		}
		cfg.EmbdDrop, cfg.AttnDrop, cfg.ResidDrop = all, all, all
	}
	for _, k := range known {
		raw, ok := fields[k.name]
		if !ok || isNull(raw) && (k.name == "n_inner" || k.name == "vocab_size") {
			continue
		}
		if isNull(raw) || json.Unmarshal(raw, k.dst) != nil {
			faults.Addf("%s must be %s, not %s", k.name, k.kind, raw)
		}
	}
	return faults
}

// TrainFlags are flags of train that are looked for in a config, where they have
// no place; those of the original have other names besides.
var TrainFlags = []string{
	"epochs", "batch-size", "lr", "warmup-steps", "schedule", "stride", "grad-accum", "max-grad-norm",
	"weight-decay", "dtype", "seed", "threads", "log-every", "save-every", "eval-every", "data", "out",
	"log_step", "gradient_accumulation", "output_dir", "tokenized_data_path", "pretrained_model", "fp16",
}

// instead says what to write instead of an unknown key.
func instead(name string, known []string) string {
	dashed := strings.ReplaceAll(strings.ToLower(name), "_", "-")
	for _, flag := range TrainFlags {
		if strings.ReplaceAll(flag, "_", "-") == dashed {
			return ": that is a flag, --" + flag
		}
	}
	if key := nearest.Near(name, known); key != "" {
		return fmt.Sprintf(", did you mean %q?", key)
	}
	return " (the keys are " + strings.Join(known, ", ") + ")"
}

func isNull(raw json.RawMessage) bool { return string(raw) == "null" }

// checkShape lists what is wrong with the values, leaving out the fields that
// are faulty already, and naming what is missing as missing.
func checkShape(cfg model.Config, fields map[string]json.RawMessage, known fault.List) (faults fault.List) {
	named := func(field string) bool {
		return slices.ContainsFunc(known, func(f string) bool { return strings.HasPrefix(f, field+" ") })
	}
	for _, n := range []string{"n_ctx", "n_embd", "n_head", "n_layer"} {
		if _, ok := fields[n]; !ok {
			known.Addf("%s is missing", n)
			faults.Addf("%s is missing", n)
		}
	}
	_, positionsGiven := fields["n_positions"]
	if raw, ok := fields["vocab_size"]; ok && !isNull(raw) && cfg.VocabSize == 0 && !named("vocab_size") {
		faults.Addf("vocab_size must be positive, or left out to take the data's")
	}
	for _, f := range cfg.Faults() {
		field, _, _ := strings.Cut(f, " ")
		if named(field) || field == "n_positions" && !positionsGiven {
			continue
		}
		faults = append(faults, f)
	}
	return faults
}
