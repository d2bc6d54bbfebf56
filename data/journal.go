package data

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"promptgen/internal/atomicdir"
	"promptgen/internal/fault"
)

const journalName = "journal.json"

// journal is what a later run must know to go on where an interrupted one
// stopped. It is written, whole, each time a shard is, and after it.
type journal struct {
	Run      string // identifies corpus and options: another run's journal is of no use
	Docs     int64  // documents read, all of which lie in the shards below
	Pieces   int    // number of the next pair of shards
	Tally    tally
	Train    []ShardInfo
	Val      []ShardInfo
	Checksum string // of the journal with this field empty
}

// work is a set that is growing, in a folder of its own beside the destination.
//
// Shards come in pairs, one of each stream (or one alone, if the other has
// nothing), that end together at the end of a batch: only there can a later run
// go on, and only from what the journal holds.
type work struct {
	o       *TokenizeOptions
	dir     string
	unlock  func()
	journal journal

	// The pair being written, and the documents and counts with it.
	train, val *shardWriter
	tokens     int64
	docs       int64
	tally      tally
	tokenBytes int
}

func (w *work) set() string { return filepath.Join(w.dir, "set") }

// openWork takes the work folder of o.Out for this run alone, and continues the
// journal in it if that is of the same run.
func openWork(o *TokenizeOptions, paths []string) (_ *work, err error) {
	out, err := filepath.Abs(o.Out)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Out, err)
	}
	w := &work{o: o, dir: workName(out), tokenBytes: 2}
	if o.Tokenizer.Vocab().Len() > 1<<16 {
		w.tokenBytes = 4
	}
	if o.shardTokens == 0 {
		o.shardTokens = defaultShardTokens
	}
	if w.unlock, err = atomicdir.Lock(w.dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.unlock()
		}
	}()
	run, err := identify(o, paths)
	if err != nil {
		return nil, err
	}
	if w.journal, err = readJournal(w.dir, run); err == nil {
		err = w.checkShards()
	}
	if err != nil {
		w.journal = journal{Run: run} // none, another run's, or damaged: begin anew
	}
	if w.journal.Docs > 0 && o.Notice != nil {
		o.Notice(fmt.Sprintf("%s: going on after the %d documents that an interrupted run finished", o.Out, w.journal.Docs))
	}
	w.tally = w.journal.Tally.clone()
	return w, w.clean()
}

// identify gives the same name to two runs that would write the same bytes.
// Files are known by place, size and time; standard input is never the same.
func identify(o *TokenizeOptions, paths []string) (string, error) {
	topts := o.Tokenizer.Options()
	id := []any{manifestVersion, o.Tokenizer.Vocab().Hash(), topts.Level, topts.LowerCase, topts.Compat,
		o.DocPerLine, o.TextField, o.MinLength, o.ValFraction, o.shardTokens, batchBytes}
	if o.UserDict != "" {
		sum, err := fileHash(o.UserDict)
		if err != nil {
			return "", unreadable(o.UserDict, err)
		}
		id = append(id, sum)
	}
	for _, p := range paths {
		info, err := os.Stat(p)
		if p == Stdin || err != nil || !info.Mode().IsRegular() {
			id = append(id, rand.Text())
			continue
		}
		abs, err := filepath.Abs(p)
		if err != nil {
			return "", fmt.Errorf("%s: %w", p, err)
		}
		id = append(id, abs, info.Size(), info.ModTime().UnixNano())
	}
	return checksum(id)
}

// checksum is the SHA-256 of a value's JSON, in hexadecimal.
func checksum(v any) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

func readJournal(dir, run string) (journal, error) {
	var j journal
	b, err := os.ReadFile(filepath.Join(dir, journalName))
	if err != nil {
		return j, err
	}
	if err := json.Unmarshal(b, &j); err != nil {
		return j, err
	}
	bare := j
	bare.Checksum = ""
	sum, err := checksum(bare)
	if err != nil {
		return j, err
	}
	if sum != j.Checksum || j.Run != run {
		return j, errors.New("another run's journal")
	}
	return j, nil
}

// write makes the journal last.
func (j journal) write(ctx context.Context, dir string) (err error) {
	j.Checksum = ""
	if j.Checksum, err = checksum(j); err != nil {
		return err
	}
	return atomicdir.WriteFile(ctx, filepath.Join(dir, journalName), func(w io.Writer) error {
		return json.NewEncoder(w).Encode(j)
	})
}

// checkShards opens every shard of the journal.
func (w *work) checkShards() error {
	for _, info := range slices.Concat(w.journal.Train, w.journal.Val) {
		s, err := openShard(filepath.Join(w.set(), info.Name), info)
		if err != nil {
			return err
		}
		s.close()
	}
	return nil
}

// clean removes what the journal does not know.
func (w *work) clean() error {
	if err := os.MkdirAll(w.set(), 0o755); err != nil {
		return fmt.Errorf("%s: %w", w.set(), err)
	}
	known := map[string]bool{}
	for _, info := range slices.Concat(w.journal.Train, w.journal.Val) {
		known[info.Name] = true
	}
	entries, err := os.ReadDir(w.set())
	if err != nil {
		return fmt.Errorf("%s: %w", w.set(), err)
	}
	for _, e := range entries {
		if !known[e.Name()] {
			if err := os.RemoveAll(filepath.Join(w.set(), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// add writes a batch's ids to the shards, and ends these when they are full.
func (w *work) add(ctx context.Context, b *batch) error {
	begin := 0
	for i, end := range b.ends {
		if ids := b.ids[begin:end]; len(ids) > 0 {
			if err := w.write(ids, b.val[i]); err != nil {
				return fmt.Errorf("writing %s: %w", w.set(), err)
			}
		}
		begin = end
	}
	w.tally.add(b)
	w.docs += int64(len(b.docs))
	if w.tokens += int64(len(b.ids)); w.tokens >= w.o.shardTokens {
		return w.endShards(ctx)
	}
	return nil
}

func (w *work) write(ids []int32, val bool) (err error) {
	s, stream := &w.train, "train"
	if val {
		s, stream = &w.val, "val"
	}
	if *s == nil {
		name := fmt.Sprintf("%s-%05d.bin", stream, w.journal.Pieces)
		if *s, err = createShard(filepath.Join(w.set(), name), w.tokenBytes); err != nil {
			return err
		}
	}
	return (*s).write(ids)
}

// endShards finishes the pair being written and then writes the journal.
func (w *work) endShards(ctx context.Context) error {
	if w.docs == 0 {
		return nil
	}
	for _, s := range []struct {
		w    **shardWriter
		list *[]ShardInfo
	}{{&w.train, &w.journal.Train}, {&w.val, &w.journal.Val}} {
		if *s.w == nil {
			continue
		}
		info, err := (*s.w).finish()
		if *s.w = nil; err != nil {
			return fmt.Errorf("writing %s: %w", w.set(), err)
		}
		*s.list = append(*s.list, info)
	}
	w.journal.Docs += w.docs
	w.journal.Pieces++
	w.journal.Tally = w.tally.clone()
	w.docs, w.tokens = 0, 0
	return w.journal.write(context.WithoutCancel(ctx), w.dir) // an interruption, too, keeps what is done
}

// writeSet adds to the shards what makes a set of them.
func (w *work) writeSet(ctx context.Context) error {
	v, topts := w.o.Tokenizer.Vocab(), w.o.Tokenizer.Options()
	m := Manifest{
		Format: manifestFormat, Version: manifestVersion,
		VocabHash: v.Hash(), VocabSize: v.Len(), Level: string(w.o.Tokenizer.Level()), LowerCase: topts.LowerCase, Compat: topts.Compat,
		MinLength: w.o.MinLength, Dropped: w.journal.Tally.Dropped,
		Train: Split{w.journal.Tally.Train, w.journal.Train},
		Val:   Split{w.journal.Tally.Val, w.journal.Val},
		Files: map[string]string{},
	}
	if err := v.WriteFile(ctx, filepath.Join(w.set(), vocabName)); err != nil {
		return err
	}
	names := []string{vocabName}
	if w.o.UserDict != "" {
		b, err := os.ReadFile(w.o.UserDict)
		if err != nil {
			return unreadable(w.o.UserDict, err)
		}
		if err := os.WriteFile(filepath.Join(w.set(), userDictName), b, 0o644); err != nil {
			return err
		}
		names = append(names, userDictName)
	}
	for _, name := range names {
		sum, err := fileHash(filepath.Join(w.set(), name))
		if err != nil {
			return err
		}
		m.Files[name] = sum
	}
	b, err := m.encode()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.set(), manifestName), b, 0o644)
}

// close ends the work: what a later run can go on from is kept, all else goes. A
// corpus or an option that was refused would be refused again.
func (w *work) close(err error) {
	for _, s := range []*shardWriter{w.train, w.val} {
		if s != nil {
			s.abandon()
		}
	}
	resumable := w.journal.Docs > 0 && (fault.Code(err) == fault.CodeInterrupted || fault.Code(err) == fault.CodeFailed)
	if !resumable {
		os.RemoveAll(w.set())
		os.Remove(filepath.Join(w.dir, journalName))
	}
	w.unlock()
	os.Remove(w.dir) // fails, as it should, where anything is left or another run has come
}
