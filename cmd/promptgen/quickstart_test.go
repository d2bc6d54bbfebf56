package main

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"promptgen/internal/atomicdir"
	"promptgen/internal/fault"
)

// tree is every file below dir with its text.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		files[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A folder that its user keeps things in is left as it is, to the last file: what
// stands in one place is found out before another place is written.
func TestQuickstartKeepsWhatIsThere(t *testing.T) {
	s := newShell(t)
	s.write("mine.txt", corpus())
	for path, line := range map[string]string{
		"corpus/sample.txt":         "",
		"vocab/vocab_user.txt":      "mine.txt",
		"tokenized/a.txt":           "",
		"model":                     "mine.txt",
		"model/final_model/a.txt":   "mine.txt",
		"model/best_model/a.txt":    "mine.txt",
		"model/model_epoch20/a.txt": "mine.txt",
		"model/report.html":         "mine.txt",
		"model/metrics.jsonl":       "mine.txt",
		"model/run.json":            "mine.txt",
		"vocab":                     "",
		"corpus":                    "",
	} {
		dir := filepath.Join("kept", strings.ReplaceAll(path, "/", "-"))
		s.write(filepath.Join(dir, path), "years of work")
		named := strings.TrimSuffix(path, "/a.txt") // of a folder that is replaced as a whole, the folder
		s.fails(fault.CodeUsage, []string{named}, append([]string{"quickstart", "--dir", dir}, strings.Fields(line)...)...)
		if after := tree(t, dir); len(after) != 1 || after[filepath.Join(dir, path)] != "years of work" {
			t.Errorf("%s: now %v", path, after)
		}
	}
	// The text that it learns may lie where the vocabulary goes.
	s.write("in/vocab/vocab_user.txt", corpus())
	s.fails(fault.CodeUsage, []string{"made from", "--dir"}, "quickstart", "--dir", "in", "in/vocab/vocab_user.txt")
	// Beside tokens, which may be replaced, something may lie that may not.
	s.ok("vocab", "--corpus", "mine.txt", "--out", "mixed/vocab/vocab_user.txt", "--size", "50", "--quiet")
	s.ok("tokenize", "--corpus", "mine.txt", "--vocab", "mixed/vocab/vocab_user.txt", "--out", "mixed/tokenized", "--quiet")
	s.write("mixed/tokenized/notes.txt", "years of work")
	before := tree(t, "mixed")
	s.fails(fault.CodeUsage, []string{"notes.txt"}, "quickstart", "--dir", "mixed", "mine.txt")
	if after := tree(t, "mixed"); !maps.Equal(before, after) {
		t.Errorf("mixed: now %v", after)
	}
	s.fails(fault.CodeUsage, []string{"absent.txt"}, "quickstart", "--dir", "q", "absent.txt")
	s.absent("q")
}

// Two at once in one folder would mix their files.
func TestQuickstartIsAloneInItsFolder(t *testing.T) {
	s := newShell(t)
	s.write("mine.txt", corpus())
	unlock, err := atomicdir.Lock("q")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	s.fails(fault.CodeUsage, []string{"q: another process", "another folder"}, "quickstart", "mine.txt", "--dir", "q")
	s.absent("q/vocab", "q/tokenized", "q/model")
}

// The command that is given again after Ctrl-C goes on where the training stopped,
// as it was told; with other text or another seed it begins afresh.
func TestQuickstartGoesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for some seconds")
	}
	s := newShell(t)
	text := strings.Join(strings.SplitAfter(corpus(), "\n\n")[:12], "")
	s.write("mine.txt", text)
	args := []string{"quickstart", "mine.txt", "--dir", "q"}
	interrupted := func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		before, _ := os.ReadFile("q/model/run.json")
		go func() { // until it trains
			for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
				if now, err := os.ReadFile("q/model/run.json"); err == nil && !bytes.Equal(now, before) {
					cancel()
				}
			}
		}()
		var errs bytes.Buffer
		code := run(ctx, streams{strings.NewReader(""), io.Discard, &errs}, args, nil)
		if code != fault.CodeInterrupted || !strings.Contains(errs.String(), "the same command goes on from it") {
			t.Fatalf("exit code %d: %s", code, errs.String())
		}
		return errs.String()
	}
	goesOn := func(log string) bool {
		return strings.Contains(log, "going on from step") || strings.Contains(log, "is finished")
	}
	interrupted(args...)
	o := s.ok(append(args, "--threads", "1")...)
	if !goesOn(o.err) {
		t.Errorf("begun afresh: %s", o.err)
	}
	if again := s.ok(args...); again.out != o.out || !goesOn(again.err) { // the same result once more
		t.Errorf("at first\n%s\nthen\n%s", o.out, again.out)
	}
	whole := s.ok("quickstart", "mine.txt", "--dir", "whole")
	if got, want := strings.ReplaceAll(o.out, "q/model", "whole/model"), whole.out; got != want {
		t.Errorf("without an interruption\n%s\nwith one\n%s", want, got)
	}
	s.write("mine.txt", strings.ReplaceAll(text, "血压", "血糖")) // the same ids of another vocabulary
	if log := interrupted(args...); goesOn(log) {
		t.Errorf("went on with other text: %s", log)
	}
	if log := interrupted(append(args, "--seed", "2")...); goesOn(log) {
		t.Errorf("went on with another seed: %s", log)
	}
}
