package atomicdir

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"promptgen/internal/tracee"
)

// What a power failure would show, tests of a living system cannot see: a name
// that is on the disk before what it names. So the system calls themselves are
// watched, in the program as it is: everything is synced before the rename, and
// the parent after it.
func TestSyncedBeforeNamed(t *testing.T) {
	dir := os.Getenv("ATOMICDIR_WATCHED")
	if dir != "" {
		if err := watched(t.Context(), dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	dir = t.TempDir()
	tmp := regexp.MustCompile(`\.tmp-\w+`)
	var seen []string
	over := false
	attr := &os.ProcAttr{Env: append(os.Environ(), "ATOMICDIR_WATCHED="+dir), Files: []*os.File{nil, nil, os.Stderr}}
	ws, err := tracee.Run(os.Args[0], []string{"-test.run=^TestSyncedBeforeNamed$"}, attr, func(c tracee.Call) tracee.Verdict {
		path, ours := strings.CutPrefix(c.Path, dir)
		switch {
		case over: // what a program does on its way out is not ours
		case ours && path == "/over":
			over = true
		case c.Name == "fsync" && ours:
			seen = append(seen, "sync "+tmp.ReplaceAllString(path, ".tmp"))
		case strings.HasPrefix(c.Name, "rename"):
			seen = append(seen, "rename")
		}
		return tracee.Pass
	})
	if err != nil {
		t.Skipf("no program can be watched here: %v", err)
	}
	if ws.ExitStatus() != 0 {
		t.Fatalf("the watched program ended with %d", ws.ExitStatus())
	}
	folder := "sync /.d.tmp/a; sync /.d.tmp/b; sync /.d.tmp/sub/c; sync /.d.tmp/sub; sync /.d.tmp; rename; sync ; "
	want := folder + // a new folder
		folder + // in the place of another
		"sync /.f.tmp; rename; sync ; " + // a file
		"rename; sync " // a removal
	if got := strings.Join(seen, "; "); got != want {
		t.Errorf("the calls were\n%s\nwant\n%s", got, want)
	}
}

// watched does each kind of writing once.
func watched(ctx context.Context, dir string) error {
	d := filepath.Join(dir, "d")
	for range 2 {
		if err := Write(ctx, d, put("x")); err != nil {
			return err
		}
	}
	if err := WriteFile(ctx, filepath.Join(dir, "f"), func(w io.Writer) error { _, err := io.WriteString(w, "x"); return err }); err != nil {
		return err
	}
	if err := Remove(ctx, d); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "over"), []byte("x"), 0o666)
}
