package data

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"promptgen/internal/fault"
	"promptgen/tokenizer"
)

// makeShard writes ids into a shard and opens it.
func makeShard(t testing.TB, dir string, ids []int32, tokenBytes int) (*shard, ShardInfo) {
	t.Helper()
	path := filepath.Join(dir, "train-00000.bin")
	w, err := createShard(path, tokenBytes)
	if err != nil {
		t.Fatal(err)
	}
	for len(ids) > 0 { // in pieces, as documents come
		n := min(len(ids), 50000)
		if err := w.write(ids[:n]); err != nil {
			t.Fatal(err)
		}
		ids = ids[n:]
	}
	info, err := w.finish()
	if err != nil {
		t.Fatal(err)
	}
	s, err := openShard(path, info)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close() })
	return s, info
}

// What is written to shards is read back, over their ends as well, from any place.
func TestTokensReadBack(t *testing.T) {
	for _, tokenBytes := range []int{2, 4} {
		var ids []int32
		var parts []part
		for i, n := range []int{blockTokens + 17, 1, 2 * blockTokens} {
			part := make([]int32, n)
			for j := range part {
				part[j] = int32((j*7919 + i) % 60000)
			}
			s, _ := makeShard(t, t.TempDir(), part, tokenBytes)
			parts, ids = append(parts, s), append(ids, part...)
		}
		tokens := newTokens(parts, Stats{}, 60000)
		if tokens.Len() != int64(len(ids)) {
			t.Fatalf("%d tokens, want %d", tokens.Len(), len(ids))
		}
		rapid.Check(t, func(t *rapid.T) {
			n := rapid.OneOf(rapid.IntRange(0, 2000), rapid.IntRange(0, len(ids))).Draw(t, "n")
			off := rapid.OneOf(rapid.IntRange(0, len(ids)-n), rapid.Just(min(len(ids)-n, blockTokens))).Draw(t, "off")
			dst := make([]int32, n)
			if err := tokens.ReadAt(dst, int64(off)); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(dst, ids[off:off+n]) {
				t.Errorf("tokens %d to %d came back otherwise", off, off+n)
			}
		})
		for _, off := range []int64{-1, tokens.Len()} {
			if err := tokens.ReadAt(make([]int32, 1), off); err == nil {
				t.Errorf("a token at %d", off)
			}
		}
		small := newTokens(parts, Stats{}, 100)
		code(t, small.ReadAt(make([]int32, 100), 0), fault.CodeCorrupt, "train-00000.bin", "vocabulary has 100")
	}
}

// makeSet tokenizes a small corpus into a set of several shards.
func makeSet(t testing.TB) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "语料 tokenized")
	o := TokenizeOptions{
		Corpus: []string{write(t, "f.txt", smallCorpus(3000))}, Out: out,
		Tokenizer: charTokenizer(t), ValFraction: 0.2, shardTokens: 1000,
	}
	if _, err := Tokenize(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return out
}

// use opens a set and reads all of it.
func use(dir string) error {
	s, err := OpenSet(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	for _, t := range []*Tokens{s.Train, s.Val} {
		if err := t.ReadAt(make([]int32, t.Len()), 0); err != nil {
			return errors.Join(err, alsoFound(dir))
		}
	}
	_, err = setTokenizer(s)
	return err
}

// alsoFound is an error unless Verify finds the fault that reading found.
func alsoFound(dir string) error {
	s, err := OpenSet(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Verify(context.Background()); err == nil {
		return errors.New("Verify found nothing")
	}
	return nil
}

// Any byte changed, any file cut, grown or gone is found out at the latest when
// the bytes are used, with exit code 5 and the file's name.
func TestChangedSetIsFoundOut(t *testing.T) {
	dir := makeSet(t)
	if err := use(dir); err != nil {
		t.Fatal(err)
	}
	if s, err := OpenSet(dir); err != nil || s.Verify(t.Context()) != nil || s.Close() != nil {
		t.Fatal("a whole set is not verified")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		path := filepath.Join(dir, rapid.SampledFrom(entries).Draw(t, "file").Name())
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		defer os.WriteFile(path, good, 0o644)
		bad := bytes.Clone(good)
		switch at := rapid.IntRange(0, len(good)-1).Draw(t, "at"); rapid.IntRange(0, 3).Draw(t, "change") {
		case 0, 1:
			bad[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case 2:
			bad = bad[:at]
		case 3:
			bad = append(bad, good[at:]...)
		}
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		err = use(dir)
		if fault.Code(err) != fault.CodeCorrupt || !strings.Contains(err.Error(), filepath.Base(path)) {
			t.Errorf("exit code %d: %v", fault.Code(err), err)
		}
	})
	for _, e := range entries {
		path, away := filepath.Join(dir, e.Name()), filepath.Join(dir, "away")
		if err := os.Rename(path, away); err != nil {
			t.Fatal(err)
		}
		want := fault.CodeCorrupt
		if e.Name() == manifestName {
			want = fault.CodeUsage // no set at all
		}
		code(t, use(dir), want, e.Name())
		os.Rename(away, path)
	}
}

func TestOpenSetRefuses(t *testing.T) {
	_, err := OpenSet(filepath.Join(t.TempDir(), "none"))
	code(t, err, fault.CodeUsage, "no such folder")
	_, err = OpenSet(write(t, "f", ""))
	code(t, err, fault.CodeUsage, "is a file")
	_, err = OpenSet(t.TempDir())
	code(t, err, fault.CodeUsage, "manifest.json")
}

// A set of a billion tokens is opened in well under the 50 ms that training's
// start may cost. The shards are as long as they say and hold holes: opening
// reads their frames alone.
func TestOpeningIsQuick(t *testing.T) {
	if testing.Short() {
		t.Skip("writes the frames of a billion tokens")
	}
	dir := billionTokens(t)
	best := testing.Benchmark(func(b *testing.B) {
		for range b.N {
			s, err := OpenSet(dir)
			if err != nil {
				b.Fatal(err)
			}
			s.Close()
		}
	})
	if ms := best.NsPerOp() / 1e6; ms > 50 {
		t.Errorf("%d ms", ms)
	}
}

// billionTokens makes a set of 2^30 tokens, all 0, in sparse files.
func billionTokens(t testing.TB) string {
	dir := t.TempDir()
	h := shardHeader{tokenBytes: 2, tokens: defaultShardTokens, block: blockTokens}
	zero, err := createShard(filepath.Join(dir, "block"), 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := zero.write(make([]int32, blockTokens)); err != nil {
		t.Fatal(err)
	}
	sums := bytes.Repeat(zero.sums, int(h.blocks()))
	zero.abandon()
	os.Remove(filepath.Join(dir, "block"))
	m := Manifest{Format: manifestFormat, Version: manifestVersion, VocabSize: 1}
	sum := frameSum(h.encode(), sums)
	for i := range 1 << 30 / defaultShardTokens {
		info := ShardInfo{Name: "train-" + string(rune('a'+i/26)) + string(rune('a'+i%26)) + ".bin", Tokens: h.tokens, TokenBytes: 2, Checksum: sum}
		f, err := os.Create(filepath.Join(dir, info.Name))
		if err != nil {
			t.Fatal(err)
		}
		f.Write(h.encode())
		f.WriteAt(append(bytes.Clone(sums), byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)), headerBytes+2*h.tokens)
		f.Close()
		m.Train.Shards = append(m.Train.Shards, info)
		m.Train.Tokens += h.tokens
	}
	b, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, manifestName), b, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func BenchmarkOpenBillionTokens(b *testing.B) {
	dir := billionTokens(b)
	for b.Loop() {
		s, err := OpenSet(dir)
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

// A manifest that is read is one that would be written: byte for byte.
func FuzzManifest(f *testing.F) {
	m := Manifest{Format: manifestFormat, Version: manifestVersion, VocabSize: 5, Files: map[string]string{"vocab.txt": "ab"}}
	m.Train = Split{Stats{Docs: 1, Tokens: 3}, []ShardInfo{{Name: "train-00000.bin", Tokens: 3, TokenBytes: 2}}}
	b, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeManifest(b)
		if err != nil {
			return
		}
		if again, err := m.encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("accepted what would not be written: %q", b)
		}
		json.Unmarshal(b, m)
	})
}

// Any bytes in a shard's place are refused, or read without a fault.
func FuzzShard(f *testing.F) {
	dir := f.TempDir()
	_, info := makeShard(f, dir, []int32{1, 2, 3}, 2)
	b, err := os.ReadFile(filepath.Join(dir, info.Name))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, info.Tokens, info.TokenBytes, info.Checksum)
	f.Add(b[:headerBytes], int64(0), 2, uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, tokens int64, tokenBytes int, sum uint32) {
		path := write(t, "train-00000.bin", string(b))
		s, err := openShard(path, ShardInfo{"train-00000.bin", tokens, tokenBytes, sum})
		if err == nil {
			defer s.close()
			err = newTokens([]part{s}, Stats{}, 1<<16).ReadAt(make([]int32, s.tokens), 0)
		}
		if err != nil {
			code(t, err, fault.CodeCorrupt, path)
		}
	})
}

// The original's files: what is read is what was written, and faults are told.
func TestLegacy(t *testing.T) {
	tok := charTokenizer(t)
	dir := filepath.Join(t.TempDir(), "tokenized")
	o := TokenizeOptions{Corpus: []string{write(t, "f.txt", smallCorpus(50))}, Out: dir, Tokenizer: tok, Compat: true, NumPieces: 12}
	r, err := Tokenize(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	vocab := filepath.Join(t.TempDir(), "vocab.txt")
	if err := tok.Vocab().WriteFile(t.Context(), vocab); err != nil {
		t.Fatal(err)
	}
	s, err := OpenLegacy(dir, vocab)
	if err != nil {
		t.Fatal(err)
	}
	if s.Train.Len() != r.Train.Tokens || s.Train.Docs() != r.Train.Docs || s.Train.Stats().Unk != r.Train.Unk {
		t.Errorf("%+v read, %+v written", s.Train.Stats(), r.Train)
	}
	if v, err := s.Vocab(); err != nil || v.Hash() != tok.Vocab().Hash() {
		t.Errorf("another vocabulary (%v)", err)
	}
	os.WriteFile(bookPiece(dir, 3), []byte("1 2 999999 "), 0o644)
	_, err = OpenLegacy(dir, vocab)
	code(t, err, fault.CodeCorrupt, "tokenized_train_3.txt", "999999")
	os.WriteFile(bookPiece(dir, 3), []byte("1 2 x "), 0o644)
	_, err = OpenLegacy(dir, vocab)
	code(t, err, fault.CodeCorrupt, "tokenized_train_3.txt", `"x"`)
	os.Remove(bookPiece(dir, 3))
	_, err = OpenLegacy(dir, vocab)
	code(t, err, fault.CodeCorrupt, "tokenized_train_3.txt", "missing")
	_, err = OpenLegacy(dir, "")
	code(t, err, fault.CodeUsage, "--vocab")
	_, err = OpenLegacy(t.TempDir(), vocab)
	code(t, err, fault.CodeUsage, "tokenized_train_0.txt")
}

// A vocabulary with capitals does not keep the original from folding: whoever
// writes on from its token files must read text as they were read.
func TestLegacyFolds(t *testing.T) {
	vocab := charTokenizer(t, "A", "B").Vocab()
	if vocab.LowerCaseByDefault() {
		t.Fatal("the vocabulary has no capitals")
	}
	tok, err := tokenizer.New(vocab, tokenizer.Options{LowerCase: true, Compat: true})
	if err != nil {
		t.Fatal(err)
	}
	dir, path := filepath.Join(t.TempDir(), "tokenized"), filepath.Join(t.TempDir(), "vocab.txt")
	if err := vocab.WriteFile(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	o := TokenizeOptions{Corpus: []string{write(t, "f.txt", "A 高 B")}, Out: dir, Tokenizer: tok, Compat: true}
	if _, err := Tokenize(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	s, err := OpenLegacy(dir, path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := setTokenizer(s)
	if err != nil {
		t.Fatal(err)
	}
	written := readAll(t, s.Train)
	if got := again.Encode("A 高 B"); !slices.Equal(got, written[1:len(written)-1]) {
		t.Errorf("reads %v where the files have %v", got, written)
	}
}

func FuzzLegacyIDs(f *testing.F) {
	f.Add([]byte("2 8 234 1 "))
	f.Add([]byte("-1 99999999999999999999 x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ids, err := parseIDs[uint16](bytes.NewReader(b), 1000)
		for _, id := range ids {
			if id >= 1000 && err == nil {
				t.Errorf("id %d", id)
			}
		}
	})
}
