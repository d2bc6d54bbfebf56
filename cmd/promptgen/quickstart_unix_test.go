//go:build unix

package main

import (
	"testing"

	"promptgen/internal/fault"
	"promptgen/internal/testkit"
)

// A disk that is full is no fault of the command line.
func TestQuickstartOnFullDisk(t *testing.T) {
	if !testkit.Alone(t) {
		return
	}
	s := newShell(t)
	testkit.WithFileLimit(t, 1000, func() {
		s.fails(fault.CodeFailed, []string{"q/corpus/sample.txt", "too large"}, "quickstart", "--dir", "q")
	})
	s.absent("q/corpus/sample.txt", "q/vocab")
}
