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
	fmt.Printf("%q\n", tok.Tokenize("高血压患者多喝热水"))
	fmt.Println(tok.Decode(tok.Encode("高血压患者多喝热水")))
	// Output:
	// ["高血压" "患者" "多" "喝" "热水"]
	// 高血压患者多喝热水
}

func ExampleJoinText() {
	fmt.Println(tokenizer.JoinText([]string{"[MASK]", "hello", "world", "play", "##ing", "你好", "[CLS]"}))
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
