package atomicdir

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"promptgen/internal/fault"
)

// failing passes calls on until the budget is spent. Then it fails once (an
// error of the disk), or for good (the process died there).
type failing struct {
	system
	budget     int
	dead       bool // fail for good
	noExchange bool // a system that cannot swap two names
}

var errInjected = errors.New("injected")

func (f *failing) spend() error {
	f.budget--
	if f.budget == -1 || f.dead && f.budget < 0 {
		return errInjected
	}
	return nil
}

func (f *failing) mkdir(p string) error {
	if err := f.spend(); err != nil {
		return err
	}
	return f.system.mkdir(p)
}

func (f *failing) create(p string, fill func(io.Writer) error) error {
	if err := f.spend(); err != nil {
		os.WriteFile(p, []byte("ha"), 0o644) // died while writing
		return err
	}
	return f.system.create(p, fill)
}

func (f *failing) rename(a, b string) error {
	if err := f.spend(); err != nil {
		return err
	}
	return f.system.rename(a, b)
}

func (f *failing) exchange(a, b string) error {
	if f.noExchange {
		return errors.ErrUnsupported
	}
	if err := f.spend(); err != nil {
		return err
	}
	return f.system.exchange(a, b)
}

func (f *failing) removeAll(p string) error {
	if err := f.spend(); err != nil {
		return err
	}
	return f.system.removeAll(p)
}

func (f *failing) syncFile(p string) error {
	if err := f.spend(); err != nil {
		return err
	}
	return f.system.syncFile(p)
}

func (f *failing) syncDir(p string) error {
	if err := f.spend(); err != nil {
		return err
	}
	return f.system.syncDir(p)
}

// put fills a folder with two files and a subfolder that all say text.
func put(text string) func(string) error {
	return func(tmp string) error {
		if err := os.Mkdir(filepath.Join(tmp, "sub"), 0o755); err != nil {
			return err
		}
		for _, name := range []string{"a", "b", "sub/c"} {
			if err := os.WriteFile(filepath.Join(tmp, name), []byte(text), 0o644); err != nil {
				return err
			}
		}
		return nil
	}
}

// said is what put wrote at dir; "" without dir. A folder of two minds fails.
func said(t *testing.T, dir string) string {
	t.Helper()
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return ""
	}
	var texts []string
	for _, name := range []string{"a", "b", "sub/c"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatalf("half a folder: %v", err)
		}
		texts = append(texts, string(b))
	}
	if texts[0] != texts[1] || texts[1] != texts[2] {
		t.Fatalf("old and new mixed: %q", texts)
	}
	return texts[0]
}

// onlyEntry fails if anything but name lies in dir.
func onlyEntry(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != name {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

// A failure or a death at any call leaves the old folder or the new one, and the
// next writer succeeds and leaves nothing else lying about.
func TestWriteSurvivesEveryFailure(t *testing.T) {
	for _, dead := range []bool{false, true} {
		for _, noExchange := range []bool{false, true} {
			for _, before := range []string{"", "old"} {
				for budget := 0; ; budget++ {
					parent := t.TempDir()
					dir := filepath.Join(parent, "模型 final")
					if before != "" {
						if err := Write(t.Context(), dir, put(before)); err != nil {
							t.Fatal(err)
						}
					}
					f := &failing{budget: budget, dead: dead, noExchange: noExchange}
					err := writer{f}.folder(t.Context(), dir, put("new"))
					if rerr := Recover(dir); rerr != nil {
						t.Fatal(rerr)
					}
					got := said(t, dir)
					if err == nil && got != "new" {
						t.Fatalf("dead %v, call %d: written without an error, and %q stands", dead, budget, got)
					}
					if got != before && got != "new" {
						t.Fatalf("dead %v, call %d: %q stands", dead, budget, got)
					}
					if err := Write(t.Context(), dir, put("next")); err != nil {
						t.Fatal(err)
					}
					if got := said(t, dir); got != "next" {
						t.Fatalf("the next writer left %q", got)
					}
					onlyEntry(t, parent, "模型 final")
					if err == nil && f.budget >= 0 {
						break // no call was left to fail
					}
				}
			}
		}
	}
}

func TestWriteFileSurvivesEveryFailure(t *testing.T) {
	for budget := 0; ; budget++ {
		parent := t.TempDir()
		path := filepath.Join(parent, "f.json")
		say := func(s string) func(io.Writer) error {
			return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
		}
		if err := WriteFile(t.Context(), path, say("old")); err != nil {
			t.Fatal(err)
		}
		f := &failing{budget: budget, dead: true}
		err := writer{f}.file(t.Context(), path, say("new"))
		b, rerr := os.ReadFile(path)
		if rerr != nil || string(b) != "old" && string(b) != "new" || err == nil && string(b) != "new" {
			t.Fatalf("call %d: %q stands (%v, %v)", budget, b, err, rerr)
		}
		if err := WriteFile(t.Context(), path, say("next")); err != nil {
			t.Fatal(err)
		}
		onlyEntry(t, parent, "f.json")
		if err == nil && f.budget >= 0 {
			break
		}
	}
}

// A failure or a death at any call of a removal leaves the folder whole or gone,
// and a sweep leaves nothing else lying about.
func TestRemoveSurvivesEveryFailure(t *testing.T) {
	for _, dead := range []bool{false, true} {
		for budget := 0; ; budget++ {
			parent := t.TempDir()
			dir := filepath.Join(parent, "step-1")
			if err := Write(t.Context(), dir, put("old")); err != nil {
				t.Fatal(err)
			}
			f := &failing{budget: budget, dead: dead}
			err := writer{f}.remove(t.Context(), dir)
			if got := said(t, dir); got != "" && err == nil {
				t.Fatalf("dead %v, call %d: removed without an error, and %q stands", dead, budget, got)
			}
			if err := Sweep(parent); err != nil {
				t.Fatal(err)
			}
			said(t, dir)
			onlyEntry(t, parent, "step-1")
			if err := Remove(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
			onlyEntry(t, parent, "")
			if err == nil && f.budget >= 0 {
				break
			}
		}
	}
}

// What is to be gone and is not there leaves nothing behind, no folder for its lock
// either.
func TestRemoveNothing(t *testing.T) {
	parent := t.TempDir()
	if err := Remove(t.Context(), filepath.Join(parent, "a", "b")); err != nil {
		t.Fatal(err)
	}
	onlyEntry(t, parent, "")
}

// A sweep removes what dead writers of any name left, puts back what they had
// moved aside, and leaves alone what is alive or nobody's business.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".a.tmp-1/x", ".a.lock", ".b.old-2/x", ".c.old-3/x", "c/x", ".lock", ".profile", ".tmp-1", "d.tmp-1", ".e.tmp-1/x"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	alive, err := tryLock(filepath.Join(dir, ".e.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer alive.release()
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if want := ".e.lock .e.tmp-1 .lock .profile .tmp-1 b c d.tmp-1"; strings.Join(got, " ") != want {
		t.Errorf("left: %v, want %v", got, want)
	}
	if err := Sweep(filepath.Join(dir, "absent")); err != nil {
		t.Error(err)
	}
}

// What fill refuses, and what is cancelled, leaves no trace.
func TestWriteRefusedLeavesNothing(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "d")
	if err := Write(t.Context(), dir, func(string) error { return errInjected }); !errors.Is(err, errInjected) {
		t.Fatalf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := Write(ctx, dir, func(tmp string) error { cancel(); return put("x")(tmp) })
	if fault.Code(err) != fault.CodeInterrupted {
		t.Fatalf("got %v", err)
	}
	onlyEntry(t, parent, "")
}

// A folder built beforehand is put in place whole, over another.
func TestPlace(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "d")
	for _, text := range []string{"first", "second"} {
		ready := filepath.Join(parent, "ready")
		if err := os.Mkdir(ready, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := put(text)(ready); err != nil {
			t.Fatal(err)
		}
		if err := Place(t.Context(), ready, dir); err != nil {
			t.Fatal(err)
		}
		if got := said(t, dir); got != text {
			t.Errorf("%q stands", got)
		}
		onlyEntry(t, parent, "d")
	}
}

func TestWriteOverTheWrongKind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Write(t.Context(), path, put("x")); fault.Code(err) != fault.CodeUsage {
		t.Errorf("a folder over a file: %v", err)
	}
	if err := Write(t.Context(), filepath.Join(path, "below"), put("x")); fault.Code(err) != fault.CodeUsage {
		t.Errorf("a folder below a file: %v", err)
	}
	if err := WriteFile(t.Context(), t.TempDir(), func(io.Writer) error { return nil }); fault.Code(err) != fault.CodeUsage {
		t.Errorf("a file over a folder: %v", err)
	}
}

// A link in the destination's place stays a link.
func TestWriteThroughALink(t *testing.T) {
	parent := t.TempDir()
	if err := Write(t.Context(), filepath.Join(parent, "real"), put("old")); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(parent, "link")
	if err := os.Symlink("real", link); err != nil {
		t.Skip(err)
	}
	if err := Write(t.Context(), link, put("new")); err != nil {
		t.Fatal(err)
	}
	if got := said(t, filepath.Join(parent, "real")); got != "new" {
		t.Errorf("behind the link: %q", got)
	}
	if _, err := os.Readlink(link); err != nil {
		t.Error(err)
	}
}

// Writers at the same time take turns; the readers between them see whole folders.
func TestConcurrentWriters(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "d")
	var wg sync.WaitGroup
	for _, text := range strings.Split("abcdefgh", "") {
		wg.Go(func() {
			if err := Write(t.Context(), dir, put(text)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if said(t, dir) == "" {
		t.Error("nothing written")
	}
	onlyEntry(t, parent, "d")
}

// One holder at a time, in this process and in others, and none after a death.
// Whoever waits for another writer can be interrupted, and leaves what stands.
func TestWaitingEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	l, err := tryLock(filepath.Join(filepath.Dir(path), ".x"+lockName))
	if err != nil {
		t.Fatal(err)
	}
	defer l.release()
	for name, wait := range map[string]func(context.Context) error{
		"Write": func(ctx context.Context) error { return Write(ctx, path, put("new")) },
		"WriteFile": func(ctx context.Context) error {
			return WriteFile(ctx, path, func(io.Writer) error { return nil })
		},
		"Remove": func(ctx context.Context) error { return Remove(ctx, path) },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- wait(ctx) }()
		select {
		case err := <-ended:
			t.Fatalf("%s did not wait: %v", name, err)
		case <-time.After(5 * lockPoll):
		}
		cancel()
		if err := <-ended; fault.Code(err) != fault.CodeInterrupted {
			t.Errorf("%s: %v", name, err)
		}
		onlyEntry(t, filepath.Dir(path), ".x"+lockName)
	}
}

func TestLock(t *testing.T) {
	if dir := os.Getenv("ATOMICDIR_LOCK_AND_DIE"); dir != "" {
		if _, err := Lock(dir); err != nil {
			os.Exit(3)
		}
		os.Exit(0) // without unlocking
	}
	dir := filepath.Join(t.TempDir(), "run")
	child := func() error {
		cmd := exec.Command(os.Args[0], "-test.run=^TestLock$")
		cmd.Env = append(os.Environ(), "ATOMICDIR_LOCK_AND_DIE="+dir)
		return cmd.Run()
	}
	if err := child(); err != nil {
		t.Fatalf("the first process could not lock: %v", err)
	}
	unlock, err := Lock(dir)
	if err != nil {
		t.Fatalf("a dead process still locks: %v", err)
	}
	if _, err := Lock(dir); fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second lock: %v", err)
	}
	if err := child(); err == nil {
		t.Error("another process locked as well")
	}
	unlock()
	unlock() // twice is harmless
	if unlock, err = Lock(dir); err != nil {
		t.Fatal(err)
	}
	unlock()
}

// The folder that the program runs in, and those above it, are not offered for
// replacement: a shell there would be left in one that is no more. Others are,
// also below it.
func TestWorkingFolderMayNotBeReplaced(t *testing.T) {
	parent := t.TempDir()
	here := filepath.Join(parent, "here", "below")
	if err := os.MkdirAll(filepath.Join(here, "out"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(here)
	for _, dir := range []string{".", "..", "../..", here, parent, "../below/"} {
		if err := MayReplace(dir); fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	for _, dir := range []string{"out", "new", "../other"} {
		if err := MayReplace(dir); err != nil {
			t.Error(err)
		}
	}
}
