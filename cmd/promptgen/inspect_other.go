package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"promptgen/cmd/promptgen/ui"
	"promptgen/data"
	"promptgen/internal/bytesize"
	"promptgen/internal/fault"
	"promptgen/train/report"
	"promptgen/train/runlog"
)

// whatInspectKnows ends the refusal of what it does not know.
const whatInspectKnows = "model folders and files of weights, token folders, vocabularies, configs, and what a training leaves, each with its parts"

// other is a kind of file or folder that commands write or read beside models,
// token folders and vocabularies.
type other struct {
	kind string
	is   func(*looked) bool
	tell func(context.Context, *looked) ([]ui.Fact, error) // nil: nothing but its size
}

// others are tried in turn; the first one that says so is the kind.
var others = []other{
	{"token files of the original", func(f *looked) bool { return f.dir && data.IsLegacy(f.path) }, tellLegacyFolder},
	{"token file of the original", func(f *looked) bool { return !f.dir && data.IsLegacyFile(f.path) }, tellLegacy},
	{"token shard", func(f *looked) bool { return data.IsShard(f.head) }, tellShard},
	{"manifest of token shards", has("vocab_hash", "train", "val"), tellManifest},
	{"settings of a training", has("options", "plan", "machine"), tellRun},
	{"metrics of a training", named(runlog.MetricsName), tellMetrics},
	{"training report", func(f *looked) bool { return bytes.HasPrefix(f.head, []byte("<")) && report.Is(f.path) }, tellReport},
	{"TensorBoard events of a training", func(f *looked) bool { return strings.HasPrefix(f.name, "events.out.tfevents.") }, nil},
	{"facts of a training state", has("step", "seed", "data_hash"), fields("step", "epoch", "seed")},
	{"manifest of a training state", func(f *looked) bool { return has("files")(f) && named("manifest.json")(f) }, nil},
	{"facts of a model folder", has("format", "level", "lower_case"), fields("level", "lower_case")},
	{"adapter config", has("peft_type"), fields("r", "lora_alpha", "base_model_name_or_path")},
	{"model config", has("n_embd", "n_layer"), fields("n_ctx", "n_embd", "n_head", "n_layer", "vocab_size")},
	{"part of a model folder", named("generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"), nil},
	{"user dictionary", named("user_dict.txt"), nil},
}

// looked is a file or folder as far as its kind can be told from it.
type looked struct {
	path, name string
	dir        bool
	bytes      int64 // of a file
	head       []byte
	text       []byte                     // of a JSON object
	fields     map[string]json.RawMessage // its fields
}

// maxObject bounds the JSON that is read; the largest written, the list of the
// shards of 10^12 tokens, has some 10 MB.
const maxObject = 64 << 20

// look reads the beginning of a file, and all of one that is a JSON object.
func look(path string) (*looked, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() && !info.Mode().IsRegular() {
		return &looked{path: path}, nil // of no kind here: who reads models tells why
	}
	l := &looked{path: path, name: filepath.Base(path), dir: info.IsDir(), bytes: info.Size()}
	if l.dir {
		return l, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return l, nil
	}
	defer f.Close()
	l.head = make([]byte, 512)
	n, _ := io.ReadFull(f, l.head)
	l.head = l.head[:n]
	mark := []byte("\ufeff")
	if begin := bytes.TrimSpace(bytes.TrimPrefix(l.head, mark)); !bytes.HasPrefix(begin, []byte("{")) || l.bytes > maxObject {
		return l, nil
	}
	rest, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	l.text = bytes.TrimPrefix(append(slices.Clone(l.head), rest...), mark)
	if err := json.Unmarshal(l.text, &l.fields); err != nil && strings.HasSuffix(path, ".json") {
		return nil, fault.Corrupt("%s: is broken JSON (%v); copy it again", path, err)
	}
	return l, nil
}

func named(names ...string) func(*looked) bool {
	return func(f *looked) bool { return !f.dir && slices.Contains(names, f.name) }
}

// has knows a JSON object by fields that it must have.
func has(keys ...string) func(*looked) bool {
	return func(f *looked) bool {
		return !slices.ContainsFunc(keys, func(key string) bool { _, ok := f.fields[key]; return !ok })
	}
}

// fields tells those of an object's fields that are there, under their own names.
func fields(keys ...string) func(context.Context, *looked) ([]ui.Fact, error) {
	return func(_ context.Context, f *looked) (facts []ui.Fact, err error) {
		for _, key := range keys {
			var value any
			dec := json.NewDecoder(bytes.NewReader(f.fields[key]))
			dec.UseNumber()
			if dec.Decode(&value) == nil && value != nil {
				facts = append(facts, ui.Fact{Name: key, Value: value})
			}
		}
		return facts, nil
	}
}

// inspectOther tells what a path is if it is of the kinds of others.
func (a *app) inspectOther(c *cli.Context, path string) (known bool, err error) {
	f, err := look(path)
	if err != nil {
		return false, err
	}
	at := slices.IndexFunc(others, func(o other) bool { return o.is(f) })
	if at < 0 {
		return false, nil
	}
	kind := others[at]
	var facts []ui.Fact
	if kind.tell != nil {
		if facts, err = kind.tell(c.Context, f); err != nil {
			return true, err
		}
	}
	if c.Bool("json") {
		all := map[string]any{"path": path, "kind": kind.kind, "bytes": f.bytes}
		for _, fact := range facts {
			all[strings.ReplaceAll(fact.Name, " ", "_")] = fact.Value
		}
		return true, a.console.JSON(all)
	}
	return true, a.console.Facts(append([]ui.Fact{{Name: path, Value: kind.kind}, {Name: "size", Value: bytesize.Format(f.bytes)}}, facts...)...)
}

// whole ends the facts of what was checked to its end.
var whole = ui.Fact{Name: "whole", Value: true}

func tellLegacyFolder(ctx context.Context, f *looked) ([]ui.Fact, error) {
	files, err := data.LegacyFiles(f.path)
	if err != nil {
		return nil, err
	}
	tokens := 0
	f.bytes = 0
	for _, path := range files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := data.CountLegacy(path)
		if err != nil {
			return nil, err
		}
		tokens += n
		if info, err := os.Stat(path); err == nil {
			f.bytes += info.Size()
		}
	}
	return []ui.Fact{{Name: "files", Value: len(files)}, {Name: "tokens", Value: tokens}, whole}, nil
}

func tellLegacy(_ context.Context, f *looked) ([]ui.Fact, error) {
	n, err := data.CountLegacy(f.path)
	return []ui.Fact{{Name: "tokens", Value: n}, whole}, err
}

func tellShard(ctx context.Context, f *looked) ([]ui.Fact, error) {
	s, err := data.InspectShard(ctx, f.path)
	return []ui.Fact{{Name: "tokens", Value: s.Tokens}, {Name: "token bytes", Value: s.TokenBytes}, whole}, err
}

func tellManifest(_ context.Context, f *looked) ([]ui.Fact, error) {
	m, err := data.ReadManifest(f.path)
	if err != nil {
		return nil, err
	}
	return []ui.Fact{
		{Name: "documents", Value: m.Train.Docs + m.Val.Docs}, {Name: "tokens", Value: m.Train.Tokens + m.Val.Tokens},
		{Name: "shards", Value: len(m.Train.Shards) + len(m.Val.Shards)}, {Name: "level", Value: m.Level},
	}, nil
}

func tellRun(_ context.Context, f *looked) ([]ui.Fact, error) {
	r, err := runlog.DecodeRun(f.path, f.text)
	if err != nil {
		return nil, err
	}
	return runFacts(r), nil
}

func runFacts(r *runlog.Run) []ui.Fact {
	return []ui.Fact{{Name: "steps", Value: r.Plan.Steps}, {Name: "parameters", Value: r.Plan.Parameters}, {Name: "data", Value: r.Data.Folder}}
}

func tellMetrics(_ context.Context, f *looked) ([]ui.Fact, error) {
	lines, err := runlog.ReadLines(filepath.Dir(f.path), 1)
	if err != nil || len(lines) == 0 {
		return nil, err
	}
	last := lines[len(lines)-1]
	return []ui.Fact{{Name: "step", Value: last.Step}, {Name: "epoch", Value: last.Epoch}}, nil
}

func tellReport(_ context.Context, f *looked) ([]ui.Fact, error) {
	r, err := report.Recipe(f.path)
	if err != nil {
		return nil, nil // of several trainings, which no one recipe repeats
	}
	return runFacts(r), nil
}
