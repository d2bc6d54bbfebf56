package checkpoint_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"promptgen/model"
	"promptgen/model/checkpoint"
	"promptgen/tokenizer"
)

func Example() {
	dir, err := os.MkdirTemp("", "model")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	vocab, err := tokenizer.NewVocab([]string{"[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]", "水"})
	if err != nil {
		fmt.Println(err)
		return
	}
	params := model.NewParams(model.Config{
		VocabSize: vocab.Len(), NPositions: 8, NCtx: 8, NEmbd: 4, NHead: 2, NLayer: 1, LayerNormEpsilon: 1e-5,
	}, false)
	folder := filepath.Join(dir, "mine")
	if err := checkpoint.Save(context.Background(), folder, checkpoint.New(params, vocab, tokenizer.LevelChar, true)); err != nil {
		fmt.Println(err)
		return
	}
	m, err := checkpoint.Load(folder, checkpoint.LoadOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Params.Config.NEmbd, m.Vocab.Len(), m.Meta.Level)
	// Output: 4 6 char
}
