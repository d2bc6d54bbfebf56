package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"promptgen/cmd/promptgen/ui"
	"promptgen/data"
	"promptgen/internal/bytesize"
	"promptgen/internal/fault"
	"promptgen/model/checkpoint"
	"promptgen/tokenizer"
)

func (a *app) inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "say what a file or folder is, and whether it is whole",
		ArgsUsage: "PATH",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "tensors", Usage: "list the tensors too"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return fault.Usage("inspect: name one file or folder, not %d", c.NArg())
			}
			path := c.Args().First()
			entries, _ := os.ReadDir(path) // of no folder, and none if it cannot be read
			if slices.ContainsFunc(entries, isTokenShard) {
				return a.inspectTokens(c, path)
			}
			if known, err := a.inspectOther(c, path); known || err != nil {
				return err
			}
			if strings.HasSuffix(path, ".txt") {
				return a.inspectVocab(c, path)
			}
			return a.inspectModel(c, path)
		},
	}
}

// isTokenShard goes by the names that tokenize gives.
func isTokenShard(e os.DirEntry) bool {
	name := e.Name()
	return strings.HasSuffix(name, ".bin") && (strings.HasPrefix(name, "train-") || strings.HasPrefix(name, "val-"))
}

// inspectModel reports on a model, or on the state of a training; why it is not
// whole is reported and then is the error.
func (a *app) inspectModel(c *cli.Context, path string) error {
	info, err := checkpoint.Inspect(path) // puts a model back that a crash cut off from its place
	if err != nil {
		if _, absent := os.Stat(path); errors.Is(absent, fs.ErrNotExist) {
			return fault.Usage("inspect: %s: no such file or folder; check the path", path)
		}
	}
	if fault.Code(err) == fault.CodeCorrupt {
		return fmt.Errorf("%w; inspect knows %s", err, whatInspectKnows)
	}
	if err != nil {
		return err
	}
	tensors := info.Tensors
	if !c.Bool("tensors") {
		info.Tensors = nil
	}
	if c.Bool("json") {
		err = a.console.JSON(info)
	} else {
		err = a.console.Facts(modelFacts(info, len(tensors))...)
	}
	if err == nil && !c.Bool("json") && len(info.Tensors) > 0 {
		rows := make([][]string, len(info.Tensors))
		for i, t := range info.Tensors {
			rows[i] = []string{t.Name, t.DType, fmt.Sprint(t.Shape)}
		}
		err = a.console.Table([]string{"tensor", "dtype", "shape"}, rows)
	}
	if err == nil {
		err = info.Err()
	}
	return err
}

func modelFacts(in *checkpoint.Info, tensors int) []ui.Fact {
	facts := []ui.Fact{{Name: in.Path, Value: in.Kind}, {Name: "size", Value: bytesize.Format(in.Bytes)}}
	add := func(name string, value any, there bool) {
		if there {
			facts = append(facts, ui.Fact{Name: name, Value: value})
		}
	}
	if cfg := in.Config; cfg != nil {
		add("shape", fmt.Sprintf("n_ctx %d, n_embd %d, n_head %d, n_layer %d", cfg.NCtx, cfg.NEmbd, cfg.NHead, cfg.NLayer), true)
	}
	if l := in.LoRA; l != nil {
		add("adapters", fmt.Sprintf("rank %d, alpha %g, on %s", l.Rank, l.Alpha, strings.Join(l.Targets, ", ")), true)
	}
	if in.Base != nil {
		add("belong to", fmt.Sprintf("%s (weights %.12s)", in.Base.Path, in.Base.Hash), true)
	}
	add("parameters", in.Parameters, in.Parameters > 0)
	add("tensors", tensors, tensors > 0)
	add("numbers", in.DType, in.DType != "")
	add("vocabulary", fmt.Sprintf("%d tokens, hash %.12s", in.VocabSize, in.VocabHash), in.VocabSize > 0)
	add("level", in.Level, in.Level != "")
	add("texts begin with", in.BOS, in.BOS != "")
	add("texts end with", in.EOS, in.EOS != "")
	if t := in.Training; t != nil {
		add("trained", fmt.Sprintf("%d steps, %d epochs, seed %d", t.Steps, t.Epochs, t.Seed), true)
		add("loss", t.FinalLoss, t.FinalLoss > 0)
		add("validation loss", t.ValLoss, t.ValLoss > 0)
	}
	add("step", in.Step, in.Step > 0)
	add("epoch", in.Epoch, in.Epoch > 0)
	add("whole", in.Whole, true)
	for _, n := range in.Notes {
		add("note", n, true)
	}
	return facts
}

// tokensInfo is what inspect tells of token shards.
type tokensInfo struct {
	Path string `json:"path"`
	Kind string `json:"kind"`
	data.Manifest
	Whole bool `json:"whole"`
}

func (a *app) inspectTokens(c *cli.Context, dir string) error {
	set, err := data.OpenSet(dir)
	if err != nil {
		return err
	}
	defer set.Close()
	if err := set.Verify(c.Context); err != nil {
		return err
	}
	m := set.Manifest
	if c.Bool("json") {
		for _, s := range []*data.Split{&m.Train, &m.Val} {
			s.Shards = append([]data.ShardInfo{}, s.Shards...) // none is a list too
		}
		return a.console.JSON(tokensInfo{dir, "token shards", m, true})
	}
	return a.console.Facts(
		ui.Fact{Name: dir, Value: "token shards"},
		ui.Fact{Name: "documents", Value: split(m.Train.Docs, m.Val.Docs)},
		ui.Fact{Name: "tokens", Value: split(m.Train.Tokens, m.Val.Tokens)},
		ui.Fact{Name: "[UNK] share", Value: fmt.Sprintf("%.3g %%", 100*m.Train.UnkShare())},
		ui.Fact{Name: "vocabulary", Value: fmt.Sprintf("%d tokens, hash %.12s", m.VocabSize, m.VocabHash)},
		ui.Fact{Name: "level", Value: m.Level},
		ui.Fact{Name: "whole", Value: true})
}

func (a *app) inspectVocab(c *cli.Context, path string) error {
	v, err := tokenizer.ReadVocab(path)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.console.JSON(struct {
			Path      string   `json:"path"`
			Kind      string   `json:"kind"`
			Tokens    int      `json:"tokens"`
			Hash      string   `json:"hash"`
			LowerCase bool     `json:"lower_case"`
			Notes     []string `json:"notes"`
		}{path, "vocabulary", v.Len(), v.Hash(), v.LowerCaseByDefault(), append([]string{}, v.Notes()...)})
	}
	facts := []ui.Fact{
		{Name: path, Value: "vocabulary"},
		{Name: "tokens", Value: v.Len()},
		{Name: "hash", Value: v.Hash()},
		{Name: "folds to lower case", Value: v.LowerCaseByDefault()},
	}
	for _, n := range v.Notes() {
		facts = append(facts, ui.Fact{Name: "note", Value: n})
	}
	return a.console.Facts(facts...)
}
