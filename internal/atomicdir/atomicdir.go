// Package atomicdir writes folders and files that are there whole or not at all.
//
// A model folder, a set of token shards, a training state: each is several
// files that mean something only together, and each may be written while the
// power fails, the disk fills up or somebody presses Ctrl-C. So nothing is ever
// written in place. What is new is built beside its destination, under a hidden
// name on the same file system; every file and folder of it is synced; then one
// rename puts it where it belongs and the parent folder is synced, because it is
// the parent that holds the name. A reader sees the old folder or the new one.
//
//	err := atomicdir.Write(ctx, "model/final_model", func(tmp string) error {
//		return os.WriteFile(filepath.Join(tmp, "config.json"), config, 0o644)
//	})
//
// On Linux the exchange of two folders is one system call. Elsewhere the old
// folder is first moved aside; if the program dies just then, the next Write (or
// Recover, for those who only read) puts it back.
//
// Writers of the same destination take turns by a lock that the system drops
// when its holder dies. Whoever holds it knows that temporary names lying about
// belong to the dead, and removes them.
package atomicdir

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"promptgen/internal/fault"
)

// The hidden names beside a destination called NAME: .NAME.tmp-RANDOM is being
// built, .NAME.old-RANDOM was moved aside, .NAME.lock is the writers' lock.
const (
	tmpMark  = ".tmp-"
	oldMark  = ".old-"
	lockName = ".lock"
)

// lockPoll is how often a waiting writer looks whether its turn has come.
const lockPoll = 10 * time.Millisecond

// Write puts a new folder at dir: fill makes its contents under tmp, an empty
// folder beside dir. When fill fails, or ctx is done by the time it returns, dir
// is left as it was. A folder already at dir is replaced as a whole. Missing
// parents are created.
func Write(ctx context.Context, dir string, fill func(tmp string) error) error {
	return writer{system{}}.folder(ctx, dir, fill)
}

// WriteFile puts a new file at path: what fill writes, and nothing if it fails or
// ctx is done by the time it returns. Missing parents are created.
func WriteFile(ctx context.Context, path string, fill func(w io.Writer) error) error {
	return writer{system{}}.file(ctx, path, fill)
}

// Place puts the folder ready, which was built over a longer time than one call,
// at dir, as Write would have: synced first, and in one step. Both must lie on
// the same file system. When it fails, ready is still there.
func Place(ctx context.Context, ready, dir string) error {
	return writer{system{}}.place(ctx, ready, dir)
}

// Recover undoes a replacement that a crash cut in two: where dir is missing and
// its former self lies beside it, that is put back. Without such a leftover, or
// while another process writes dir, it does nothing.
func Recover(dir string) error {
	w := writer{system{}}
	t, err := w.resolve(dir)
	if err != nil {
		return err
	}
	if old, err := w.leftovers(t, oldMark); err != nil || len(old) == 0 {
		return nil // the usual case; a parent that cannot be read holds nothing to put back
	}
	l, err := tryLock(t.hidden(lockName))
	if err != nil {
		return nil // being written: its writer recovers it
	}
	defer l.release()
	return w.putBack(t)
}

// Remove takes the folder dir away: it is there whole, or not at all. A dir that
// is not there is no error. Until ctx is done it waits for who writes dir.
func Remove(ctx context.Context, dir string) error {
	return writer{system{}}.remove(ctx, dir)
}

// Sweep clears dir of what writers that died left in it under hidden names:
// half-built folders and files, locks, and former selves, which are put back
// where their successor is missing. What a living writer holds is left alone. A
// dir that is not there is no error.
func Sweep(dir string) error {
	return writer{system{}}.sweep(dir)
}

// Lock makes the caller the only writer of dir, a folder that is written in
// place (a run's output), until unlock is called or the process ends. dir is
// created where it is missing. A dir that another process holds is refused at
// once, with exit code 2.
func Lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, folderError(dir, err)
	}
	l, err := tryLock(filepath.Join(dir, lockName))
	if errors.Is(err, errHeld) {
		return nil, fault.Usage("%s: another process%s is writing there; wait for it, or choose another folder", dir, holder(filepath.Join(dir, lockName)))
	}
	if err != nil {
		return nil, writeError(dir, err)
	}
	return l.release, nil
}

// writer is the procedure, over file-system calls that a test may make fail.
type writer struct{ fs calls }

// target is a destination: the folder it lies in, and its name there.
type target struct{ parent, name string }

func (t target) path() string { return filepath.Join(t.parent, t.name) }
func (t target) hidden(suffix string) string {
	return filepath.Join(t.parent, "."+t.name+suffix)
}

// resolve finds the destination that path means, following a link that stands in
// its place: the link is to stay, what it points to is replaced.
func (w writer) resolve(path string) (target, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return target{}, fmt.Errorf("%s: %w", path, err)
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	if filepath.Dir(abs) == abs {
		return target{}, fault.Usage("%s: the root of a file system cannot be written as a whole; name a folder in it", path)
	}
	return target{filepath.Dir(abs), filepath.Base(abs)}, nil
}

func (w writer) folder(ctx context.Context, dir string, fill func(tmp string) error) (err error) {
	t, release, err := w.beginFolder(ctx, dir)
	if err != nil {
		return err
	}
	defer release()
	tmp := t.hidden(tmpMark + random())
	if err := w.fs.mkdir(tmp); err != nil {
		return writeError(dir, err)
	}
	defer func() {
		if err != nil {
			w.fs.removeAll(tmp) // best effort: the next writer cleans up as well
		}
	}()
	if err := fill(tmp); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return w.install(t, tmp)
}

func (w writer) place(ctx context.Context, ready, dir string) error {
	t, release, err := w.beginFolder(ctx, dir)
	if err != nil {
		return err
	}
	defer release()
	return w.install(t, ready)
}

// install syncs tmp and puts it at t.
func (w writer) install(t target, tmp string) error {
	err := w.syncTree(tmp)
	if err == nil {
		err = w.replace(t, tmp)
	}
	if err != nil {
		return writeError(t.path(), err)
	}
	return nil
}

func (w writer) file(ctx context.Context, path string, fill func(io.Writer) error) (err error) {
	t, release, err := w.begin(ctx, path)
	if err != nil {
		return err
	}
	defer release()
	if err := takesFile(t.path(), path); err != nil {
		return err
	}
	tmp := t.hidden(tmpMark + random())
	defer func() {
		if err != nil {
			w.fs.removeAll(tmp)
		}
	}()
	if err := w.fs.create(tmp, fill); err != nil {
		if p, ok := err.(*fs.PathError); ok && p.Path == tmp {
			return writeError(path, err)
		}
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.fs.rename(tmp, t.path()); err != nil {
		return writeError(path, err)
	}
	return w.fs.syncDir(t.parent)
}

func (w writer) remove(ctx context.Context, dir string) error {
	if _, err := os.Lstat(filepath.Dir(dir)); errors.Is(err, fs.ErrNotExist) {
		return nil // and the lock needs no folder to lie in
	}
	t, release, err := w.begin(ctx, dir)
	if err != nil {
		return err
	}
	defer release()
	gone := t.hidden(tmpMark + random()) // a dead writer's remains, for the next to clear away
	if err := w.fs.rename(t.path(), gone); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("removing %s: %w", dir, err)
	}
	err = w.fs.syncDir(t.parent)
	return errors.Join(err, w.fs.removeAll(gone))
}

func (w writer) sweep(dir string) error {
	names, err := w.fs.list(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	of := map[string]bool{} // the destinations that something is left of
	for _, name := range names {
		if dest, ok := destination(name); ok {
			of[dest] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(of)) {
		t := target{dir, name}
		l, err := tryLock(t.hidden(lockName))
		if errors.Is(err, errHeld) {
			continue
		}
		if err == nil {
			err = w.clean(t)
			l.release()
		}
		if err != nil {
			return fmt.Errorf("clearing %s of what an earlier run left: %w", dir, err)
		}
	}
	return nil
}

// destination is the name that a hidden name beside it was made for.
func destination(hidden string) (name string, ok bool) {
	if name, ok = strings.CutPrefix(hidden, "."); !ok {
		return "", false
	}
	for _, mark := range []string{tmpMark, oldMark} {
		if at := strings.LastIndex(name, mark); at > 0 {
			return name[:at], true
		}
	}
	name, ok = strings.CutSuffix(name, lockName)
	return name, ok && name != ""
}

// begin takes the destination's lock and clears away what dead writers left.
func (w writer) begin(ctx context.Context, path string) (target, func(), error) {
	t, err := w.resolve(path)
	if err != nil {
		return t, nil, err
	}
	if err := os.MkdirAll(t.parent, 0o755); err != nil {
		return t, nil, folderError(t.parent, err)
	}
	l, err := waitLock(ctx, t.hidden(lockName))
	if err != nil {
		if ctx.Err() != nil {
			return t, nil, ctx.Err() // nothing has begun
		}
		return t, nil, writeError(path, err)
	}
	if err := w.clean(t); err != nil {
		l.release()
		return t, nil, fmt.Errorf("writing %s: clearing away what an earlier run left: %w", path, err)
	}
	return t, l.release, nil
}

// beginFolder is begin for a folder: a file in its place is refused.
func (w writer) beginFolder(ctx context.Context, dir string) (target, func(), error) {
	t, release, err := w.begin(ctx, dir)
	if err != nil {
		return t, nil, err
	}
	if info, err := os.Stat(t.path()); err == nil && !info.IsDir() {
		release()
		return t, nil, fault.Usage("%s: is a file, and a folder is to be written there; move it away or choose another name", dir)
	}
	return t, release, nil
}

// replace puts tmp, whole and synced, at t.
func (w writer) replace(t target, tmp string) error {
	if _, err := os.Lstat(t.path()); errors.Is(err, fs.ErrNotExist) {
		if err := w.fs.rename(tmp, t.path()); err != nil {
			return err
		}
		return w.fs.syncDir(t.parent)
	}
	old := tmp
	if err := w.fs.exchange(tmp, t.path()); errors.Is(err, errors.ErrUnsupported) {
		old = t.hidden(oldMark + random())
		if err := w.fs.rename(t.path(), old); err != nil {
			return err
		}
		if err := w.fs.rename(tmp, t.path()); err != nil {
			return errors.Join(err, w.fs.rename(old, t.path()))
		}
	} else if err != nil {
		return err
	}
	if err := w.fs.syncDir(t.parent); err != nil {
		return err
	}
	w.fs.removeAll(old) // the new folder stands; a remainder goes with the next writer
	return nil
}

// clean removes what dead writers of t left, once it has put back what one of
// them had moved aside. The caller holds the lock.
func (w writer) clean(t target) error {
	if err := w.putBack(t); err != nil {
		return err
	}
	for _, mark := range []string{tmpMark, oldMark} {
		names, err := w.leftovers(t, mark)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := w.fs.removeAll(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// putBack restores a destination that was moved aside and never replaced.
func (w writer) putBack(t target) error {
	if _, err := os.Lstat(t.path()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	old, err := w.leftovers(t, oldMark)
	if err != nil || len(old) == 0 {
		return err
	}
	if err := w.fs.rename(old[0], t.path()); err != nil {
		return err
	}
	return w.fs.syncDir(t.parent)
}

// leftovers lists the paths beside t that carry the mark.
func (w writer) leftovers(t target, mark string) ([]string, error) {
	names, err := w.fs.list(t.parent)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, name := range names {
		if strings.HasPrefix(name, "."+t.name+mark) {
			paths = append(paths, filepath.Join(t.parent, name))
		}
	}
	return paths, nil
}

// syncTree syncs every file below dir, and every folder after what it holds.
func (w writer) syncTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case e.IsDir():
			err = w.syncTree(path)
		case e.Type().IsRegular():
			err = w.fs.syncFile(path)
		}
		if err != nil {
			return err
		}
	}
	return w.fs.syncDir(dir)
}

// folderError tells why dir cannot be made: most often a file has its name.
func folderError(dir string, err error) error {
	if info, e := os.Stat(dir); e == nil && !info.IsDir() {
		return fault.Usage("%s: is a file, and a folder is needed there; move it away or choose another name", dir)
	}
	return fault.Usage("%s: cannot be created (%v); choose a folder that you may write to", dir, fault.Reason(err))
}

// writeError tells why nothing can be written at path. The hidden names that the
// system's error has are nothing that the user has chosen.
func writeError(path string, err error) error {
	if mayNot(err) {
		return fault.Usage("%s: cannot be written (%w); choose a folder that you may write to", path, fault.Reason(err))
	}
	return fmt.Errorf("writing %s: %w", path, fault.Reason(err))
}

// writeTo runs fill over a buffered f, then syncs and closes it.
func writeTo(f *os.File, fill func(io.Writer) error) error {
	b := bufio.NewWriterSize(f, 1<<16)
	err := fill(b)
	if err == nil {
		err = b.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
