//go:build unix

package atomicdir

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func lockFile(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			return errHeld
		}
		return err
	}
}

// removeLocked removes a lock file while it is held: see tryLock.
func removeLocked(path string) { os.Remove(path) }

func syncFile(path string) error { return syncOpen(os.Open(path)) }
func syncDir(path string) error  { return syncOpen(os.Open(path)) }

func syncOpen(f *os.File, err error) error {
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		err = nil // a file system without sync has nothing to wait for
	}
	return errors.Join(err, f.Close())
}
