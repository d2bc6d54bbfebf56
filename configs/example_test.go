package configs_test

import (
	"fmt"

	"promptgen/configs"
)

func ExampleLoad() {
	small, err := configs.Load("small")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(small.NLayer, "layers of", small.NEmbd, "with", small.NHead, "heads")
	// Output: 12 layers of 768 with 12 heads
}

// All faults of a config are told at once.
func ExampleParse() {
	_, err := configs.Parse("mine.json", []byte(`{"n_ctx": 64, "n_embd": 100, "n_head": 3, "n_layer": 2, "n_lyer": 2}`))
	fmt.Println(err)
	// Output: config mine.json: unknown key "n_lyer", did you mean "n_layer"?; n_embd (100) must be a multiple of n_head (3)
}
