package tokenizer_test

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"promptgen/tokenizer"
	"promptgen/tokenizer/segment"
)

// goldenCase is a string and what the original made of it.
type goldenCase struct {
	ID       string   `json:"id"`
	Text     string   `json:"text"`
	RawHex   string   `json:"raw_hex"`
	Tokens   []string `json:"tokens"`
	IDs      []int32  `json:"ids"`
	Tokens15 []string `json:"tokens_unicode15"`
	IDs15    []int32  `json:"ids_unicode15"`
	Fragment []struct {
		In    string   `json:"in"`
		Words []string `json:"words"`
	} `json:"fragments"`
}

// want is what Go's Unicode tables give.
func (c goldenCase) want() ([]string, []int32) {
	if c.Tokens15 != nil {
		return c.Tokens15, c.IDs15
	}
	return c.Tokens, c.IDs
}

// texts are the string, and the broken bytes that it was made of.
func (c goldenCase) texts(t *testing.T) []string {
	if c.RawHex == "" {
		return []string{c.Text}
	}
	raw, err := hex.DecodeString(c.RawHex)
	if err != nil {
		t.Fatal(err)
	}
	return []string{c.Text, string(raw)}
}

// goldenDir is the folder of recorded cases.
func goldenDir() string {
	if dir := os.Getenv("PROMPTGEN_TOKENIZER_GOLDEN"); dir != "" {
		return dir
	}
	return filepath.Join("testdata", "tokenizer_golden")
}

// shared finds what is kept beside the checkout and may not be part of it.
func shared(t testing.TB, env string, elem ...string) string {
	t.Helper()
	path := filepath.Join(append([]string{"..", "..", "shared"}, elem...)...)
	if dir := os.Getenv(env); env != "" && dir != "" {
		path = filepath.Join(dir, elem[len(elem)-1])
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("%s is not here; name its folder in %s", path, env)
	}
	return path
}

func vocabFile(t testing.TB, name string) *tokenizer.Vocab {
	t.Helper()
	v, err := tokenizer.ReadVocab(shared(t, "PROMPTGEN_VOCABS", "vocabs", name))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func readCases[T any](t testing.TB, path string) []T {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []T
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var c T
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		t.Fatalf("%s: no cases", path)
	}
	return list
}

// recorded answers with the words that the original's segmenter gave. Where
// newer Unicode tables keep characters that the original dropped, the text was
// never segmented: each of its characters is a word.
type recorded struct {
	t     testing.TB
	words map[string][]string
	newer string // the text that newer tables see otherwise, if any
}

func (r *recorded) AppendWords(dst []string, text string) []string {
	words, ok := r.words[text]
	if !ok && text == r.newer {
		return append(dst, strings.Split(text, "")...)
	} else if !ok {
		r.t.Errorf("the segmenter was asked for %q, which the original did not", text)
	}
	return append(dst, words...)
}

// TestTokenizerGolden: every string of every recorded file gives the tokens
// and ids that the original gave.
func TestTokenizerGolden(t *testing.T) {
	vocabs := map[string]string{
		"bert-base-chinese": "bert-base-chinese_vocab.txt",
		"vocab_small":       "gpt2chinese_vocab_small.txt",
		"vocab_seg":         "gpt2chinese_vocab_seg.txt",
	}
	levels := map[string]tokenizer.Level{
		"char": tokenizer.LevelChar, "hfbert": tokenizer.LevelBERT, "word": tokenizer.LevelWord,
	}
	files, err := filepath.Glob(filepath.Join(goldenDir(), "*.*.jsonl"))
	if err != nil || len(files) != 5 {
		t.Fatalf("want five files of cases in %s, found %d (%v)", goldenDir(), len(files), err)
	}
	for _, path := range files {
		name := filepath.Base(path)
		t.Run(strings.TrimSuffix(name, ".jsonl"), func(t *testing.T) {
			part := strings.Split(name, ".")
			level, ok := levels[part[0]]
			if !ok || vocabs[part[1]] == "" {
				t.Fatalf("%s: no such level or vocabulary", name)
			}
			v := vocabFile(t, vocabs[part[1]])
			cases := readCases[goldenCase](t, path)
			words := &recorded{t: t, words: map[string][]string{}}
			for _, c := range cases {
				for _, f := range c.Fragment {
					words.words[f.In] = f.Words
				}
			}
			if !v.LowerCaseByDefault() {
				t.Errorf("%s has no capitals, so text is to be lower-cased by default", part[1])
			}
			tok, err := tokenizer.New(v, tokenizer.Options{Level: level, LowerCase: true, Segmenter: words, Compat: level == tokenizer.LevelWord})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range cases {
				tokens, ids := c.want()
				if words.newer = ""; c.Tokens15 != nil {
					words.newer = c.Text
				}
				for _, text := range c.texts(t) {
					if got := tokensOf(tok, text); !slices.Equal(got, tokens) {
						t.Errorf("%s: %q\n got %q\nwant %q", c.ID, text, got, tokens)
					}
					if got := tok.Encode(text); !slices.Equal(got, ids) {
						t.Errorf("%s: %q\n got %v\nwant %v", c.ID, text, got, ids)
					}
				}
			}
		})
	}
}

// TestTokenizerGoldenDecode: tokens come back as the text that the original
// prints, whole and token by token.
func TestTokenizerGoldenDecode(t *testing.T) {
	type joinCase struct {
		ID     string   `json:"id"`
		Tokens []string `json:"tokens"`
		Text   string   `json:"text"`
	}
	for _, c := range readCases[joinCase](t, filepath.Join(goldenDir(), "join_text.jsonl")) {
		tok, ids := overTokens(t, c.Tokens)
		if got := tok.Decode(ids); got != c.Text {
			t.Errorf("%s: %q\n got %q\nwant %q", c.ID, c.Tokens, got, c.Text)
		}
		if got := strings.TrimSpace(streamed(tok, ids)); got != c.Text {
			t.Errorf("%s: streamed\n got %q\nwant %q", c.ID, got, c.Text)
		}
	}
}

// tokensOf are the tokens of text by their names.
func tokensOf(tok *tokenizer.Tokenizer, text string) []string {
	ids := tok.Encode(text)
	tokens := make([]string, len(ids))
	for i, id := range ids {
		tokens[i] = tok.Vocab().Token(id)
	}
	return tokens
}

// overTokens is a tokenizer whose vocabulary has just these tokens and the
// special ones, and their ids.
func overTokens(t *testing.T, tokens []string) (*tokenizer.Tokenizer, []int32) {
	t.Helper()
	list := []string{tokenizer.SEP, tokenizer.CLS, tokenizer.MASK, tokenizer.PAD, tokenizer.UNK}
	for _, tok := range tokens {
		if !slices.Contains(list, tok) {
			list = append(list, tok)
		}
	}
	v, err := tokenizer.NewVocab(list)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.New(v, tokenizer.Options{Level: tokenizer.LevelChar})
	if err != nil {
		t.Fatal(err)
	}
	var ids []int32
	for _, s := range tokens {
		id, _ := v.ID(s)
		ids = append(ids, id)
	}
	return tok, ids
}

func streamed(tok *tokenizer.Tokenizer, ids []int32) string {
	var b strings.Builder
	s := tok.NewStream()
	for _, id := range ids {
		b.WriteString(s.Push(id))
	}
	b.WriteString(s.Flush())
	return b.String()
}

// stub is the segmenter that stood in for the original's when the pipeline was
// recorded: spaces separate, Latin letters stay together, else the longest
// word of a list of up to eight characters, else one character.
type stub map[string]bool

var _ segment.Segmenter = stub{}

func (words stub) AppendWords(dst []string, text string) []string {
	letter := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
	r := []rune(text)
	for i := 0; i < len(r); {
		n := 1
		switch {
		case r[i] == ' ' || r[i] == '\u3000':
			i++
			continue
		case letter(r[i]):
			for i+n < len(r) && letter(r[i+n]) {
				n++
			}
		default:
			for n = min(8, len(r)-i); n > 1 && !words[string(r[i:i+n])]; n-- {
			}
		}
		dst = append(dst, string(r[i:i+n]))
		i += n
	}
	return dst
}

// goldenPipeline is the folder of the recorded pipeline and its segmenter.
func goldenPipeline(t *testing.T) (dir string, seg stub) {
	t.Helper()
	root := os.Getenv("PROMPTGEN_TOKENIZER_GOLDEN")
	if root == "" {
		root = shared(t, "", "fixtures", "tokenizer_golden")
	}
	b, err := os.ReadFile(filepath.Join(root, "stub_words.txt"))
	if err != nil {
		t.Skipf("the words of the stub segmenter are not here: %v", err)
	}
	seg = stub{}
	for line := range strings.Lines(string(b)) {
		seg[strings.TrimRight(line, "\r\n")] = true
	}
	return filepath.Join(root, "pipeline_seed"), seg
}

// TestTokenizerGoldenBuildVocab: with Compat the vocabulary of the recorded
// corpus is the original's, byte for byte, on any number of threads.
func TestTokenizerGoldenBuildVocab(t *testing.T) {
	dir, seg := goldenPipeline(t)
	b, err := os.ReadFile(filepath.Join(dir, "train.json"))
	if err != nil {
		t.Skip(err)
	}
	var entries []string
	if err := json.Unmarshal(b, &entries); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(dir, "vocab_user.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for threads := 1; threads <= 3; threads++ {
		v, _, err := tokenizer.BuildVocab(t.Context(), documents(entries...), tokenizer.BuildOptions{
			Compat: true, Segmenter: seg, Threads: threads,
		})
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "vocab.txt")
		if err := v.WriteFile(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%d threads: %d bytes, want the original's %d", threads, len(got), len(want))
		}
	}
}

// TestTokenizerGoldenPipeline: the recorded corpus, tokenized with the recorded
// vocabulary, gives the ids of the original's files.
func TestTokenizerGoldenPipeline(t *testing.T) {
	dir, seg := goldenPipeline(t)
	var entries []string
	b, err := os.ReadFile(filepath.Join(dir, "train.json"))
	if err != nil {
		t.Skip(err)
	}
	if err := json.Unmarshal(b, &entries); err != nil {
		t.Fatal(err)
	}
	v, err := tokenizer.ReadVocab(filepath.Join(dir, "vocab_user.txt"))
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.New(v, tokenizer.Options{LowerCase: v.LowerCaseByDefault(), Segmenter: seg, Compat: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ pieces, minLength int }{{5, 20}, {100, 128}} {
		var want, got []int32
		for i := range c.pieces {
			path := filepath.Join(dir, fmt.Sprintf("tokenized_p%d_m%d", c.pieces, c.minLength), fmt.Sprintf("tokenized_train_%d.txt", i))
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, field := range strings.Fields(string(b)) {
				id, err := strconv.Atoi(field)
				if err != nil {
					t.Fatalf("%s: %v", path, err)
				}
				want = append(want, int32(id))
			}
		}
		for _, entry := range entries {
			if utf8.RuneCountInString(entry) > c.minLength {
				got = append(got, v.Special().MASK)
				got = append(tok.AppendEncode(got, entry), v.Special().CLS)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d pieces, minimum %d: %d ids, want the original's %d", c.pieces, c.minLength, len(got), len(want))
		}
	}
}

// documents yields texts one after another.
func documents(texts ...string) func(func(string, error) bool) {
	return func(yield func(string, error) bool) {
		for _, text := range texts {
			if !yield(text, nil) {
				return
			}
		}
	}
}
