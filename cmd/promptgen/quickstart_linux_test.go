package main

import (
	"os"
	"os/exec"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"

	"promptgen/internal/fault"
)

// A disk that is full is no fault of the command line. The limit on the length of
// files stands for it; that binds the testing package's own too, so the test runs
// in a process of its own.
func TestQuickstartOnFullDisk(t *testing.T) {
	if os.Getenv("FULL_DISK_CHILD") == "" {
		child := exec.Command(os.Args[0], "-test.run=^TestQuickstartOnFullDisk$", "-test.v")
		child.Env = append(os.Environ(), "FULL_DISK_CHILD=1")
		if out, err := child.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	s := newShell(t)
	var free unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &free); err != nil {
		t.Skip(err)
	}
	signal.Ignore(unix.SIGXFSZ)
	defer signal.Reset(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1000, Max: free.Max}); err != nil {
		t.Skip(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_FSIZE, &free)
	s.fails(fault.CodeFailed, []string{"q/corpus/sample.txt", "too large"}, "quickstart", "--dir", "q")
	s.absent("q/corpus/sample.txt", "q/vocab")
}
