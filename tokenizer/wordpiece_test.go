package tokenizer_test

import (
	"strings"
	"testing"

	"promptgen/tokenizer"
)

// A word that WordPiece cannot write is written with the longest tokens of
// either kind; where both kinds are as long, "##" goes first inside the word,
// and never at its start.
func TestWordsThatWordPieceCannotWrite(t *testing.T) {
	v, err := tokenizer.NewVocab(append(strings.Fields(fiveSpecials), "a", "b", "##b", "bc"))
	if err != nil {
		t.Fatal(err)
	}
	encode := func(o tokenizer.Options, text string) string {
		tok, err := tokenizer.New(v, o)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(tokensOf(tok, text), " ")
	}
	for word, want := range map[string]string{
		"ab":  "a ##b", // WordPiece can
		"abx": "a ##b [UNK]",
		"bx":  "b [UNK]",
		"abc": "a bc",
		"xab": "[UNK] a ##b",
	} {
		if got := encode(tokenizer.Options{Level: tokenizer.LevelChar}, word); got != want {
			t.Errorf("%s: %s, want %s", word, got, want)
		}
	}
	if got := encode(tokenizer.Options{Level: tokenizer.LevelBERT}, "abx"); got != "[UNK]" {
		t.Errorf("BERT's abx: %s", got)
	}
	// BERT gives a word of more than a hundred characters up.
	if got := encode(tokenizer.Options{Level: tokenizer.LevelBERT}, "a"+strings.Repeat("b", 99)); !strings.HasPrefix(got, "a ##b") {
		t.Errorf("100 characters: %s", got)
	}
	if got := encode(tokenizer.Options{Level: tokenizer.LevelBERT}, "a"+strings.Repeat("b", 100)); got != "[UNK]" {
		t.Errorf("101 characters: %s", got)
	}
}
