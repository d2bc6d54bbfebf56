package data

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/tokenizer"
)

// charTokenizer knows the special tokens, a few letters and characters.
func charTokenizer(t testing.TB, more ...string) *tokenizer.Tokenizer {
	t.Helper()
	list := []string{"[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]"}
	for _, r := range "abcdefghijklmnopqrstuvwxyz0123456789，。？高血压患者能吃党参吗头痛怎么办的一二三四五六七八九十" {
		list = append(list, string(r))
	}
	for r := 'a'; r <= 'z'; r++ {
		list = append(list, "##"+string(r))
	}
	v, err := tokenizer.NewVocab(append(list, more...))
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.New(v, tokenizer.Options{Level: tokenizer.LevelChar, LowerCase: true})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// setTokenizer is the tokenizer that a set says it was made with.
func setTokenizer(s *Set) (*tokenizer.Tokenizer, error) {
	v, err := s.Vocab()
	if err != nil {
		return nil, err
	}
	return tokenizer.New(v, tokenizer.Options{
		Level: tokenizer.Level(s.Manifest.Level), LowerCase: s.Manifest.LowerCase, UserDict: s.userDict, Compat: s.Manifest.Compat,
	})
}

// write puts content into a new file called name.
func write(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// code fails unless err is one line, has the exit code, and says all of say.
func code(t testing.TB, err error, want int, say ...string) {
	t.Helper()
	if fault.Code(err) != want {
		t.Errorf("exit code %d, want %d: %v", fault.Code(err), want, err)
		return
	}
	for _, s := range say {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("does not say %q: %v", s, err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than a line: %q", err)
	}
}
