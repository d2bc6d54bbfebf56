package segment_test

import (
	"fmt"
	"strings"

	"promptgen/tokenizer/segment"
)

func Example() {
	d, err := segment.New(segment.Options{Words: []string{"大语言模型"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(strings.Join(d.AppendWords(nil, "高血压患者每天吃10mg药"), " | "))
	fmt.Println(strings.Join(d.AppendWords(nil, "大语言模型"), " | "))
	// Output:
	// 高血压 | 患者 | 每天 | 吃 | 10 | mg | 药
	// 大语言模型
}
