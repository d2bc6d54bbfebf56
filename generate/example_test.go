package generate_test

import (
	"context"
	"fmt"

	"promptgen/generate"
	"promptgen/internal/kernel"
	"promptgen/model"
	"promptgen/tokenizer"
)

// A model of zeros finds every token equally probable; bans leave only one.
func Example() {
	vocab, err := tokenizer.NewVocab([]string{"[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]", "多", "喝", "水"})
	if err != nil {
		fmt.Println(err)
		return
	}
	tok, err := tokenizer.New(vocab, tokenizer.Options{Level: tokenizer.LevelChar})
	if err != nil {
		fmt.Println(err)
		return
	}
	params := model.NewParams(model.Config{
		VocabSize: vocab.Len(), NPositions: 16, NCtx: 16, NEmbd: 8, NHead: 2, NLayer: 1, LayerNormEpsilon: 1e-5,
	}, false)
	cpu, err := kernel.New(kernel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cpu.Close()
	engine, err := generate.NewEngine(params, tok, cpu, generate.EngineOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer engine.Close()

	answer, err := engine.Generate(context.Background(), generate.Request{
		Prompt: "多喝", Length: 2, MinLength: 2, Greedy: true,
		Ban: []string{"多", "喝", "[SEP]"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(answer.Samples[0].Text, answer.Samples[0].Finish)
	// Output: 多喝水水 length
}
