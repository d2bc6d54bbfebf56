package main

import (
	"os"
	"strings"
	"testing"
)

// Every fault of the list can still be planted: what it changes stands in its
// file, once. Who changes that code changes the list with it, and the document
// that lists the same faults.
func TestListFitsTheTree(t *testing.T) {
	t.Chdir("../..")
	mutants, err := parse(list)
	if err != nil {
		t.Fatal(err)
	}
	if len(mutants) < 10 {
		t.Errorf("only %d faults", len(mutants))
	}
	document, err := os.ReadFile("docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	if rows := strings.Count(string(document), ".go | "); rows != len(mutants) {
		t.Errorf("docs/testing.md has %d faults, mutants.txt %d", rows, len(mutants))
	}
	for _, m := range mutants {
		source, err := os.ReadFile(m.file)
		if err != nil {
			t.Error(err)
		} else if n := strings.Count(string(source), m.old); n != 1 {
			t.Errorf("mutants.txt: %s: what is to be changed stands in %s %d times", m.what, m.file, n)
		}
		if row := "| " + m.file + " | " + m.what + " |"; !strings.Contains(string(document), row) {
			t.Errorf("docs/testing.md has no row %s", row)
		}
	}
}
