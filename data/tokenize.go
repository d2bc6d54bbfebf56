package data

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"sync/atomic"
	"time"

	"promptgen/internal/atomicdir"
	"promptgen/internal/fault"
	"promptgen/tokenizer"
)

// TokenizeOptions say what Tokenize reads, how, and what it writes.
type TokenizeOptions struct {
	Corpus    []string             // files, patterns, folders, "-": see ExpandGlobs
	Out       string               // the folder to write
	Tokenizer *tokenizer.Tokenizer // its vocabulary, level and casing go along
	UserDict  string               // path of the user dictionary it was made with, to go along; "" without

	DocPerLine bool   // see CorpusOptions
	TextField  string // see CorpusOptions

	MinLength   int     // documents of that many characters or fewer are dropped; 0 keeps all
	ValFraction float64 // share of the documents held out for validation
	MaxUnk      float64 // refuse a larger share of [UNK] among the tokens (fault.Data); 0: no limit
	Threads     int     // 0: all usable cores. The result does not depend on it

	// Compat writes the original's NumPieces files tokenized_train_N.txt, from
	// entries as it reads them; ValFraction has no place there.
	Compat    bool
	NumPieces int // 0: 100

	Notice   func(string)            // told of what is found on the way; may be nil
	Progress func(done, total int64) // bytes of the corpus read; total 0 if not known; may be nil
	Stdin    io.Reader               // nil: os.Stdin

	shardTokens int64 // tokens of a shard, at least; 0: the default. Tests make it small
}

// defaultShardTokens make shards of some 32 MB: what an interrupted run may have
// to do again.
const defaultShardTokens = 16 << 20

// Validate lists all that is wrong with the options.
func (o *TokenizeOptions) Validate() error {
	var faults fault.List
	if o.Tokenizer == nil {
		faults.Addf("no tokenizer")
	}
	if o.Out == "" {
		faults.Addf("no folder to write to: name it with --out")
	}
	if o.MinLength < 0 {
		faults.Addf("min-length is %d and must not be negative", o.MinLength)
	}
	if !(o.ValFraction >= 0 && o.ValFraction < 1) {
		faults.Addf("val-fraction is %v and must be at least 0 and below 1", o.ValFraction)
	}
	if !(o.MaxUnk >= 0 && o.MaxUnk <= 1) {
		faults.Addf("max-unk is %v and must lie between 0 and 1", o.MaxUnk)
	}
	if o.NumPieces < 0 || o.NumPieces > maxPieces {
		faults.Addf("num-pieces is %d and must be between 1 and %d", o.NumPieces, maxPieces)
	}
	if o.Threads < 0 {
		faults.Addf("threads is %d and must not be negative", o.Threads)
	}
	if o.Compat && o.ValFraction > 0 {
		faults.Addf("val-fraction has no meaning with compat book: the original holds nothing out")
	}
	return faults.Err("tokenize")
}

// Tokenize turns a corpus into the folder Out: token shards with their manifest
// and the tokenizer's files, or with Compat the original's text files. Out
// appears when all is done, and replaces what an earlier run wrote there.
//
// A run that was interrupted, in whatever way, is continued by the next one with
// the same corpus and options, from its last whole shard; the result is the same
// to the byte. Until then what there is lies beside Out, in .NAME.partial.
func Tokenize(ctx context.Context, o TokenizeOptions) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	begin := time.Now()
	paths, err := ExpandGlobs(o.Corpus)
	if err != nil {
		return nil, err
	}
	if err := mayReplace(o.Out); err != nil {
		return nil, err
	}
	var t *tally
	if o.Compat {
		t, err = tokenizeBook(ctx, &o, paths)
	} else {
		t, err = tokenizeShards(ctx, &o, paths)
	}
	if err != nil {
		return nil, err
	}
	r := t.report()
	r.Out, r.Elapsed = o.Out, Duration(time.Since(begin))
	return r, nil
}

// ours are the names that this package gives to files of its folders.
var ours = regexp.MustCompile(`^(manifest\.json|vocab\.txt|user_dict\.txt|(train|val)-\d+\.bin|tokenized_train_\d+\.txt|\.lock)$`)

// mayReplace refuses to put a new set where something else lies, or where the
// program runs.
func mayReplace(dir string) error {
	if err := atomicdir.MayReplace(dir); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil // nothing there
	}
	if !info.IsDir() {
		return fault.Usage("%s: is a file, and the tokens go into a folder; choose another name for --out", dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fault.Usage("%s: cannot be read (%v); choose another folder for --out", dir, err)
	}
	for _, e := range entries {
		if !ours.MatchString(e.Name()) {
			return fault.Usage("%s: holds %s, which is none of tokenize's files; choose another folder for --out, it would be replaced as a whole", dir, e.Name())
		}
	}
	return nil
}

// documents are those of the corpus, with the options' ways of telling.
func (o *TokenizeOptions) documents(ctx context.Context, paths []string, quiet bool) iter.Seq2[Document, error] {
	c := CorpusOptions{DocPerLine: o.DocPerLine, TextField: o.TextField, Compat: o.Compat, Stdin: o.Stdin}
	if !quiet {
		c.Notice = o.Notice
		total := corpusBytes(paths)
		var done atomic.Int64
		c.Progress = func(n int64) {
			if d := done.Add(n); o.Progress != nil {
				o.Progress(d, total)
			}
		}
	}
	return Documents(ctx, paths, c)
}

func (o *TokenizeOptions) encoder() *encoder {
	return &encoder{tok: o.Tokenizer, minLength: o.MinLength, valFraction: o.ValFraction, compat: o.Compat}
}

// judge refuses a corpus that cannot serve (3).
func (o *TokenizeOptions) judge(t *tally) error {
	r := t.report()
	all := r.All()
	switch {
	case all.Docs == 0 && t.Dropped > 0:
		return fault.Data("the corpus has no document of more than %d characters (%d shorter ones were dropped); lower --min-length", o.MinLength, t.Dropped)
	case all.Docs == 0:
		return fault.Data("the corpus is empty: no document in %s", shortList(o.Corpus))
	case t.Train.Docs == 0:
		return fault.Data("all %d documents of the corpus were held out; lower --val-fraction", all.Docs)
	case o.MaxUnk > 0 && r.UnkShare > o.MaxUnk:
		return fault.Data("%.3g %% of the tokens are [UNK] (limit %.3g %%), most often for %s; use a vocabulary made from this corpus", 100*r.UnkShare, 100*o.MaxUnk, sources(r.Unknown))
	}
	return nil
}

func sources(list []UnkSource) string {
	s := ""
	for i, u := range list[:min(5, len(list))] {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprintf("%q", u.Text)
	}
	return s
}

func shortList(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return fmt.Sprintf("%s and %d more", names[0], len(names)-1)
}

// tokenizeShards writes the set, over a journal that survives an interruption.
func tokenizeShards(ctx context.Context, o *TokenizeOptions, paths []string) (*tally, error) {
	w, err := openWork(o, paths)
	if err != nil {
		return nil, err
	}
	defer func() { w.close(err) }()
	err = o.encoder().run(ctx, skip(o.documents(ctx, paths, false), w.journal.Docs), o.Threads, func(b *batch) error { return w.add(ctx, b) })
	if err == nil {
		err = w.endShards(ctx)
	}
	if err == nil {
		err = o.judge(&w.journal.Tally)
	}
	if err == nil {
		err = w.writeSet(ctx)
	}
	if err == nil {
		err = atomicdir.Place(ctx, w.set(), o.Out)
	}
	if err != nil {
		return nil, err
	}
	if o.ValFraction > 0 && w.journal.Tally.Val.Docs == 0 && o.Notice != nil {
		o.Notice("no document was held out for validation: the corpus is small; raise --val-fraction")
	}
	return &w.journal.Tally, nil
}

// skip leaves out the first n documents: those that an earlier run finished.
func skip(docs iter.Seq2[Document, error], n int64) iter.Seq2[Document, error] {
	return func(yield func(Document, error) bool) {
		for d, err := range docs {
			if err == nil && n > 0 {
				n--
				continue
			}
			if !yield(d, err) {
				return
			}
		}
	}
}

// workName is the folder beside out where a set grows.
func workName(out string) string {
	return filepath.Join(filepath.Dir(out), "."+filepath.Base(out)+".partial")
}
