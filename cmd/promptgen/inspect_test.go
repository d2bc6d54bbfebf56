package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"promptgen/internal/fault"
)

// Whatever the program has written, or reads, inspect must have a name for, in
// text and as JSON without a null.
func TestInspectKnowsOurFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("trains a model")
	}
	s := trained(t)
	s.ok("tokenize", "--corpus", "corpus.txt", "--compat", "book", "--num-pieces", "3", "--min-length", "1", "--out", "book", "--quiet")
	s.ok("tokenize", "--corpus", "corpus.txt", "--out", "nothing held out", "--quiet")
	s.write("marked.json", "\ufeff"+tinyConfig)
	for pattern, want := range map[string][]string{
		"tiny.json":                        {"model config", "n_embd"},
		"marked.json":                      {"model config", "n_embd"},
		"book":                             {"token files of the original", "files", "3", "tokens", "whole"},
		"book/tokenized_train_2.txt":       {"token file of the original", "tokens", "whole"},
		"tokenized":                        {"token shards"},
		"nothing held out":                 {"token shards"},
		"tokenized/manifest.json":          {"manifest of token shards", "documents", "60"},
		"tokenized/train-00000.bin":        {"token shard", "tokens", "whole"},
		"tokenized/vocab.txt":              {"vocabulary"},
		"model/run.json":                   {"settings of a training", "steps"},
		"model/metrics.jsonl":              {"metrics of a training", "step", "epoch"},
		"model/report.html":                {"training report", "steps"},
		"model/tensorboard/events*":        {"TensorBoard events"},
		"model/state/*/state.json":         {"facts of a training state", "step"},
		"model/state/*/manifest.json":      {"manifest of a training state"},
		"model/final_model/config.json":    {"model config", "n_layer"},
		"model/final_model/promptgen.json": {"facts of a model folder", "word"},
		"model/final_model/*token*.json":   {"part of a model folder"},
	} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Errorf("no %s (%v)", pattern, err)
		}
		for _, path := range paths {
			o := s.ok("inspect", path)
			for _, part := range want {
				if !strings.Contains(o.out, part) {
					t.Errorf("inspect %s: no %q in %s", path, part, o.out)
				}
			}
			o = s.ok("inspect", path, "--json")
			var v map[string]any
			if err := json.Unmarshal([]byte(o.out), &v); err != nil || v["kind"] == nil || v["path"] != path || strings.Contains(o.out, "null") {
				t.Errorf("inspect --json %s: %s (%v)", path, o.out, err)
			}
		}
	}
}

// What inspect does not know it says so of, and names what it knows; what it
// knows and finds damaged ends with 5 as well, with the reason.
func TestInspectRefuses(t *testing.T) {
	s := newShell(t)
	s.write("a.bin", "a file of others")
	s.write("other.json", `{"a": 1}`)
	s.write("folder/a.bin", "")
	for _, path := range []string{"a.bin", "other.json"} {
		s.fails(fault.CodeCorrupt, []string{path, "no file of weights", "inspect knows", "token folders"}, "inspect", path)
	}
	s.fails(fault.CodeCorrupt, []string{"folder", "config.json", "inspect knows"}, "inspect", "folder")

	s.write("cut.json", `{"n_embd": 16, `)
	s.write("tokenized_train_4.txt", "1 2 three")
	s.write("train-00000.bin", "PGTOKENS, or not")
	s.write("book/tokenized_train_0.txt", "1 2 ")
	s.write("book/tokenized_train_2.txt", "3 4 ")
	s.fails(fault.CodeCorrupt, []string{"cut.json", "broken JSON"}, "inspect", "cut.json")
	s.fails(fault.CodeCorrupt, []string{"tokenized_train_4.txt", "three"}, "inspect", "tokenized_train_4.txt")
	s.fails(fault.CodeCorrupt, []string{"train-00000.bin", "token shard"}, "inspect", "train-00000.bin")
	s.fails(fault.CodeCorrupt, []string{"tokenized_train_1.txt", "missing"}, "inspect", "book")
}

// A vocabulary without anything to note has a list of notes all the same.
func TestInspectVocabularyNotes(t *testing.T) {
	s := newShell(t)
	s.write("v.txt", "[SEP]\n[CLS]\n[MASK]\n[PAD]\n[UNK]\n")
	if o := s.ok("inspect", "v.txt", "--json"); !strings.Contains(o.out, `"notes": []`) {
		t.Error(o.out)
	}
}
