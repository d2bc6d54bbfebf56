package data_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"promptgen/data"
)

func ExampleDocuments() {
	dir, err := os.MkdirTemp("", "corpus")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "a.txt")
	if err := os.WriteFile(path, []byte("多喝热水。\n早点睡。\n\n饭后散步。\n"), 0o644); err != nil {
		fmt.Println(err)
		return
	}
	for doc, err := range data.Documents(context.Background(), []string{path}, data.CorpusOptions{}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%q\n", doc.Text)
	}
	// Output:
	// "多喝热水。\n早点睡。"
	// "饭后散步。"
}
