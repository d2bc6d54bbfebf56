package main

import (
	"os"
	"strings"
	"testing"

	"promptgen/internal/fault"
)

// A vocabulary must not replace what it is made from, by whatever name, nor a
// file of another kind; that is told before the corpus is read, which here cannot
// be: its second file is broken.
func TestVocabKeepsWhatIsThere(t *testing.T) {
	s := newShell(t)
	files := map[string]string{"a.txt": "高血压 患者\n", "z.json": "{broken", "dict.txt": "高血压\n", "thesis.txt": "years of work\n"}
	for path, text := range files {
		s.write(path, text)
	}
	s.write("folder/b.txt", "x")
	if err := os.Symlink("a.txt", "link.txt"); err != nil {
		t.Skip(err)
	}
	if err := os.Link("a.txt", "hard.txt"); err != nil {
		t.Skip(err)
	}
	for out, say := range map[string]string{
		"a.txt": "made from", "folder/../a.txt": "made from", "link.txt": "made from", "hard.txt": "made from", "dict.txt": "made from",
		"thesis.txt": "no vocabulary", "folder": "is a folder", "": "name it with --out",
	} {
		s.fails(fault.CodeUsage, []string{say, out, "--out"}, "vocab", "--corpus", "a.txt", "--corpus", "z.json", "--user-dict", "dict.txt", "--out", out)
	}
	for path, text := range files {
		if b, err := os.ReadFile(path); err != nil || string(b) != text {
			t.Errorf("%s is now %q (%v)", path, b, err)
		}
	}
	s.write("v.txt", "")
	for range 2 { // over nothing, over itself
		s.ok("vocab", "--corpus", "a.txt", "--out", "v.txt")
	}
}

// --size is kept but for the characters, and a vocabulary that is larger is told.
func TestVocabSize(t *testing.T) {
	s := newShell(t)
	s.write("a.txt", corpus())
	const told = "larger than --size"
	if o := s.ok("vocab", "--corpus", "a.txt", "--size", "100"); strings.Count(o.err, told) != 1 {
		t.Errorf("not told once: %s", o.err)
	}
	o := s.ok("vocab", "--corpus", "a.txt", "--size", "400", "--json")
	if strings.Contains(o.err, told) || number(t, o.out, "tokens") > 400 {
		t.Errorf("%s%s", o.err, o.out)
	}
}

// A config that fits replaces a config, and nothing that a user wrote.
func TestWriteConfigKeepsWhatIsThere(t *testing.T) {
	s := newShell(t)
	s.write("notes.txt", "mine")
	s.write("other.json", `{"name": "mine"}`)
	for _, path := range []string{"notes.txt", "other.json"} {
		before, _ := os.ReadFile(path)
		s.fails(fault.CodeUsage, []string{path, "--write-config"}, "plan", "--config", "test", "--write-config", path)
		if b, err := os.ReadFile(path); err != nil || string(b) != string(before) {
			t.Errorf("%s is now %q (%v)", path, b, err)
		}
	}
	for range 2 {
		s.ok("plan", "--config", "test", "--write-config", "fits.json")
	}
}
