// Command packdict packs jieba's word list into the form that package segment
// embeds:
//
//	go run ./scripts/packdict -in dict.txt -out tokenizer/segment/dict.bin.zst
//
// dict.txt is jieba's: a word, its frequency and its part of speech a line
// (the last is not used). The output depends on nothing but the input.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"promptgen/internal/atomicdir"
	"promptgen/tokenizer/segment"
)

func main() {
	in := flag.String("in", "dict.txt", "jieba's word list")
	out := flag.String("out", "tokenizer/segment/dict.bin.zst", "the packed list")
	flag.Parse()
	if err := run(*in, *out); err != nil {
		fmt.Fprintln(os.Stderr, "packdict:", err)
		os.Exit(1)
	}
}

func run(in, out string) error {
	list, err := read(in)
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b segment.Entry) int { return strings.Compare(a.Word, b.Word) })
	list = slices.CompactFunc(list, func(a, b segment.Entry) bool { return a.Word == b.Word })
	return atomicdir.WriteFile(context.Background(), out, func(w io.Writer) error { return segment.Pack(w, list) })
}

func read(path string) ([]segment.Entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []segment.Entry
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		field := strings.Fields(lines.Text())
		if len(field) < 2 {
			return nil, fmt.Errorf("%s:%d: want a word and its frequency", path, n)
		}
		freq, err := strconv.ParseUint(field[1], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: frequency %q is no number", path, n, field[1])
		}
		list = append(list, segment.Entry{Word: field[0], Freq: max(freq, 1)})
	}
	return list, lines.Err()
}
