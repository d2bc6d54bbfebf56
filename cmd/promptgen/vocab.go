package main

import (
	"context"
	"fmt"
	"iter"
	"os"

	"github.com/urfave/cli/v2"

	"promptgen/cmd/promptgen/ui"
	"promptgen/data"
	"promptgen/internal/atomicdir"
	"promptgen/internal/fault"
	"promptgen/tokenizer"
)

func (a *app) vocabCommand() *cli.Command {
	return &cli.Command{
		Name:  "vocab",
		Usage: "count the words of a corpus and write a vocabulary",
		Flags: append(corpusFlags(),
			&cli.StringFlag{Name: "out", Aliases: []string{"vocab_file", "vocab_filename"}, Value: defaultVocab, Usage: "vocabulary `FILE` to write"},
			&cli.IntFlag{Name: "size", Aliases: []string{"vocab_size"}, Value: 50000, Usage: "tokens at most, but single characters are never left out (with --compat book: words at most)"},
			&cli.IntFlag{Name: "min-count", Value: 1, Usage: "leave out words that are rarer"},
			&cli.StringFlag{Name: "level", Value: string(tokenizer.LevelWord), Usage: "what a token is: `word` or char"},
			&cli.StringFlag{Name: "user-dict", Usage: "`FILE` with words of your own, one a line, for the segmenter"},
			&cli.StringFlag{Name: "compat", Usage: "`book`: exactly the original's list"},
		),
		Action: func(c *cli.Context) error {
			var faults fault.List
			patterns := corpusPatterns(&faults, c)
			choice(&faults, c, "level", "word", "char")
			positive(&faults, c, "min-count")
			if c.Int("size") < 6 {
				faults.Addf("--size must be at least 6 (five special tokens and a word), not %d", c.Int("size"))
			}
			o := tokenizer.BuildOptions{
				Size: c.Int("size"), MinCount: c.Int("min-count"), Level: tokenizer.Level(c.String("level")),
				UserDict: c.String("user-dict"), Compat: compat(&faults, c), Threads: c.Int("threads"),
			}
			if err := faults.Err("vocab"); err != nil {
				return err
			}
			out := c.String("out")
			paths, err := data.ExpandGlobs(patterns)
			if err != nil {
				return err
			}
			if err := vocabPlace("vocab", "--out", out, append(paths, o.UserDict)); err != nil {
				return err
			}
			v, report, err := a.buildVocab(c.Context, paths, a.corpusOptions(c), o)
			if err != nil {
				return err
			}
			if v.Len() > o.Size && !o.Compat {
				a.console.Log.Info("the vocabulary is larger than --size: the characters of the corpus are all kept", "size", o.Size, "tokens", v.Len())
			}
			if err := v.WriteFile(c.Context, out); err != nil {
				return err
			}
			if c.Bool("json") {
				return a.console.JSON(struct {
					Vocab  string                `json:"vocab"`
					Tokens int                   `json:"tokens"`
					Hash   string                `json:"hash"`
					Report tokenizer.BuildReport `json:"report"`
				}{out, v.Len(), v.Hash(), report})
			}
			return a.console.Facts(
				ui.Fact{Name: "vocabulary", Value: out},
				ui.Fact{Name: "tokens", Value: v.Len()})
		},
	}
}

// vocabPlace refuses, before the corpus is read, a file that the vocabulary must
// not replace: one that it is made from, by whatever name, or one of another kind.
// The flag is what chose it.
func vocabPlace(command, flag, out string, sources []string) error {
	if out == "" {
		return fault.Usage("%s: no file to write to: name it with %s", command, flag)
	}
	if err := atomicdir.MayWriteFile(out); err != nil {
		return fault.With(fault.Code(err), fmt.Errorf("%s: %s %w", command, flag, err))
	}
	to, err := os.Stat(out)
	if err != nil || to.Size() == 0 {
		return nil // nothing there
	}
	if path := sameFile(out, sources); path != "" {
		return fault.Usage("%s: %s is %s, which the vocabulary is made from; choose another %s", command, out, path, flag)
	}
	if _, err := tokenizer.ReadVocab(out); err != nil {
		return fault.Usage("%s: %s is there and no vocabulary, it would be replaced; choose another %s", command, out, flag)
	}
	return nil
}

// sameFile is the one of paths that is the file or folder at path, by whatever name;
// "" if none is.
func sameFile(path string, paths []string) string {
	to, err := os.Stat(path)
	if err != nil {
		return ""
	}
	for _, p := range paths {
		if from, err := os.Stat(p); err == nil && os.SameFile(from, to) {
			return p
		}
	}
	return ""
}

// corpusOptions are how the documents are read; what the readers notice is
// logged.
func (a *app) corpusOptions(c *cli.Context) data.CorpusOptions {
	return data.CorpusOptions{
		DocPerLine: c.Bool("doc-per-line"), TextField: c.String("text-field"), Compat: c.String("compat") == "book",
		Notice: a.console.Warn, Stdin: a.in,
	}
}

// buildVocab counts the files at the paths.
func (a *app) buildVocab(ctx context.Context, paths []string, co data.CorpusOptions, o tokenizer.BuildOptions) (*tokenizer.Vocab, tokenizer.BuildReport, error) {
	bar := a.console.Bar("vocab", "documents", 0)
	defer bar.Done()
	return tokenizer.BuildVocab(ctx, texts(data.Documents(ctx, paths, co), bar), o)
}

// texts hands on the text of every document and shows how many there were.
func texts(docs iter.Seq2[data.Document, error], bar *ui.Bar) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		var n int64
		for d, err := range docs {
			n++
			bar.Set(n, "")
			if !yield(d.Text, err) {
				return
			}
		}
	}
}
