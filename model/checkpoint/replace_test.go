package checkpoint

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"promptgen/internal/fault"
)

// A folder is replaced as a whole: what a user keeps in it must not be lost to a
// mistyped path, and a former export must be replaced as ever.
func TestForeignFolderIsKept(t *testing.T) {
	m := smallModel(t, false)
	ctx := context.Background()
	writers := map[string]func(path string) error{
		"save": func(dir string) error { return Save(ctx, dir, m) },
		"hf": func(dir string) error {
			return Export(ctx, dir, m, ExportOptions{Format: FormatHF, DType: "fp16"})
		},
		"pytorch": func(dir string) error { return Export(ctx, dir, m, ExportOptions{Format: FormatPyTorch}) },
	}
	for name, write := range writers {
		for _, files := range [][]string{{"thesis.txt"}, {configName, metaName, "notes/a.md"}, {configName + "/a", metaName}, {vocabName}} {
			dir := filepath.Join(t.TempDir(), "d")
			for _, f := range files {
				path := filepath.Join(dir, f)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte("mine"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			wantCode(t, write(dir), fault.CodeUsage, dir, "choose another folder")
			for _, f := range files {
				if b, err := os.ReadFile(filepath.Join(dir, f)); err != nil || string(b) != "mine" {
					t.Errorf("%s over %v: %s is gone", name, files, f)
				}
			}
		}
		dir := t.TempDir() // empty
		for before, again := range writers {
			if err := again(dir); err != nil {
				t.Errorf("%s: %v", before, err)
			}
			if err := write(dir); err != nil {
				t.Errorf("%s over %s: %v", name, before, err)
			}
		}
	}
}

// A GGUF file takes the place of a GGUF file only.
func TestForeignFileIsKept(t *testing.T) {
	m := smallModel(t, false)
	path := filepath.Join(t.TempDir(), "m.gguf")
	write := func() error { return Export(context.Background(), path, m, ExportOptions{Format: FormatGGUF}) }
	if err := os.WriteFile(path, []byte("GG, a thesis"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantCode(t, write(), fault.CodeUsage, path, "choose another name")
	if b, err := os.ReadFile(path); err != nil || string(b) != "GG, a thesis" {
		t.Errorf("now %q (%v)", b, err)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	for range 2 { // over nothing, over itself
		if err := write(); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, Export(context.Background(), filepath.Dir(path), m, ExportOptions{Format: FormatGGUF}), fault.CodeUsage, "is a folder")
}
