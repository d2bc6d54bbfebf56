package data

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"promptgen/internal/fault"
)

// A shard is checked without its manifest too: every byte of it belongs to one of
// its checksums or to its header.
func TestInspectShard(t *testing.T) {
	ids := make([]int32, blockTokens+5)
	s, want := makeShard(t, t.TempDir(), ids, 2)
	if got, err := InspectShard(t.Context(), s.path); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	good, err := os.ReadFile(s.path)
	if err != nil || !IsShard(good) || IsShard(good[1:]) {
		t.Fatalf("not known by its beginning (%v)", err)
	}
	for _, at := range []int{8, 16, headerBytes, headerBytes + 2*blockTokens, len(good) - 6, len(good) - 1} {
		bad := bytes.Clone(good)
		bad[at] ^= 1
		path := write(t, "train-00000.bin", string(bad))
		_, err := InspectShard(t.Context(), path)
		code(t, err, fault.CodeCorrupt, path)
	}
	_, err = InspectShard(t.Context(), filepath.Join(t.TempDir(), "none"))
	code(t, err, fault.CodeUsage, "none")
}

// The original's token files are known by their exact names, and counted without
// their vocabulary.
func TestLegacyFilesByName(t *testing.T) {
	for name, want := range map[string]bool{
		"tokenized_train_0.txt": true, "d/tokenized_train_17.txt": true,
		"tokenized_train_.txt": false, "tokenized_train_01.txt": false, "tokenized_train_0.bin": false, "0": false, "vocab.txt": false,
	} {
		if IsLegacyFile(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
	if n, err := CountLegacy(write(t, "tokenized_train_0.txt", "2 8 234000 1 ")); err != nil || n != 4 {
		t.Errorf("%d ids, %v", n, err)
	}
	_, err := CountLegacy(write(t, "tokenized_train_1.txt", "2 8 x"))
	code(t, err, fault.CodeCorrupt, "tokenized_train_1.txt", `"x"`)
}

// The folder that the program runs in is not replaced by a set.
func TestWorkingFolderIsKept(t *testing.T) {
	o := TokenizeOptions{Corpus: []string{write(t, "f.txt", "头痛怎么办")}, Out: ".", Tokenizer: charTokenizer(t)}
	t.Chdir(t.TempDir())
	for _, o.Compat = range []bool{false, true} {
		_, err := Tokenize(t.Context(), o)
		code(t, err, fault.CodeUsage, "you are in")
	}
}
