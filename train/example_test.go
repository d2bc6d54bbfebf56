package train_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"promptgen/data"
	"promptgen/model"
	"promptgen/tokenizer"
	"promptgen/train"
)

// From a text to a model.
func Example() {
	dir, err := os.MkdirTemp("", "train")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	corpus, tokens := filepath.Join(dir, "corpus.txt"), filepath.Join(dir, "tokenized")
	if err := os.WriteFile(corpus, []byte(strings.Repeat("多喝热水，早点睡。\n\n", 20)), 0o644); err != nil {
		fmt.Println(err)
		return
	}
	vocab, err := tokenizer.NewVocab([]string{"[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]", "多", "喝", "热", "水", "，", "早", "点", "睡", "。"})
	if err != nil {
		fmt.Println(err)
		return
	}
	tok, err := tokenizer.New(vocab, tokenizer.Options{Level: tokenizer.LevelChar})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	if _, err := data.Tokenize(ctx, data.TokenizeOptions{Corpus: []string{corpus}, Out: tokens, Tokenizer: tok}); err != nil {
		fmt.Println(err)
		return
	}

	o := train.DefaultOptions()
	o.Config = model.Config{NCtx: 16, NPositions: 16, NEmbd: 16, NHead: 2, NLayer: 1, LayerNormEpsilon: 1e-5, InitializerRange: 0.02}
	o.Data, o.Out, o.Epochs, o.BatchSize, o.LR = tokens, filepath.Join(dir, "model"), 5, 2, 3e-2
	result, err := train.Run(ctx, o, train.Silent{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(result.Steps, "steps; learnt:", result.FinalLoss < 2)
	fmt.Println(filepath.Base(result.Model))
	// Output:
	// 35 steps; learnt: true
	// final_model
}
