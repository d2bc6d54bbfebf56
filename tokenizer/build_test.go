package tokenizer_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"promptgen/internal/fault"
	"promptgen/tokenizer"
)

// TestOwnCorpusHasNoUnknown: a vocabulary writes every text of the corpus that
// it was made of, however small it was asked to be, and every ASCII text.
func TestOwnCorpusHasNoUnknown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOfN(anyText(), 1, 5).Draw(t, "corpus")
		level := rapid.SampledFrom([]tokenizer.Level{tokenizer.LevelWord, tokenizer.LevelChar}).Draw(t, "level")
		v, _, err := tokenizer.BuildVocab(context.Background(), documents(append(texts, "句")...), tokenizer.BuildOptions{
			Level: level, Size: rapid.IntRange(0, 400).Draw(t, "size"), MinCount: rapid.IntRange(0, 3).Draw(t, "min count"),
		})
		if err != nil {
			t.Fatal(err)
		}
		tok, err := tokenizer.New(v, tokenizer.Options{Level: level})
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range append(texts, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ az AZ 09 zebra 42x") {
			if strings.Contains(text, tokenizer.UNK) {
				continue
			}
			if slices.Contains(tok.Encode(text), v.Special().UNK) {
				t.Fatalf("%q gives %q", text, tokensOf(tok, text))
			}
		}
	})
}

// TestBuildVocabRepeats: the list does not depend on the number of threads.
func TestBuildVocabRepeats(t *testing.T) {
	var texts []string
	for i := range 3000 {
		texts = append(texts, strings.Repeat("高血压患者要注意饮食，每天吃药。", 1+i%7)+"word"+strings.Repeat("x", i%40)+"感冒了"[:3*(1+i%3)])
	}
	var first *tokenizer.Vocab
	for _, threads := range []int{1, 2, 5} {
		v, report, err := tokenizer.BuildVocab(t.Context(), documents(texts...), tokenizer.BuildOptions{Threads: threads})
		if err != nil {
			t.Fatal(err)
		}
		if report.Documents != 3000 || report.Tokens != v.Len() || report.Coverage != 1 {
			t.Errorf("report %+v", report)
		}
		if first == nil {
			first = v
		} else if v.Hash() != first.Hash() {
			t.Errorf("%d threads give another vocabulary", threads)
		}
	}
	want := []string{"[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]"}
	if got := first.Tokens()[:5]; !slices.Equal(got, want) {
		t.Errorf("begins with %q", got)
	}
	if first.LowerCaseByDefault() {
		t.Error("our vocabularies keep case")
	}
}

// TestBuildVocabSize: the size bounds the list; the commonest words are kept.
func TestBuildVocabSize(t *testing.T) {
	text := strings.Repeat("糖尿病 ", 9) + strings.Repeat("高血压 ", 8) + "感冒 发烧 咳嗽"
	v, _, err := tokenizer.BuildVocab(t.Context(), documents(text), tokenizer.BuildOptions{Size: 185})
	if err != nil {
		t.Fatal(err)
	}
	if v.Len() != 185 {
		t.Errorf("%d tokens, want 185", v.Len())
	}
	for _, w := range []string{"糖尿病", "高血压"} {
		if _, ok := v.ID(w); !ok {
			t.Errorf("%s is missing", w)
		}
	}
	v, _, err = tokenizer.BuildVocab(t.Context(), documents(text), tokenizer.BuildOptions{MinCount: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := v.ID("感冒"); ok {
		t.Error("感冒 occurs once and is kept at min-count 2")
	}
}

// TestBuildVocabFaults: what cannot be done is refused with its exit code.
func TestBuildVocabFaults(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	broken := errors.New("broken file")
	for name, c := range map[string]struct {
		ctx     context.Context
		docs    func(func(string, error) bool)
		options tokenizer.BuildOptions
		code    int
	}{
		"no documents": {t.Context(), documents(), tokenizer.BuildOptions{}, fault.CodeData},
		"only spaces":  {t.Context(), documents(" \n ", ""), tokenizer.BuildOptions{}, fault.CodeData},
		"reader fails": {t.Context(), func(yield func(string, error) bool) { yield("", broken) }, tokenizer.BuildOptions{}, fault.CodeFailed},
		"options":      {t.Context(), documents("好"), tokenizer.BuildOptions{Size: -1, MinCount: -1, Level: "x"}, fault.CodeUsage},
		"cancelled":    {cancelled, documents("好"), tokenizer.BuildOptions{}, fault.CodeInterrupted},
	} {
		_, _, err := tokenizer.BuildVocab(c.ctx, c.docs, c.options)
		if fault.Code(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}
