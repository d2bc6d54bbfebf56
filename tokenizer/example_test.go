package tokenizer_test

import (
	"context"
	"fmt"

	"promptgen/tokenizer"
)

func Example() {
	docs := func(yield func(string, error) bool) {
		_ = yield("高血压患者能吃党参吗？", nil) && yield("感冒了，多喝热水。", nil)
	}
	vocab, _, err := tokenizer.BuildVocab(context.Background(), docs, tokenizer.BuildOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	tok, err := tokenizer.New(vocab, tokenizer.Options{LowerCase: vocab.LowerCaseByDefault()})
	if err != nil {
		fmt.Println(err)
		return
	}
	ids := tok.Encode("高血压患者多喝热水")
	var tokens []string
	for _, id := range ids {
		tokens = append(tokens, vocab.Token(id))
	}
	fmt.Printf("%q\n", tokens)
	fmt.Println(tok.Decode(ids))
	// Output:
	// ["高血压" "患者" "多" "喝" "热水"]
	// 高血压患者多喝热水
}

func ExampleTokenizer_Decode() {
	vocab, _ := tokenizer.NewVocab([]string{"[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]", "hello", "world", "play", "##ing", "你好"})
	tok, _ := tokenizer.New(vocab, tokenizer.Options{Level: tokenizer.LevelChar})
	fmt.Println(tok.Decode([]int32{2, 5, 6, 7, 8, 9, 1}))
	// Output: hello world playing你好
}

func ExampleTokenizer_NewStream() {
	vocab, _ := tokenizer.NewVocab([]string{"[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]", "play", "##ing", "games"})
	tok, _ := tokenizer.New(vocab, tokenizer.Options{Level: tokenizer.LevelChar})
	stream := tok.NewStream()
	for _, id := range []int32{5, 6, 7, 7} {
		fmt.Printf("%q ", stream.Push(id))
	}
	fmt.Printf("%q\n", stream.Flush())
	// Output: "play" "ing" "games" " games" ""
}
