//go:build unix

package checkpoint

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"promptgen/internal/testkit"
)

// A disk that is full at any moment of a save leaves the former state whole, no
// leftovers, and an error. A limit on the length of files stands for the disk;
// it binds a whole process, the testing package's own log included, so the test
// runs in a process of its own.
func TestFullDisk(t *testing.T) {
	if !testkit.Alone(t) {
		return
	}
	ctx, root := context.Background(), t.TempDir()
	states, folder := filepath.Join(root, "state"), filepath.Join(root, "model")
	m := smallModel(t, false)
	if err := SaveState(ctx, states, smallState(t, 1)); err != nil {
		t.Fatal(err)
	}
	if err := Save(ctx, folder, m); err != nil {
		t.Fatal(err)
	}
	limited := func(n uint64, save func() error) (err error) {
		testkit.WithFileLimit(t, n, func() { err = save() })
		return err
	}
	before := listing(t, root)
	for _, n := range []uint64{0, 1, 10, 100, 1000, 5000} {
		if err := limited(n, func() error { return SaveState(ctx, states, smallState(t, 2)) }); err == nil {
			t.Fatalf("a state was saved in %d bytes", n)
		}
		if err := limited(n, func() error { return Save(ctx, folder, m) }); err == nil {
			t.Fatalf("a model was saved in %d bytes", n)
		}
		if s, err := LatestState(states); err != nil || s.Step != 1 {
			t.Fatalf("limit %d: the former state is gone: %v", n, err)
		}
		if info, err := Inspect(folder); err != nil || !info.Whole {
			t.Fatalf("limit %d: the former model is not whole: %+v, %v", n, info, err)
		}
	}
	if after := listing(t, root); len(after) != len(before) {
		t.Errorf("left behind: %v, before: %v", after, before)
	}
}

// listing is every path under root.
func listing(t *testing.T, root string) (paths []string) {
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}
