package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"promptgen/cmd/promptgen/ui"
	"promptgen/data"
	"promptgen/internal/fault"
	"promptgen/tokenizer"
)

func (a *app) tokenizeCommand() *cli.Command {
	return &cli.Command{
		Name:  "tokenize",
		Usage: "turn a corpus into tokens to train on",
		Flags: append(corpusFlags(),
			&cli.StringFlag{Name: "vocab", Aliases: []string{"vocab_file", "vocab_filename"}, Value: defaultVocab, Usage: "vocabulary `FILE`"},
			&cli.StringFlag{Name: "out", Aliases: []string{"tokenized_data_path"}, Value: defaultData, Usage: "`FOLDER` to write"},
			&cli.StringFlag{Name: "level", Value: string(tokenizer.LevelWord), Usage: "what a token is: `word`, char or bert"},
			&cli.StringFlag{Name: "user-dict", Usage: "`FILE` with words of your own, one a line, for the segmenter"},
			&cli.IntFlag{Name: "min-length", Aliases: []string{"min_length"}, Usage: "drop documents of `N` characters or fewer"},
			&cli.Float64Flag{Name: "val-fraction", Usage: "share of the documents held out for validation"},
			&cli.Float64Flag{Name: "max-unk", Usage: "refuse a corpus with a larger share of [UNK] (0: any)"},
			&cli.StringFlag{Name: "compat", Usage: "`book`: the original's tokens in its tokenized_train_N.txt"},
			&cli.IntFlag{Name: "num-pieces", Aliases: []string{"num_pieces"}, Value: 100, Usage: "with --compat book: files to write"},
			&cli.StringSliceFlag{Name: "text", Usage: "show the tokens of `TEXT` instead of writing a corpus's (repeat for more)"},
		),
		Action: func(c *cli.Context) error {
			if texts := c.StringSlice("text"); len(texts) > 0 {
				return a.tokenizeTexts(c, texts)
			}
			o, err := a.tokenizeOptions(c)
			if err != nil {
				return err
			}
			bar := a.console.Bar("tokenize", "bytes", 0)
			defer bar.Done()
			o.Progress = progress(bar)
			report, err := data.Tokenize(c.Context, o)
			bar.Done()
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return a.console.JSON(report)
			}
			return a.console.Facts(tokenizeFacts(report)...)
		},
	}
}

// tokenizeOptions reads the flags and the vocabulary.
func (a *app) tokenizeOptions(c *cli.Context) (o data.TokenizeOptions, err error) {
	var faults fault.List
	co := a.corpusOptions(c)
	o = data.TokenizeOptions{
		Corpus: corpusPatterns(&faults, c), Out: c.String("out"), UserDict: c.String("user-dict"),
		DocPerLine: co.DocPerLine, TextField: co.TextField, Notice: co.Notice, Stdin: a.in,
		MinLength: c.Int("min-length"), ValFraction: c.Float64("val-fraction"), MaxUnk: c.Float64("max-unk"),
		Threads: c.Int("threads"), Compat: cutting(&faults, c), NumPieces: c.Int("num-pieces"),
	}
	if o.Compat && !c.IsSet("min-length") {
		o.MinLength = bookMinLength
	}
	positive(&faults, c, "num-pieces")
	if c.IsSet("num-pieces") && !o.Compat {
		faults.Addf("--num-pieces belongs to --compat book: token shards need no pieces")
	}
	if err := faults.Err("tokenize"); err != nil {
		return o, err
	}
	o.Tokenizer, err = a.corpusTokenizer(c)
	return o, err
}

// cutting checks the flags that say how text is cut; book is the original's way.
func cutting(faults *fault.List, c *cli.Context) (book bool) {
	choice(faults, c, "level", "word", "char", "bert")
	book = compat(faults, c)
	if book && (c.String("level") != string(tokenizer.LevelWord) || c.String("user-dict") != "") {
		faults.Addf("--compat book cuts as the original does: it takes neither another --level nor a --user-dict")
	}
	return book
}

// tokenizeTexts shows how strings are cut.
func (a *app) tokenizeTexts(c *cli.Context, texts []string) error {
	var faults fault.List
	cutting(&faults, c)
	for _, flag := range []string{"corpus", "doc-per-line", "text-field", "out", "min-length", "val-fraction", "max-unk", "num-pieces"} {
		if a.stray(c, flag) {
			faults.Addf("--%s is for a corpus: it cannot stand beside --text", flag)
		}
	}
	if err := faults.Err("tokenize"); err != nil {
		return err
	}
	t, err := a.corpusTokenizer(c)
	if err != nil {
		return err
	}
	return a.showTokens(t, texts, c.Bool("json"))
}

// bookMinLength is the original's --min_length: it drops entries of so many
// characters or fewer.
const bookMinLength = 128

// corpusTokenizer is the tokenizer that the flags ask for.
func (a *app) corpusTokenizer(c *cli.Context) (*tokenizer.Tokenizer, error) {
	book := c.String("compat") == "book"
	v, err := a.readVocab(c.String("vocab"))
	if err != nil {
		return nil, err
	}
	return tokenizer.New(v, tokenizer.Options{
		Level: tokenizer.Level(c.String("level")), LowerCase: book || v.LowerCaseByDefault(),
		UserDict: c.String("user-dict"), Compat: book,
	})
}

// readVocab reads a vocabulary and logs what is odd about it.
func (a *app) readVocab(path string) (*tokenizer.Vocab, error) {
	v, err := tokenizer.ReadVocab(path)
	if err != nil {
		return nil, err
	}
	for _, n := range v.Notes() {
		a.console.Warn(path + ": " + n)
	}
	return v, nil
}

// tokenizeFacts are the report for people.
func tokenizeFacts(r *data.Report) []ui.Fact {
	facts := []ui.Fact{
		{Name: "tokens in", Value: r.Out},
		{Name: "documents", Value: split(r.Train.Docs, r.Val.Docs)},
		{Name: "tokens", Value: split(r.Train.Tokens, r.Val.Tokens)},
		{Name: "tokens a character", Value: fmt.Sprintf("%.3f", r.TokensPerChr)},
		{Name: "[UNK] share", Value: fmt.Sprintf("%.3g %%", 100*r.UnkShare)},
	}
	if r.Dropped > 0 {
		facts = append(facts, ui.Fact{Name: "dropped as too short", Value: r.Dropped})
	}
	if len(r.Unknown) > 0 {
		var words []string
		for _, u := range r.Unknown {
			words = append(words, fmt.Sprintf("%s×%d", u.Text, u.Count))
		}
		facts = append(facts, ui.Fact{Name: "[UNK] stands for", Value: strings.Join(words, " ")})
	}
	facts = append(facts, lengthFacts(r.Lengths)...)
	return append(facts,
		ui.Fact{Name: "steps an epoch", Value: fmt.Sprintf("%d (n_ctx %d, batch %d)", r.Steps, r.NCtx, r.BatchSize)},
		ui.Fact{Name: "time", Value: time.Duration(r.Elapsed).Round(time.Millisecond)})
}

func split(train, val int64) string {
	if val == 0 {
		return fmt.Sprint(train)
	}
	return fmt.Sprintf("%d to train on, %d held out", train, val)
}

// lengthFacts draw the histogram of the documents' lengths.
func lengthFacts(bins []data.LengthBin) (facts []ui.Fact) {
	var most int64 = 1
	for _, b := range bins {
		most = max(most, b.Docs)
	}
	const width = 30
	for _, b := range bins {
		facts = append(facts, ui.Fact{
			Name:  fmt.Sprintf("  of %d to %d tokens", b.From, b.To),
			Value: strings.TrimSpace(strings.Repeat("▇", int(b.Docs*width/most)) + fmt.Sprintf(" %d", b.Docs)),
		})
	}
	return facts
}
