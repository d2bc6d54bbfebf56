package testkit

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// AsNobody calls f with a user's access to files where the tests run as root,
// whom no permission keeps out. Linux keeps it thread by thread: f must open
// files on its own goroutine. Folders that it is to enter must let others in,
// which those of t.TempDir do not: it gets one that does.
func AsNobody(t testing.TB, f func(dir string)) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nobody")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if root := os.Geteuid(); root == 0 {
		const nobody = 65534
		if err := unix.Setfsuid(nobody); err != nil {
			t.Skip(err)
		}
		defer unix.Setfsuid(root)
	}
	f(dir)
}
