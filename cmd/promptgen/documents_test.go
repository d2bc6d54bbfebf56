package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The document's example of a training in little memory must fit, for as many
// threads as its readers have: what it says was once true of fewer.
func TestMemoryDocumentFits(t *testing.T) {
	text, err := os.ReadFile("../../docs/memory.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile(`promptgen train (--config small --max-memory \S+ --optimizer-state bf16)\n`).FindSubmatch(text)
	if example == nil {
		t.Fatal("docs/memory.md has no example with --max-memory and --optimizer-state bf16")
	}
	s := newShell(t)
	for _, threads := range []string{"1", "2", "4", "8", "16"} {
		args := append([]string{"plan", "--threads", threads}, strings.Fields(string(example[1]))...)
		s.ok(args...)
	}
}
