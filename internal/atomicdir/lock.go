package atomicdir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// errHeld says that another holder has the lock.
var errHeld = errors.New("held by another writer")

// fileLock is an exclusive lock on an open file. The system drops it when the
// process ends, however it ends, so that a lock file left behind locks nothing.
type fileLock struct {
	f    *os.File
	path string
}

// tryLock takes the lock of the file at path, or fails with errHeld.
func tryLock(path string) (*fileLock, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		if err := lockFile(f); err != nil {
			f.Close()
			return nil, err
		}
		// The holder before may have removed the file between our opening and
		// locking it: then the lock is on a file that nobody will open again.
		ours, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		if named, err := os.Stat(path); err != nil || !os.SameFile(ours, named) {
			f.Close()
			continue
		}
		f.Truncate(0)
		fmt.Fprintf(f, "%d\n", os.Getpid()) // for holder's message; nothing depends on it
		return &fileLock{f, path}, nil
	}
}

// waitLock takes the lock, waiting for its turn until ctx is done.
func waitLock(ctx context.Context, path string) (*fileLock, error) {
	for {
		l, err := tryLock(path)
		if !errors.Is(err, errHeld) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

func (l *fileLock) release() {
	if l.f == nil {
		return
	}
	removeLocked(l.path)
	l.f.Close()
	l.f = nil
}

// holder is " (process N)" where the lock file tells, else "".
func holder(path string) string {
	b, err := os.ReadFile(path)
	pid := strings.TrimSpace(string(b))
	if err != nil || pid == "" {
		return ""
	}
	return " (process " + pid + ")"
}
