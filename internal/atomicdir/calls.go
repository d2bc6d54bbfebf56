package atomicdir

import (
	"io"
	"math/rand/v2"
	"os"
	"strconv"
)

// calls are the file-system calls that change something or make it last. Tests
// put one in between that fails, or stops for good, at a call of their choice.
type calls interface {
	mkdir(path string) error
	create(path string, fill func(io.Writer) error) error // a new file, filled, synced and closed
	rename(from, to string) error
	exchange(a, b string) error // swaps two names at once; errors.ErrUnsupported where the system cannot
	removeAll(path string) error
	syncFile(path string) error
	syncDir(path string) error
	list(dir string) ([]string, error)
}

// system is the operating system's own file system.
type system struct{}

func (system) mkdir(path string) error      { return os.Mkdir(path, 0o755) }
func (system) rename(from, to string) error { return os.Rename(from, to) }
func (system) exchange(a, b string) error   { return exchange(a, b) }
func (system) removeAll(path string) error  { return os.RemoveAll(path) }
func (system) syncFile(path string) error   { return syncFile(path) }
func (system) syncDir(path string) error    { return syncDir(path) }

func (system) create(path string, fill func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	return writeTo(f, fill)
}

func (system) list(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// random is the part of a temporary name that keeps writers apart.
func random() string { return strconv.FormatUint(rand.Uint64(), 36) }
