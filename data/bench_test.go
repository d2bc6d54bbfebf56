package data

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"promptgen/tokenizer"
)

// repeated is content, over and over, until so many bytes were read.
func repeated(content []byte, size int64) io.Reader {
	var readers []io.Reader
	for n := int64(0); n < size; n += int64(len(content)) {
		readers = append(readers, bytes.NewReader(content))
	}
	return io.MultiReader(readers...)
}

// peakMB is the largest resident size of this process so far, 0 where the system
// does not tell it.
func peakMB() float64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) == 3 && fields[0] == "VmHWM:" {
			kb, _ := strconv.ParseFloat(fields[1], 64)
			return kb / 1024
		}
	}
	return 0
}

// BenchmarkTokenize measures the whole way of a corpus of prose to shards. With
// PROMPTGEN_BENCH_MB it is repeated to that many megabytes and piped.
func BenchmarkTokenize(b *testing.B) {
	corpus := shared(b, "", "corpora", "modern_20m.train.txt")
	content, err := os.ReadFile(corpus)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		vocab string
		level tokenizer.Level
	}{{"gpt2chinese_vocab_seg.txt", tokenizer.LevelWord}, {"bert-base-chinese_vocab.txt", tokenizer.LevelChar}} {
		b.Run(string(c.level), func(b *testing.B) {
			v, err := tokenizer.ReadVocab(findVocab(b, c.vocab))
			if err != nil {
				b.Fatal(err)
			}
			tok, err := tokenizer.New(v, tokenizer.Options{Level: c.level, LowerCase: true})
			if err != nil {
				b.Fatal(err)
			}
			size := int64(len(content))
			if mb, err := strconv.ParseInt(os.Getenv("PROMPTGEN_BENCH_MB"), 10, 64); err == nil {
				size = mb << 20
			}
			b.SetBytes(size)
			for b.Loop() {
				o := TokenizeOptions{Corpus: []string{Stdin}, Stdin: repeated(content, size), Out: filepath.Join(b.TempDir(), "out"), Tokenizer: tok}
				if _, err := Tokenize(b.Context(), o); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(peakMB(), "peak-MB")
		})
	}
}

// BenchmarkDocuments measures the readers alone.
func BenchmarkDocuments(b *testing.B) {
	var text, list strings.Builder
	list.WriteString(`["`)
	for i := range 20000 {
		if i > 0 {
			list.WriteString(`","`)
		}
		text.WriteString(someChinese + "\n")
		list.WriteString(strings.ReplaceAll(someChinese, "\n", `\n`))
	}
	list.WriteString(`"]`)
	for name, content := range map[string]string{"f.txt": text.String(), "f.json": list.String()} {
		b.Run(name, func(b *testing.B) {
			path := write(b, name, content)
			b.SetBytes(int64(len(content)))
			for b.Loop() {
				for _, err := range Documents(b.Context(), []string{path}, CorpusOptions{}) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// findVocab is a ready vocabulary of the shared test data.
func findVocab(t testing.TB, name string) string {
	t.Helper()
	if dir := os.Getenv("PROMPTGEN_VOCABS"); dir != "" {
		return filepath.Join(dir, name)
	}
	return shared(t, "", "vocabs", name)
}
