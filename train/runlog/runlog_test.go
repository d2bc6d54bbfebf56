package runlog_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/train/runlog"
)

// write puts text into dir under name.
func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

// check asks for an error of a kind that says certain words.
func check(t *testing.T, err error, code int, words ...string) {
	t.Helper()
	if err == nil || fault.Code(err) != code {
		t.Fatalf("code %d: %v", fault.Code(err), err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("no %q in %v", w, err)
		}
	}
}

// A last line that was cut short is left out, whatever was cut; a broken line
// before the last is told with its number, and so is one without an end.
func TestReadLinesOfDamagedMetrics(t *testing.T) {
	dir := t.TempDir()
	_, err := runlog.ReadLines(dir, 0)
	check(t, err, fault.CodeUsage, dir, runlog.MetricsName)

	whole := `{"step":1,"loss":2}` + "\n\n" + `{"step":2,"loss":1}` + "\n"
	for _, rest := range []string{"", `{"step":3`, `{"step":3,"loss":1}`} {
		write(t, dir, runlog.MetricsName, whole+rest)
		lines, err := runlog.ReadLines(dir, 0)
		if err != nil || len(lines) != 2 || lines[1].Step != 2 {
			t.Errorf("ending in %q: %v, %v", rest, lines, err)
		}
	}
	write(t, dir, runlog.MetricsName, whole+"{\n"+whole)
	_, err = runlog.ReadLines(dir, 0)
	check(t, err, fault.CodeCorrupt, runlog.MetricsName, "line 4")
	write(t, dir, runlog.MetricsName, whole+strings.Repeat("x", 64<<20))
	_, err = runlog.ReadLines(dir, 0)
	check(t, err, fault.CodeCorrupt, "line 4")
}

// A log cannot be opened where its files cannot be written, nor upon lines that
// are broken; one that is closed says which file did not take a line.
func TestOpenAndAddFail(t *testing.T) {
	dir := t.TempDir()
	_, err := runlog.Open(t.Context(), dir, runlog.Options{Written: []byte("{\n")})
	check(t, err, fault.CodeCorrupt, runlog.MetricsName, "line 1")
	write(t, dir, "file", "")
	if _, err := runlog.Open(t.Context(), filepath.Join(dir, "file"), runlog.Options{}); err == nil {
		t.Error("opened below a file")
	}
	_, err = runlog.Open(t.Context(), dir, runlog.Options{Events: filepath.Join(dir, "file")})
	check(t, err, fault.CodeUsage, "TensorBoard", "file")

	l, err := runlog.Open(t.Context(), dir, runlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Add(runlog.Line{Step: 1}); err == nil || !strings.Contains(err.Error(), runlog.MetricsName) {
		t.Errorf("a line after the end: %v", err)
	}
}

// A run.json of another kind, of a later version or not there is told apart.
func TestReadRunRefuses(t *testing.T) {
	dir := t.TempDir()
	_, err := runlog.ReadRun(dir)
	check(t, err, fault.CodeUsage, dir, runlog.RunName)
	if err := runlog.WriteRun(t.Context(), dir, &runlog.Run{}); err != nil {
		t.Fatal(err)
	}
	if _, err := runlog.ReadRun(dir); err != nil {
		t.Errorf("what was written: %v", err)
	}
	for text, word := range map[string]string{"[]": "does not say", `{"format": 99}`: "99", `{}`: "format 0"} {
		write(t, dir, runlog.RunName, text)
		_, err := runlog.ReadRun(dir)
		check(t, err, fault.CodeCorrupt, runlog.RunName, word)
	}
}

// A folder whose name is a pattern keeps one event file a run as well, and that of
// another run is left alone.
func TestEventFilesOfOneRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m[1]")
	events := filepath.Join(dir, runlog.EventsName)
	if err := os.MkdirAll(events, 0o777); err != nil {
		t.Fatal(err)
	}
	write(t, events, "events.out.tfevents.1.host.promptgen-00000000", "")
	for range 2 {
		l, err := runlog.Open(t.Context(), dir, runlog.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		files, err := os.ReadDir(events)
		if err != nil || len(files) != 2 {
			t.Fatalf("%v, %v", files, err)
		}
		own := files[len(files)-1].Name()
		old := strings.Replace(own, "tfevents.", "tfevents.0", 1) // as of another second
		if err := os.Rename(filepath.Join(events, own), filepath.Join(events, old)); err != nil {
			t.Fatal(err)
		}
	}
}
