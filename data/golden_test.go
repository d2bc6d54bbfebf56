package data

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"promptgen/tokenizer"
)

// shared is a file of the test data that is not part of the module: below the
// folder that the environment variable names, or ../shared beside the checkout.
func shared(t testing.TB, env string, elem ...string) string {
	t.Helper()
	root := os.Getenv(env)
	if env == "" || root == "" {
		root = filepath.Join("..", "..", "shared")
	} else {
		elem = elem[2:] // the variable names the folder itself
	}
	path := filepath.Join(append([]string{root}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("needs %s, which is not here (set %s)", path, env)
	}
	return path
}

// stubSegmenter is the segmenter that the recorded pipeline ran with: forward
// maximum match up to eight characters over a list, runs of Latin letters kept
// together, spaces dropped.
type stubSegmenter map[string]bool

func readStub(t testing.TB, path string) stubSegmenter {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	words := stubSegmenter{}
	for s := bufio.NewScanner(f); s.Scan(); {
		words[s.Text()] = true
	}
	return words
}

func (w stubSegmenter) AppendWords(dst []string, text string) []string {
	for text != "" {
		r, n := utf8.DecodeRuneInString(text)
		switch {
		case r == ' ' || r == '\u3000':
			text = text[n:]
			continue
		case isLetter(text[0]):
			for n = 1; n < len(text) && isLetter(text[n]); n++ {
			}
		default:
			n = w.longest(text, n)
		}
		dst = append(dst, text[:n])
		text = text[n:]
	}
	return dst
}

// longest is the length of the longest word that text begins with, or of its
// first character.
func (w stubSegmenter) longest(text string, first int) int {
	best, end := first, 0
	for range 8 {
		if end == len(text) {
			break
		}
		_, n := utf8.DecodeRuneInString(text[end:])
		if end += n; w[text[:end]] {
			best = end
		}
	}
	return best
}

func isLetter(b byte) bool { return b|0x20 >= 'a' && b|0x20 <= 'z' }

// The recorded corpus pipeline of the original, end to end: its token files come
// out equal byte for byte, from its train.json and from the text it was made of.
func TestTokenizerGoldenPipeline(t *testing.T) {
	const env = "PROMPTGEN_TOKENIZER_GOLDEN"
	dir := shared(t, env, "fixtures", "tokenizer_golden", "pipeline_seed")
	vocab, err := tokenizer.ReadVocab(filepath.Join(dir, "vocab_user.txt"))
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.New(vocab, tokenizer.Options{
		Level: tokenizer.LevelWord, LowerCase: true, Compat: true,
		Segmenter: readStub(t, shared(t, env, "fixtures", "tokenizer_golden", "stub_words.txt")),
	})
	if err != nil {
		t.Fatal(err)
	}
	folders, err := filepath.Glob(filepath.Join(dir, "tokenized_p*_m*"))
	if err != nil || len(folders) == 0 {
		t.Fatalf("no tokenized folders in %s (%v)", dir, err)
	}
	for _, folder := range folders {
		var numPieces, minLength int
		if _, err := fmt.Sscanf(filepath.Base(folder), "tokenized_p%d_m%d", &numPieces, &minLength); err != nil {
			t.Fatal(err)
		}
		for _, corpus := range []string{"train.json", "train.txt"} {
			t.Run(filepath.Base(folder)+" from "+corpus, func(t *testing.T) {
				out := filepath.Join(t.TempDir(), "tokenized")
				_, err := Tokenize(t.Context(), TokenizeOptions{
					Corpus: []string{filepath.Join(dir, corpus)}, Out: out, Tokenizer: tok,
					Compat: true, NumPieces: numPieces, MinLength: minLength,
				})
				if err != nil {
					t.Fatal(err)
				}
				sameFolders(t, out, folder)
			})
		}
	}
}

// sameFolders fails unless both hold the same files with the same bytes.
func sameFolders(t *testing.T, got, want string) {
	t.Helper()
	a, b := readFolder(t, got), readFolder(t, want)
	for name := range b {
		if a[name] != b[name] {
			t.Errorf("%s differs: %.200q, want %.200q", name, a[name], b[name])
		}
	}
	for name := range a {
		if _, ok := b[name]; !ok {
			t.Errorf("%s: not wanted", name)
		}
	}
}

func readFolder(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s: left behind", e.Name())
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(b)
	}
	return files
}
