package main

import (
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"promptgen/internal/bench"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/train"
)

// The original's places: what a command reads and writes unless told otherwise.
const (
	defaultVocab = "vocab/vocab_user.txt"
	defaultData  = "tokenized"
	defaultOut   = "model"
	defaultModel = "model/final_model"
)

// corpusFlags say where text comes from and how it is cut into documents.
func corpusFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringSliceFlag{Name: "corpus", Aliases: []string{"raw_data_path"}, Category: corpusCategory,
			Usage: "text `FILES` (.txt, .json, .jsonl): a path or a quoted pattern, repeat for more"},
	}, readingFlags()...)
}

const corpusCategory = "Corpus"

// readingFlags say how text files are cut into documents.
func readingFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "doc-per-line", Category: corpusCategory, Usage: "every line of a text file is a document (else blank lines separate them)"},
		&cli.StringFlag{Name: "text-field", Category: corpusCategory, Usage: "the `FIELD` of JSON objects that holds the text (default: text)"},
	}
}

// corpusPatterns checks that a corpus is named.
func corpusPatterns(faults *fault.List, c *cli.Context) []string {
	patterns := c.StringSlice("corpus")
	if len(patterns) == 0 {
		faults.Addf("--corpus is missing: name the text files")
	}
	return patterns
}

func modelFlag() cli.Flag {
	return &cli.StringFlag{Name: "model", Value: defaultModel, Usage: "the model `FOLDER`"}
}

// baseFlag is for folders of adapters.
func baseFlag() cli.Flag {
	return &cli.StringFlag{Name: "base", Usage: "for a model of adapters: the model `FOLDER` that they belong to (default: where it was)"}
}

func deviceFlag() cli.Flag {
	return &cli.StringFlag{Name: "device", Value: "auto", Usage: "where to compute: `auto` or cpu"}
}

func vocabFlag(usage string) *cli.StringFlag {
	return &cli.StringFlag{Name: "vocab", Aliases: []string{"vocab_file", "vocab_filename"}, Usage: usage}
}

// vocabSizeFlag is for commands that need no data.
func vocabSizeFlag() cli.Flag {
	return &cli.IntFlag{Name: "vocab-size", Usage: "tokens in the vocabulary",
		DefaultText: fmt.Sprintf("the config's, else %d", bench.DefaultVocab)}
}

// dropout reads --dropout; nil: it is not given.
func dropout(faults *fault.List, c *cli.Context) *float64 {
	if !c.IsSet("dropout") {
		return nil
	}
	p := c.Float64("dropout")
	if p < 0 || p > train.MaxDropout {
		faults.Addf("--dropout must be between 0 and %g, not %g", train.MaxDropout, p)
	}
	return &p
}

// The number formats that training and inference compute in.
var (
	trainingTypes  = []string{"fp32", "bf16"}
	inferenceTypes = []string{"fp32", "bf16", "q8_0", "q4_0"}
)

func dtypeFlag(category string, types []string) cli.Flag {
	return &cli.StringFlag{Name: "dtype", Category: category, Value: types[0],
		Usage: "number `FORMAT` of the matrix products: " + oneOf(types)}
}

// dtype reads a number format, which must be one of types.
func dtype(faults *fault.List, name string, types []string) kernel.DType {
	d, err := kernel.ParseDType(name)
	if err != nil || !slices.Contains(types, d.String()) {
		faults.Addf("--dtype must be %s, not %q", oneOf(types), name)
	}
	return d
}
