//go:build unix

package atomicdir

import (
	"context"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"promptgen/internal/fault"
)

// refusing is a file system that does not let anything be made.
type refusing struct{ system }

func (refusing) mkdir(path string) error {
	return &fs.PathError{Op: "mkdir", Path: path, Err: syscall.EACCES}
}
func (refusing) create(path string, _ func(io.Writer) error) error {
	return &fs.PathError{Op: "open", Path: path, Err: syscall.EROFS}
}

// checkRefusal wants what a user can act upon: code 2, one line with the path
// that was asked for, and no hidden name.
func checkRefusal(t *testing.T, what, path string, err error) {
	t.Helper()
	if fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "may write to") {
		t.Errorf("%s: code %d: %v", what, fault.Code(err), err)
	} else if strings.Contains(err.Error(), tmpMark) || strings.Contains(err.Error(), lockName) {
		t.Errorf("%s names hidden files: %v", what, err)
	}
}

// A place that cannot be written is a fault of usage, told in the user's terms.
func TestRefusedPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d")
	checkRefusal(t, "a folder", path, writer{refusing{}}.folder(context.Background(), path, put("x")))
	checkRefusal(t, "a file", path, writer{refusing{}}.file(context.Background(), path, func(io.Writer) error { return nil }))
}

// The same with a real folder: root may write everywhere, so that another user
// has to try.
func TestRefusedByTheSystem(t *testing.T) {
	if path := os.Getenv("ATOMICDIR_REFUSED"); path != "" {
		checkRefusal(t, "Write", path, Write(t.Context(), path, put("x")))
		checkRefusal(t, "WriteFile", path, WriteFile(t.Context(), path, func(io.Writer) error { return nil }))
		checkRefusal(t, "MayWrite", path, MayWrite(path))
		below := filepath.Join(path, "new", "d")
		checkRefusal(t, "MayWrite of a new folder", below, MayWrite(below))
		checkRefusal(t, "Lock", filepath.Dir(path), func() error { _, err := Lock(filepath.Dir(path)); return err }())
		return
	}
	// Not t.TempDir, whose parents another user cannot pass.
	dir, err := os.MkdirTemp("", "atomicdir-refused")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	b, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "test")
	if err := os.WriteFile(exe, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o755)
	cmd := exec.Command(exe, "-test.run=^TestRefusedByTheSystem$")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "ATOMICDIR_REFUSED="+filepath.Join(dir, "d"))
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	if _, ran := err.(*exec.ExitError); err != nil && !ran {
		t.Skip(err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if err := MayWrite(filepath.Join(t.TempDir(), "new", "d")); err != nil {
		t.Error(err)
	}
}
