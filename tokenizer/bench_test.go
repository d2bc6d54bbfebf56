package tokenizer_test

import (
	"os"
	"strings"
	"testing"

	"promptgen/tokenizer"
)

// corpus is running text that is not part of the project: its first n bytes,
// in documents.
func corpus(t testing.TB, name string, n int) []string {
	t.Helper()
	b, err := os.ReadFile(shared(t, "", "corpora", name))
	if err != nil {
		t.Skip(err)
	}
	docs := strings.Split(string(b[:min(n, len(b))]), "\n\n")
	return docs[:len(docs)-1]
}

// BenchmarkEncode is the speed on one core, in bytes of UTF-8.
func BenchmarkEncode(b *testing.B) {
	docs := corpus(b, "modern_20m.train.txt", 2<<20)
	for _, c := range []struct {
		name, vocab string
		options     tokenizer.Options
	}{
		{"word", "gpt2chinese_vocab_seg.txt", tokenizer.Options{Level: tokenizer.LevelWord, LowerCase: true}},
		{"char", "bert-base-chinese_vocab.txt", tokenizer.Options{Level: tokenizer.LevelChar, LowerCase: true}},
		{"bert", "bert-base-chinese_vocab.txt", tokenizer.Options{Level: tokenizer.LevelBERT, LowerCase: true}},
	} {
		b.Run(c.name, func(b *testing.B) {
			tok, err := tokenizer.New(vocabFile(b, c.vocab), c.options)
			if err != nil {
				b.Fatal(err)
			}
			bytes, tokens, unknown := 0, 0, 0
			var ids []int32
			for _, doc := range docs {
				bytes += len(doc)
				ids = tok.AppendEncode(ids[:0], doc)
				tokens += len(ids)
				for _, id := range ids {
					if id == tok.Vocab().Special().UNK {
						unknown++
					}
				}
			}
			b.SetBytes(int64(bytes))
			for b.Loop() {
				for _, doc := range docs {
					ids = tok.AppendEncode(ids[:0], doc)
				}
			}
			b.ReportMetric(100*float64(unknown)/float64(tokens), "%UNK")
		})
	}
}

// BenchmarkNew is the time until a word-level tokenizer is ready.
func BenchmarkNew(b *testing.B) {
	v := vocabFile(b, "gpt2chinese_vocab_seg.txt")
	for b.Loop() {
		if _, err := tokenizer.New(v, tokenizer.Options{LowerCase: true}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBuildVocab counts on all cores.
func BenchmarkBuildVocab(b *testing.B) {
	docs := corpus(b, "modern_20m.train.txt", 4<<20)
	b.SetBytes(4 << 20)
	for b.Loop() {
		if _, _, err := tokenizer.BuildVocab(b.Context(), documents(docs...), tokenizer.BuildOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
