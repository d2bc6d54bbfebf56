package tokenizer_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"promptgen/tokenizer"
)

// smallVocab is one of our own making, cased, over a few sentences.
func smallVocab(t testing.TB, level tokenizer.Level) *tokenizer.Vocab {
	t.Helper()
	v, _, err := tokenizer.BuildVocab(t.Context(), documents(
		"高血压患者要注意饮食，每天吃药10mg，2024年5月。", "Hello world, hello covid19! 感冒了多喝热水。",
	), tokenizer.BuildOptions{Level: level})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func allTokenizers(t testing.TB) []*tokenizer.Tokenizer {
	t.Helper()
	var list []*tokenizer.Tokenizer
	for _, level := range []tokenizer.Level{tokenizer.LevelWord, tokenizer.LevelChar, tokenizer.LevelBERT} {
		v := smallVocab(t, level)
		for _, o := range []tokenizer.Options{
			{Level: level}, {Level: level, LowerCase: true}, {Level: level, LowerCase: true, Compat: true},
		} {
			tok, err := tokenizer.New(v, o)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, tok)
		}
	}
	return list
}

// anyText is random Unicode with what matters here thrown in often.
func anyText() *rapid.Generator[string] {
	part := rapid.OneOf(
		rapid.String(),
		rapid.SampledFrom([]string{
			"[SEP]", "[UNK]", "[MASK]", "[", "##", "#", "高血压", "患者", "要", "Hello", "world", "covid19",
			"10mg", "2024", " ", "\n", "\u3000", "\u200b", "\u0301", "ΟΔΥΣΣΕΥΣ", "İ", "が", "한글", "\ufffd", "\xff", "\u2028", "é", "①",
		}),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
	)
	return rapid.Map(rapid.SliceOfN(part, 0, 12), func(p []string) string { return strings.Join(p, "") })
}

// TestEncodeAnyText: whatever the text, encoding does not panic, ids are those
// of the vocabulary, and streaming gives what decoding at once gives, in whole
// characters.
func TestEncodeAnyText(t *testing.T) {
	tokenizers := allTokenizers(t)
	rapid.Check(t, func(t *rapid.T) {
		text := anyText().Draw(t, "text")
		tok := rapid.SampledFrom(tokenizers).Draw(t, "tokenizer")
		ids := tok.Encode(text)
		for _, id := range ids {
			if id < 0 || int(id) >= tok.Vocab().Len() {
				t.Fatalf("id %d of %d", id, tok.Vocab().Len())
			}
		}
		checkStream(t, tok, ids)
		if again := tok.AppendEncode(ids[:len(ids):len(ids)], text); !slices.Equal(again, slices.Concat(ids, ids)) {
			t.Fatal("AppendEncode does not append what Encode gives")
		}
		told := 0
		if again := tok.AppendEncodeTold(nil, text, func(string) { told++ }); !slices.Equal(again, ids) {
			t.Fatal("AppendEncodeTold gives other ids than Encode")
		}
		if written := strings.Count(text, tokenizer.UNK); (told > 0) != (count(ids, tok.Vocab().Special().UNK) > written) {
			t.Fatalf("%d sources of [UNK] told in %q", told, tokensOf(tok, text))
		}
	})
}

func count(ids []int32, id int32) (n int) {
	for _, other := range ids {
		if other == id {
			n++
		}
	}
	return n
}

func checkStream(t interface {
	Fatalf(string, ...any)
}, tok *tokenizer.Tokenizer, ids []int32) {
	var b strings.Builder
	s := tok.NewStream()
	for _, id := range ids {
		part := s.Push(id)
		if !utf8.ValidString(part) || strings.Contains(part, "##") {
			t.Fatalf("the stream gave %q", part)
		}
		b.WriteString(part)
	}
	b.WriteString(s.Flush())
	if got, want := strings.TrimSpace(b.String()), tok.Decode(ids); strings.TrimSpace(want) != got {
		t.Fatalf("streamed %q, decoded %q", got, want)
	}
}

// TestDecodeAnyIDs: ids that are none read as [UNK], and nothing panics.
func TestDecodeAnyIDs(t *testing.T) {
	tok := allTokenizers(t)[0]
	rapid.Check(t, func(t *rapid.T) {
		checkStream(t, tok, rapid.SliceOf(rapid.Int32Range(-3, int32(tok.Vocab().Len())+3)).Draw(t, "ids"))
	})
}

// TestDecodeIsStable: text that came out of decoding, and holds nothing that
// decoding cannot show ([UNK] and the special tokens leave white space), comes
// out of encoding and decoding with the same characters. White space may go:
// decoding joins "0" and "a", which are then one word of two pieces, and puts a
// space between whole English words alone. So may capitals where text is
// folded: a word of the vocabulary is taken as it is written ("A", "Hello"),
// what decoding joins of two ("AHello") is not.
func TestDecodeIsStable(t *testing.T) {
	tokenizers := allTokenizers(t)
	rapid.Check(t, func(t *rapid.T) {
		text := anyText().Draw(t, "text")
		if strings.Contains(text, "##") {
			return // a piece that is written so is joined to the word before, which makes another word
		}
		tok := rapid.SampledFrom(tokenizers).Draw(t, "tokenizer")
		ids := tok.Encode(text)
		special := tok.Vocab().Special()
		for _, id := range ids {
			if id == special.UNK || id == special.MASK || id == special.SEP || id == special.CLS {
				return
			}
		}
		once := tok.Decode(ids)
		next := tok.Encode(once)
		if slices.Contains(next, special.UNK) {
			return // the original's whole-word [UNK], of words that decoding has joined
		}
		twice := tok.Decode(next)
		was, is := strings.Join(strings.Fields(once), ""), strings.Join(strings.Fields(twice), "")
		if is != was && !(tok.Options().LowerCase && strings.EqualFold(is, was)) {
			t.Fatalf("%q became %q", once, twice)
		}
	})
}

// TestEncodeConcurrently: one tokenizer serves any number of goroutines.
func TestEncodeConcurrently(t *testing.T) {
	for _, tok := range allTokenizers(t) {
		texts := []string{"高血压患者要注意饮食", "Hello world covid19", "每天10mg，[SEP]2024年", strings.Repeat("感冒多喝热水。", 50)}
		var want [][]int32
		for _, text := range texts {
			want = append(want, tok.Encode(text))
		}
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 20 {
					for i, text := range texts {
						if !slices.Equal(tok.Encode(text), want[i]) {
							t.Errorf("%q: other ids than alone", text)
						}
					}
				}
			})
		}
		all.Wait()
	}
}

// TestEncodeLongText: a text far beyond what is cut at once gives the tokens
// that its parts give.
func TestEncodeLongText(t *testing.T) {
	for _, tok := range allTokenizers(t) {
		part := "高血压患者要注意饮食，每天吃药10mg。Hello world "
		n := 200_000 / len(part)
		want := slices.Repeat(tok.Encode(part), n)
		if got := tok.Encode(strings.Repeat(part, n)); !slices.Equal(got, want) {
			t.Errorf("%s: %d ids, want %d", tok.Level(), len(got), len(want))
		}
		tok.Encode(strings.Repeat("a", 1<<20)) // one word of a megabyte ends too
	}
}

// FuzzEncode looks for texts that break what TestEncodeAnyText holds.
func FuzzEncode(f *testing.F) {
	tokenizers := allTokenizers(f)
	f.Add("高血压[SEP]患者 10mg", uint8(0))
	f.Add("\xff[MASK]ΟΔΥΣΣΕΥΣ.β İstanbul", uint8(5))
	f.Fuzz(func(t *testing.T, text string, which uint8) {
		tok := tokenizers[int(which)%len(tokenizers)]
		ids := tok.Encode(text)
		for _, id := range ids {
			if id < 0 || int(id) >= tok.Vocab().Len() {
				t.Fatalf("id %d of %d", id, tok.Vocab().Len())
			}
		}
		checkStream(t, tok, ids)
	})
}
