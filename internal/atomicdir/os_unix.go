//go:build unix

package atomicdir

import (
	"errors"
	"io/fs"
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

// FreeSpace is what may still be written to the file system of dir, in bytes;
// ok is false where the system does not tell.
func FreeSpace(dir string) (n int64, ok bool) {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true
}

// IsFull tells an error for want of space: the disk's, a quota's, or that of a
// limit on the length of files.
func IsFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}

// mayNot tells an error for want of permission, or of a place to write at all.
func mayNot(err error) bool { return errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) }

// writable fails where no file can be made in dir.
func writable(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) }
