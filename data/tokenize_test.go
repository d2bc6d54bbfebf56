package data

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"promptgen/internal/fault"
	"promptgen/tokenizer"
)

// smallCorpus is n documents of one to three lines, some with unknown characters.
func smallCorpus(n int) string {
	r := rand.New(rand.NewPCG(1, 2))
	letters := []rune("高血压患者能吃党参吗头痛怎么办的一二三四五六七八九十，。？abc123未")
	var b strings.Builder
	for range n {
		for range 1 + r.IntN(3) {
			for range 1 + r.IntN(30) {
				b.WriteRune(letters[r.IntN(len(letters))])
			}
			b.WriteByte('\n')
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func readAll(t testing.TB, tokens *Tokens) []int32 {
	t.Helper()
	ids := make([]int32, tokens.Len())
	if err := tokens.ReadAt(ids, 0); err != nil {
		t.Fatal(err)
	}
	return ids
}

// Documents are framed, line feeds become [SEP], and nothing is dropped; the
// counts are those of the stream.
func TestTokenizeFrames(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	tok := charTokenizer(t)
	o := TokenizeOptions{Corpus: []string{write(t, "f.txt", "头痛\n未办\n\n一")}, Out: out, Tokenizer: tok}
	r, err := Tokenize(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenSet(out)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var tokens []string
	for _, id := range readAll(t, s.Train) {
		tokens = append(tokens, tok.Vocab().Token(id))
	}
	if got, want := strings.Join(tokens, " "), "[MASK] 头 痛 [SEP] [UNK] 办 [CLS] [MASK] 一 [CLS]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	want := Stats{Docs: 2, Tokens: 10, Unk: 1, Chars: 6}
	if s.Train.Stats() != want || r.Train != want || s.Val.Len() != 0 {
		t.Errorf("counted %+v and %+v, want %+v", s.Train.Stats(), r.Train, want)
	}
	if len(r.Unknown) != 1 || r.Unknown[0] != (UnkSource{"未", 1}) {
		t.Errorf("[UNK] from %v", r.Unknown)
	}
	again, err := setTokenizer(s)
	if err != nil || again.Vocab().Hash() != s.VocabHash() || again.Options().Level != tokenizer.LevelChar || !again.Options().LowerCase {
		t.Errorf("another tokenizer came back (%v)", err)
	}
}

// The same bytes come out whatever the number of cores; every document is in one
// of the streams, the same texts in the same one.
func TestTokenizeIsDeterministic(t *testing.T) {
	corpus := write(t, "f.txt", strings.Repeat(smallCorpus(4000), 2))
	parent := t.TempDir()
	var first string
	for _, threads := range []int{1, 2, 5} {
		out := filepath.Join(parent, strconv.Itoa(threads))
		o := TokenizeOptions{Corpus: []string{corpus}, Out: out, Tokenizer: charTokenizer(t), ValFraction: 0.1, Threads: threads, shardTokens: 50000}
		r, err := Tokenize(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if all := r.All(); all.Docs != 8000 || r.Val.Docs < 600 || r.Val.Docs > 1000 || r.Val.Docs%2 != 0 {
			t.Errorf("%d documents, %d held out", all.Docs, r.Val.Docs)
		}
		if first == "" {
			first = out
		}
		sameFolders(t, out, first)
	}
}

func TestTokenizeRefuses(t *testing.T) {
	parent := t.TempDir()
	out := filepath.Join(parent, "out")
	tok := charTokenizer(t)
	good := write(t, "f.txt", "头痛怎么办\n\n未\n")
	for _, c := range []struct {
		name string
		o    TokenizeOptions
		code int
		say  string
	}{
		{"an empty corpus", TokenizeOptions{Corpus: []string{write(t, "e.txt", "")}}, fault.CodeData, "empty"},
		{"zeros", TokenizeOptions{Corpus: []string{write(t, "z.txt", string(make([]byte, 100)))}}, fault.CodeData, "empty"},
		{"only short documents", TokenizeOptions{Corpus: []string{good}, MinLength: 9}, fault.CodeData, "--min-length"},
		{"too much [UNK]", TokenizeOptions{Corpus: []string{good}, MaxUnk: 0.01}, fault.CodeData, `"未"`},
		{"no file", TokenizeOptions{Corpus: []string{good, "none.txt"}}, fault.CodeUsage, "none.txt"},
		{"several faults", TokenizeOptions{Corpus: []string{good}, MinLength: -1, ValFraction: 1}, fault.CodeUsage, "min-length is -1"},
		{"several faults, the other", TokenizeOptions{Corpus: []string{good}, MinLength: -1, ValFraction: 1}, fault.CodeUsage, "val-fraction"},
		{"held out and book", TokenizeOptions{Corpus: []string{good}, Compat: true, ValFraction: 0.1}, fault.CodeUsage, "val-fraction"},
		{"the book from a pipe", TokenizeOptions{Corpus: []string{Stdin}, Compat: true}, fault.CodeUsage, "twice"},
		{"broken JSON", TokenizeOptions{Corpus: []string{good, write(t, "f.json", `["a",`)}}, fault.CodeCorrupt, "f.json"},
		{"too many files", TokenizeOptions{Corpus: []string{good}, Compat: true, NumPieces: maxPieces + 1}, fault.CodeUsage, "num-pieces is 100001"},
		{"the book, only short documents", TokenizeOptions{Corpus: []string{good}, Compat: true, MinLength: 9}, fault.CodeData, "--min-length"},
		{"the book, empty", TokenizeOptions{Corpus: []string{write(t, "e.txt", "")}, Compat: true}, fault.CodeData, "empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Out, c.o.Tokenizer = out, tok
			_, err := Tokenize(t.Context(), c.o)
			code(t, err, c.code, c.say)
			if len(readFolder(t, parent)) > 0 {
				t.Error("something was left behind")
			}
		})
	}
	for _, dir := range []string{good, filepath.Dir(good)} { // a file, a folder of other things
		_, err := Tokenize(t.Context(), TokenizeOptions{Corpus: []string{good}, Out: dir, Tokenizer: tok})
		code(t, err, fault.CodeUsage, "--out")
	}
	if b, err := os.ReadFile(good); err != nil || len(b) == 0 {
		t.Error("what lay in the way of the set is gone")
	}
}

// The book's files are begun when there is something to write to them, and no
// more of them once the run is cancelled.
func TestPiecesBegin(t *testing.T) {
	p := &pieces{dir: t.TempDir(), number: 50, entries: 100}
	for range 60 {
		if err := p.write(t.Context(), nil); err != nil || p.open != 0 {
			t.Fatalf("%d files for entries that were dropped (%v)", p.open, err)
		}
	}
	if err := p.write(t.Context(), []int32{1}); err != nil || p.open != 31 {
		t.Fatalf("%d files (%v)", p.open, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.openUpTo(ctx, p.number-1); !errors.Is(err, context.Canceled) || p.open != 31 {
		t.Errorf("went on to %d files (%v)", p.open, err)
	}
	if err := p.flush(); err != nil {
		t.Error(err)
	}
}

// A run cancelled anywhere is continued by the next to the same bytes, and the
// finished part is not tokenized again.
func TestCancelledRunContinues(t *testing.T) {
	corpus := write(t, "f.txt", smallCorpus(10000))
	parent := t.TempDir()
	options := func(out string) TokenizeOptions {
		return TokenizeOptions{Corpus: []string{corpus}, Out: filepath.Join(parent, out), Tokenizer: charTokenizer(t), ValFraction: 0.05, shardTokens: 40000}
	}
	want, err := Tokenize(t.Context(), options("whole"))
	if err != nil {
		t.Fatal(err)
	}
	steps := int64(10)
	if testing.Short() {
		steps = 3
	}
	continued := false
	for i := range steps {
		ctx, cancel := context.WithCancel(t.Context())
		o := options("cut")
		o.Progress = func(done, total int64) {
			if done >= total*(i+1)/steps {
				cancel()
			}
		}
		if _, err := Tokenize(ctx, o); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		cancel()
		o = options("cut")
		o.Notice = func(s string) { continued = continued || strings.Contains(s, "going on") }
		got, err := Tokenize(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		got.Out, got.Elapsed = want.Out, want.Elapsed
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the report differs: %v, want %v", got, want)
		}
		sameFolders(t, filepath.Join(parent, "cut"), filepath.Join(parent, "whole"))
	}
	if !continued {
		t.Error("no run went on where another had stopped")
	}
	if entries, _ := os.ReadDir(parent); len(entries) != 2 {
		t.Errorf("something was left behind: %v", entries)
	}
}

// A run killed at random moments, again and again, leaves what the next one
// completes to the same bytes. PROMPTGEN_TEST_KILLS sets how often (the test's
// own few are for every day).
func TestKilledRunContinues(t *testing.T) {
	if dir := os.Getenv("DATA_TOKENIZE_AND_DIE"); dir != "" {
		o := TokenizeOptions{Corpus: []string{filepath.Join(dir, "f.txt")}, Out: filepath.Join(dir, "cut"), Tokenizer: charTokenizer(t), ValFraction: 0.05, shardTokens: 20000}
		if _, err := Tokenize(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		return
	}
	kills := 5
	if n, err := strconv.Atoi(os.Getenv("PROMPTGEN_TEST_KILLS")); err == nil {
		kills = n
	} else if testing.Short() {
		kills = 2
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f.txt"), []byte(smallCorpus(10000)), 0o644); err != nil {
		t.Fatal(err)
	}
	whole := TokenizeOptions{Corpus: []string{filepath.Join(dir, "f.txt")}, Out: filepath.Join(dir, "whole"), Tokenizer: charTokenizer(t), ValFraction: 0.05, shardTokens: 20000}
	if _, err := Tokenize(t.Context(), whole); err != nil {
		t.Fatal(err)
	}
	child := func(limit time.Duration) (finished bool) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledRunContinues$")
		cmd.Env = append(os.Environ(), "DATA_TOKENIZE_AND_DIE="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(limit, func() { cmd.Process.Kill() })
		defer timer.Stop()
		err := cmd.Wait()
		if err != nil && cmd.ProcessState.Exited() {
			t.Fatalf("a run failed of itself: %v", err)
		}
		return err == nil
	}
	begin := time.Now()
	if !child(time.Minute) {
		t.Fatal("a run of a minute")
	}
	took := time.Since(begin)
	os.RemoveAll(filepath.Join(dir, "cut"))
	killed := 0
	for range kills {
		if !child(time.Duration(rand.Int64N(int64(took)))) {
			killed++
		}
		if rand.IntN(3) > 0 { // sometimes it is killed twice or more before it can end
			continue
		}
		if !child(time.Minute) {
			t.Fatal("the next run did not end")
		}
		sameFolders(t, filepath.Join(dir, "cut"), filepath.Join(dir, "whole"))
		os.RemoveAll(filepath.Join(dir, "cut"))
	}
	if !child(time.Minute) {
		t.Fatal("the last run did not end")
	}
	sameFolders(t, filepath.Join(dir, "cut"), filepath.Join(dir, "whole"))
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("something was left behind: %v (%v)", entries, err)
	}
	t.Logf("%d of %d runs were killed before they ended", killed, kills)
}

// Another corpus or other options never go on with what a run left.
func TestForeignWorkIsDiscarded(t *testing.T) {
	parent := t.TempDir()
	corpus := write(t, "f.txt", smallCorpus(20000))
	o := TokenizeOptions{Corpus: []string{corpus}, Out: filepath.Join(parent, "out"), Tokenizer: charTokenizer(t), shardTokens: 20000}
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = func(done, total int64) {
		if done > total*3/4 {
			cancel()
		}
	}
	if _, err := Tokenize(ctx, o); err == nil {
		t.Skip("the run was quicker than its end")
	}
	defer cancel()
	os.WriteFile(corpus, []byte(smallCorpus(10)), 0o644)
	o.Progress = nil
	o.Notice = func(s string) { t.Errorf("noticed %q", s) }
	r, err := Tokenize(t.Context(), o)
	if err != nil || r.All().Docs != 10 {
		t.Errorf("%+v (%v)", r, err)
	}
	if err := use(o.Out); err != nil {
		t.Error(err)
	}
}

// The report counts what there is; only the commonest sources are kept.
func TestReport(t *testing.T) {
	var tl tally
	for i := range int64(45000) { // more sources than are kept
		tl.add(&batch{unknown: map[string]int64{strconv.FormatInt(i, 10): i/1000 + 1}})
	}
	if len(tl.Unknown) > 2*keptUnknown || tl.commonest()[0].Count != 45 {
		t.Errorf("%d sources kept, the first %v", len(tl.Unknown), tl.commonest()[0])
	}
	tl.add(&batch{docs: make([]Document, 2), val: make([]bool, 2), stats: []Stats{{1, 3, 1, 1}, {1, 9000, 0, 1}}})
	r := tl.report()
	if len(r.Unknown) != 20 || len(r.Lengths) != 13 || r.Windows != 9 || r.Steps != 2 {
		t.Errorf("%+v", r)
	}
	if slices.ContainsFunc(r.Lengths, func(l LengthBin) bool { return l.From > l.To }) {
		t.Error("a bin of nothing")
	}
}
