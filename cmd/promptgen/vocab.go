package main

import (
	"context"
	"iter"

	"github.com/urfave/cli/v2"

	"promptgen/cmd/promptgen/ui"
	"promptgen/data"
	"promptgen/internal/fault"
	"promptgen/tokenizer"
)

func (a *app) vocabCommand() *cli.Command {
	return &cli.Command{
		Name:  "vocab",
		Usage: "count the words of a corpus and write a vocabulary",
		Flags: append(corpusFlags(),
			&cli.StringFlag{Name: "out", Aliases: []string{"vocab_file", "vocab_filename"}, Value: defaultVocab, Usage: "vocabulary `FILE` to write"},
			&cli.IntFlag{Name: "size", Aliases: []string{"vocab_size"}, Value: 50000, Usage: "tokens at most"},
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
			v, report, err := a.buildVocab(c.Context, patterns, a.corpusOptions(c), o)
			if err != nil {
				return err
			}
			if err := v.WriteFile(c.String("out")); err != nil {
				return err
			}
			if c.Bool("json") {
				return a.console.JSON(struct {
					Vocab  string                `json:"vocab"`
					Tokens int                   `json:"tokens"`
					Hash   string                `json:"hash"`
					Report tokenizer.BuildReport `json:"report"`
				}{c.String("out"), v.Len(), v.Hash(), report})
			}
			return a.console.Facts(
				ui.Fact{Name: "vocabulary", Value: c.String("out")},
				ui.Fact{Name: "tokens", Value: v.Len()})
		},
	}
}

// corpusOptions are how the documents are read; what the readers notice is
// logged.
func (a *app) corpusOptions(c *cli.Context) data.CorpusOptions {
	return data.CorpusOptions{
		DocPerLine: c.Bool("doc-per-line"), TextField: c.String("text-field"), Compat: c.String("compat") == "book",
		Notice: a.console.Warn, Stdin: a.in,
	}
}

// buildVocab counts the files that the patterns name.
func (a *app) buildVocab(ctx context.Context, patterns []string, co data.CorpusOptions, o tokenizer.BuildOptions) (*tokenizer.Vocab, tokenizer.BuildReport, error) {
	paths, err := data.ExpandGlobs(patterns)
	if err != nil {
		return nil, tokenizer.BuildReport{}, err
	}
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
