package tokenizer_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/tokenizer"
)

const fiveSpecials = "[SEP]\n[CLS]\n[MASK]\n[PAD]\n[UNK]\n"

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "词 表.txt")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestReadVocabForms: every way to end lines gives the same vocabulary; a
// blank line holds its place.
func TestReadVocabForms(t *testing.T) {
	want := []string{"[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]", "的", "", " ", "了"}
	unix := strings.Join(want, "\n") + "\n"
	for name, text := range map[string]string{
		"unix": unix, "no last newline": strings.TrimSuffix(unix, "\n"),
		"windows": strings.ReplaceAll(unix, "\n", "\r\n"), "old mac": strings.ReplaceAll(unix, "\n", "\r"),
		"byte order mark": "\ufeff" + unix,
	} {
		v, err := tokenizer.ReadVocab(writeFile(t, text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := v.Tokens(); !slices.Equal(got, want) {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func TestReadVocabDuplicates(t *testing.T) {
	v, err := tokenizer.ReadVocab(writeFile(t, fiveSpecials+"的\n了\n的\n"))
	if err != nil {
		t.Fatal(err)
	}
	if id, _ := v.ID("的"); id != 7 {
		t.Errorf("的 has id %d, want that of its last line, 7", id)
	}
	if v.Token(5) != "的" || v.Len() != 8 {
		t.Error("a duplicate keeps its line")
	}
	if notes := v.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "的") {
		t.Errorf("the duplicate is not told: %q", notes)
	}
}

// TestReadVocabFaults: each is told in one line that names the file, with the
// exit code of its kind.
func TestReadVocabFaults(t *testing.T) {
	cases := map[string]struct {
		path string
		code int
		says string
	}{
		"absent":  {filepath.Join(t.TempDir(), "none"), fault.CodeUsage, "no such file"},
		"folder":  {t.TempDir(), fault.CodeUsage, "folder"},
		"empty":   {writeFile(t, ""), fault.CodeCorrupt, "empty"},
		"zeros":   {writeFile(t, strings.Repeat("\x00", 1000)), fault.CodeCorrupt, "zero byte"},
		"gbk":     {writeFile(t, fiveSpecials+"\xb5\xc4\n"), fault.CodeCorrupt, "UTF-8"},
		"no UNK":  {writeFile(t, strings.ReplaceAll(fiveSpecials, "[UNK]", "的")), fault.CodeCorrupt, "[UNK]"},
		"no MASK": {writeFile(t, strings.ReplaceAll(fiveSpecials, "[MASK]", "的")), fault.CodeCorrupt, "[MASK]"},
	}
	for name, c := range cases {
		_, err := tokenizer.ReadVocab(c.path)
		switch {
		case err == nil:
			t.Errorf("%s: no error", name)
		case fault.Code(err) != c.code:
			t.Errorf("%s: exit code %d, want %d (%v)", name, fault.Code(err), c.code, err)
		case !strings.Contains(err.Error(), c.path) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n"):
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestVocabWriteFile: what was written is read back, with the same hash.
func TestVocabWriteFile(t *testing.T) {
	v, err := tokenizer.ParseVocab([]byte(fiveSpecials + "的\nHello\n##ing"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "vocab.txt")
	if err := v.WriteFile(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	again, err := tokenizer.ReadVocab(path)
	if err != nil {
		t.Fatal(err)
	}
	if v.Hash() != again.Hash() || len(v.Hash()) != 64 {
		t.Errorf("hash %s became %s", v.Hash(), again.Hash())
	}
	if s := v.Special(); s != (tokenizer.Special{SEP: 0, CLS: 1, MASK: 2, PAD: 3, UNK: 4}) {
		t.Errorf("special ids %+v", s)
	}
	if v.LowerCaseByDefault() {
		t.Error("a vocabulary with capitals keeps case")
	}
}

// FuzzParseVocab: any bytes give a vocabulary whose tokens have ids, or an
// error of a corrupt file.
func FuzzParseVocab(f *testing.F) {
	f.Add([]byte(fiveSpecials + "的\n##ing\n"))
	f.Add([]byte(strings.ReplaceAll(fiveSpecials, "\n", "\r\n") + "的\r的"))
	f.Add([]byte("[UNK]\n\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := tokenizer.ParseVocab(b)
		if err != nil {
			if fault.Code(err) != fault.CodeCorrupt {
				t.Fatalf("exit code %d: %v", fault.Code(err), err)
			}
			return
		}
		for id := range int32(v.Len()) {
			tok := v.Token(id)
			if got, ok := v.ID(tok); !ok || v.Token(got) != tok || got < id {
				t.Fatalf("token %d, %q, has id %d", id, tok, got)
			}
		}
	})
}
