package main

import (
	"os"
	"strings"
	"testing"

	"promptgen/internal/fault"
)

// An export must replace neither what a user keeps nor what it is made from, and
// must go on replacing what it wrote before.
func TestExportKeepsWhatIsThere(t *testing.T) {
	if testing.Short() {
		t.Skip("trains a model")
	}
	s := trained(t)
	kept := func(path, text string) {
		t.Helper()
		if b, err := os.ReadFile(path); err != nil || string(b) != text {
			t.Errorf("%s is now %q (%v)", path, b, err)
		}
	}
	export := func(args string) []string { return append([]string{"export"}, strings.Fields(args)...) }
	s.write("thesis/a.txt", "years of work")
	s.fails(fault.CodeUsage, []string{"thesis", "a.txt"}, export("--out thesis")...)
	s.fails(fault.CodeUsage, []string{"thesis/a.txt", "GGUF"}, export("--format gguf --out thesis/a.txt")...)
	s.fails(fault.CodeUsage, []string{"thesis/a.txt", "is a file"}, export("--format pytorch --out thesis/a.txt")...)
	kept("thesis/a.txt", "years of work")

	for _, args := range []string{"--format gguf --out m.gguf", "--out hf --dtype fp16", "--out hf --format pytorch"} {
		s.ok(export(args)...)
		s.ok(export(args)...)
	}
	if err := os.Symlink("model/final_model", "link"); err != nil {
		t.Skip(err)
	}
	if err := os.Link("m.gguf", "hard.gguf"); err != nil {
		t.Skip(err)
	}
	// A GGUF file will do wherever a model is named, without a config too.
	s.ok("train", "--init-from", "m.gguf", "--out", "from-gguf", "--epochs", "1")
	s.fails(fault.CodeUsage, []string{"nowhere", "--epochs"}, "train", "--init-from", "nowhere", "--out", "m3", "--epochs", "0")
	s.fails(fault.CodeUsage, []string{"model/final_model", "--out"}, export("--out model/../model/final_model --dtype fp16")...)
	s.fails(fault.CodeUsage, []string{"link", "--out"}, export("--out link")...)
	s.fails(fault.CodeUsage, []string{"m.gguf", "--out"}, export("--model m.gguf --format gguf --out hard.gguf")...)

	// A training must say before its work that it will not replace a folder.
	s.write("model/final_model/notes.txt", "mine")
	s.ok("train", "--config", "tiny.json", "--epochs", "2", "--lr", "0.01") // finished: nothing to write
	s.fails(fault.CodeUsage, []string{"model/final_model", "notes.txt"}, "train", "--config", "tiny.json", "--epochs", "3", "--lr", "0.01")
	s.fails(fault.CodeUsage, []string{"model/final_model", "notes.txt"}, "train", "--config", "tiny.json", "--epochs", "2", "--resume", "never")
	kept("model/final_model/notes.txt", "mine")
	s.absent("model/model_epoch3")
	os.Remove("model/final_model/notes.txt")
	s.fails(fault.CodeUsage, []string{"model/final_model", "--init-from"}, "train", "--epochs", "1", "--resume", "never",
		"--init-from", "model/final_model", "--config", "tiny.json", "--lora-rank", "2", "--lr", "0.01")
	s.ok("train", "--config", "tiny.json", "--epochs", "1", "--resume", "never", "--lr", "0.01")
}
