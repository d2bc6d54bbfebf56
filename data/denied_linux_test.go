package data

import (
	"os"
	"path/filepath"
	"testing"

	"promptgen/internal/fault"
	"promptgen/internal/testkit"
)

// A set that may not be read is no set of another kind, and none that must be
// made again: it may be whole.
func TestSetThatMayNotBeRead(t *testing.T) {
	testkit.AsNobody(t, func(root string) {
		if err := os.CopyFS(filepath.Join(root, "set"), os.DirFS(makeSet(t))); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(root, "set")
		for _, path := range []string{dir, filepath.Join(dir, manifestName), filepath.Join(dir, vocabName), filepath.Join(dir, "train-00000.bin")} {
			if err := os.Chmod(path, 0); err != nil {
				t.Fatal(err)
			}
			_, err := OpenSet(dir)
			code(t, err, fault.CodeUsage, path, "permission denied")
			if err := os.Chmod(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	})
}
