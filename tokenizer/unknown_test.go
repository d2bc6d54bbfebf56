package tokenizer

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Telling what becomes [UNK] changes no id, and tells something exactly where
// there is an [UNK].
func TestAppendEncodeTold(t *testing.T) {
	v, err := NewVocab([]string{"[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]", "高血压", "高", "吃", "a", "##b", "2", "，"})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{Level: LevelWord}, {Level: LevelWord, Compat: true, LowerCase: true}, {Level: LevelChar}, {Level: LevelBERT, LowerCase: true}} {
		tok, err := New(v, o)
		if err != nil {
			t.Fatal(err)
		}
		rapid.Check(t, func(t *rapid.T) {
			text := rapid.StringOf(rapid.SampledFrom([]rune("高血压吃党aBbc12，。 \u0301"))).Draw(t, "text")
			told := 0
			ids := tok.AppendEncodeTold(nil, text, func(s string) {
				if told++; s == "" {
					t.Error("told nothing")
				}
			})
			if !slices.Equal(ids, tok.Encode(text)) {
				t.Errorf("%v, want %v", ids, tok.Encode(text))
			}
			if slices.Contains(ids, v.Special().UNK) != (told > 0) {
				t.Errorf("%v, and %d told", ids, told)
			}
		})
		var told []string
		tok.AppendEncodeTold(nil, "高血压 党 吃", func(s string) { told = append(told, s) })
		if o.Level == LevelWord && !slices.Equal(told, []string{"党"}) {
			t.Errorf("%v: told %q", o, told)
		}
	}
}
