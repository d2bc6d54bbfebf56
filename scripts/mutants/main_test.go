package main

import (
	"os"
	"strings"
	"testing"
)

// Every fault of the list can still be planted: what it changes stands in its
// file, once. Who changes that code changes the list with it.
func TestListFitsTheTree(t *testing.T) {
	t.Chdir("../..")
	mutants, err := parse(list)
	if err != nil {
		t.Fatal(err)
	}
	if len(mutants) < 10 {
		t.Errorf("only %d faults", len(mutants))
	}
	for _, m := range mutants {
		source, err := os.ReadFile(m.file)
		if err != nil {
			t.Error(err)
		} else if n := strings.Count(string(source), m.old); n != 1 {
			t.Errorf("mutants.txt: %s: what is to be changed stands in %s %d times", m.what, m.file, n)
		}
	}
}
