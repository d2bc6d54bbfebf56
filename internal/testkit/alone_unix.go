//go:build unix

package testkit

import (
	"os"
	"os/exec"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"
)

// Alone runs the test in a process of its own, for what binds a whole process, the
// testing package's log included. It is false in the process that only waited for
// the other: the test then is over.
func Alone(t *testing.T) bool {
	t.Helper()
	const child = "TESTKIT_ALONE"
	if os.Getenv(child) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), child+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

// WithFileLimit calls f while no file may become longer than n bytes, which stands
// for a full disk. It binds the whole process (see Alone).
func WithFileLimit(t testing.TB, n uint64, f func()) {
	t.Helper()
	signal.Ignore(unix.SIGXFSZ)
	defer signal.Reset(unix.SIGXFSZ)
	var free unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &free); err != nil {
		t.Skip("no limits on the length of files here: ", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: free.Max}); err != nil {
		t.Skip("the length of files cannot be limited: ", err)
	}
	defer unix.Setrlimit(unix.RLIMIT_FSIZE, &free)
	f()
}
