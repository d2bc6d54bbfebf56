package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/train"
	"promptgen/train/runlog"
)

// full is a standard output that takes some bytes and no more.
type full struct{ left int }

func (f *full) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errors.New("the disk is full")
	}
	return len(b), nil
}

// Text that cannot be printed is a failure, wherever it breaks off.
func TestTextThatIsLost(t *testing.T) {
	for _, args := range [][]string{{"man"}, {"completion", "zsh"}, {"--help"}, {"train", "--help"}, {"version"}} {
		for _, left := range []int{0, 10} {
			var said strings.Builder
			code := run(t.Context(), streams{strings.NewReader(""), &full{left}, &said}, args, nil)
			if code != fault.CodeFailed || !strings.Contains(said.String(), "the disk is full") {
				t.Errorf("%v after %d bytes: exit code %d, %q", args, left, code, said.String())
			}
		}
	}
}

// An interrupt is told in words of this program.
func TestInterruptIsTold(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var said strings.Builder
	code := run(ctx, streams{strings.NewReader(""), io.Discard, &said}, []string{"doctor", "--out", t.TempDir()}, nil)
	if code != fault.CodeInterrupted || !strings.Contains(said.String(), "can be run again") || strings.Contains(said.String(), "context") {
		t.Errorf("exit code %d, %q", code, said.String())
	}
}

// A perplexity beyond all numbers is null in JSON, which has no infinity.
func TestEvaluationIsJSON(t *testing.T) {
	for loss, want := range map[float64]string{2: `"perplexity":7.38`, 1000: `"perplexity":null`} {
		r := train.EvalResult{Loss: loss, Perplexity: math.Exp(loss)}
		b, err := json.Marshal(evaluation{EvalResult: r, Perplexity: runlog.Number(r.Perplexity)})
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("loss %g: %s, %v", loss, b, err)
		}
	}
}
