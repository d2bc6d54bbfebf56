//go:build unix

package data

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"promptgen/internal/fault"
)

// A corpus that nobody writes must not hold a program that was told to stop: not
// while it waits for a writer, and not while the writer is silent.
func TestSilentPipeIsInterrupted(t *testing.T) {
	fifo := func(t *testing.T) string {
		path := filepath.Join(t.TempDir(), "corpus.txt")
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Skip(err)
		}
		return path
	}
	// read reads the path's documents until a cancel that comes soon.
	read := func(t *testing.T, path string, stdin io.Reader) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		ended := make(chan error)
		go func() {
			var last error
			for _, err := range Documents(ctx, []string{path}, CorpusOptions{Stdin: stdin}) {
				last = err
			}
			ended <- last
		}()
		select {
		case err := <-ended:
			if fault.Code(err) != fault.CodeInterrupted || !errors.Is(err, context.Canceled) {
				t.Errorf("code %d: %v", fault.Code(err), err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("still waiting")
		}
	}
	t.Run("no writer", func(t *testing.T) { read(t, fifo(t), nil) })
	for name, text := range map[string]string{"silent writer": "", "half a line": "高血压\n\n患", "half a gzip file": "\x1f\x8b\x08\x00", "half a zstd file": "\x28\xb5\x2f\xfd\x04", "a JSON list begun": "[\"a\", "} {
		t.Run(name, func(t *testing.T) {
			path := fifo(t)
			w, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			io.WriteString(w, text)
			read(t, path, nil)
		})
	}
	t.Run("standard input", func(t *testing.T) {
		r, w := io.Pipe()
		defer w.Close()
		read(t, Stdin, r)
	})
}

// A pipe that is written gives its documents, and an end.
func TestPipeIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "corpus.txt")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	go os.WriteFile(path, []byte("高血压\n\n患者"), 0o600)
	var got []string
	for d, err := range Documents(t.Context(), []string{path}, CorpusOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, d.Text)
	}
	if len(got) != 2 || got[1] != "患者" {
		t.Errorf("%q", got)
	}
}
