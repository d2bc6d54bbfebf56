package atomicdir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"promptgen/internal/fault"
)

// This file says before the work what cannot, or should not, be written at its end.

// MayWriteFile is MayWrite for a file, which takes the place of nothing else.
func MayWriteFile(path string) error {
	if err := MayWrite(path); err != nil {
		return err
	}
	return takesFile(path, path)
}

// MayWrite refuses (2) a path where Write and WriteFile could write nothing for
// want of permission, so that this is known before there is work to lose. It
// changes nothing, and what it cannot tell it lets pass.
func MayWrite(path string) error {
	t, err := writer{system{}}.resolve(path)
	if err != nil {
		return err
	}
	dir := t.parent
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		dir = filepath.Dir(dir) // which it would be created in
	}
	if err := writable(dir); mayNot(err) {
		return writeError(path, err)
	}
	return nil
}

// MayReplace refuses (2) to put a folder in the place of the one that the program
// runs in, or of one above it: the shell would be left in a folder that is no
// more. It is for those who choose a place. Write itself does not refuse it: hours
// of work may lie in what it writes.
func MayReplace(dir string) error {
	there, err := os.Stat(dir)
	if err != nil {
		return nil // as a rule, that there is nothing
	}
	at, err := os.Getwd()
	if err == nil {
		at, err = filepath.EvalSymlinks(at) // the shell's name for it may lead through a link
	}
	if err != nil {
		return nil
	}
	for {
		if here, err := os.Stat(at); err == nil && os.SameFile(here, there) {
			return fault.Usage("%s: would be replaced as a whole, and it is or holds the folder that you are in; name a new folder, or change to another one first", dir)
		}
		if at == filepath.Dir(at) {
			return nil
		}
		at = filepath.Dir(at)
	}
}

// takesFile refuses (2) a place of something else than a file; name is the user's.
func takesFile(place, name string) error {
	switch info, err := os.Stat(place); {
	case err != nil: // as a rule, that there is nothing
	case info.IsDir():
		return fault.Usage("%s: is a folder, and a file is to be written there; choose another name", name)
	case !info.Mode().IsRegular():
		return fault.Usage("%s: is a device or a pipe, which a file would replace; choose another name", name)
	}
	return nil
}
