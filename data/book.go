package data

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"promptgen/internal/atomicdir"
	"promptgen/internal/fault"
)

const (
	bookPrefix    = "tokenized_train_"
	defaultPieces = 100
	maxPieces     = 100_000 // files in one folder that a file system can be asked to hold
)

// tokenizeBook writes what the original writes: the entries dealt out to a fixed
// number of text files, the same number to each and the rest to the last, and of
// each entry that is long enough its framed ids with a space behind every one.
//
// How many entries a file gets depends on how many there are, so the corpus is
// read twice.
func tokenizeBook(ctx context.Context, o *TokenizeOptions, paths []string) (*tally, error) {
	if slices.Contains(paths, Stdin) {
		return nil, fault.Usage("--compat book reads the corpus twice, which standard input does not allow; name a file")
	}
	entries := 0
	for _, err := range o.documents(ctx, paths, true) {
		if err != nil {
			return nil, err
		}
		entries++
	}
	t := &tally{}
	err := atomicdir.Write(ctx, o.Out, func(tmp string) error {
		p := &pieces{dir: tmp, number: cmp.Or(o.NumPieces, defaultPieces), entries: entries}
		err := o.encoder().run(ctx, o.documents(ctx, paths, false), o.Threads, func(b *batch) error {
			t.add(b)
			begin := 0
			for _, end := range b.ends {
				if err := p.write(ctx, b.ids[begin:end]); err != nil {
					return fmt.Errorf("writing %s: %w", o.Out, err)
				}
				begin = end
			}
			return nil
		})
		if err == nil {
			err = o.judge(t)
		}
		if err == nil {
			err = p.openUpTo(ctx, p.number-1) // those that no entry fell to
		}
		return errors.Join(err, p.flush())
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// pieces deals entries out to files.
type pieces struct {
	dir     string
	number  int // of files
	entries int // expected in all
	at      int // number of the next entry
	open    int // files begun
	f       *os.File
	w       *bufio.Writer
}

// write writes the next entry's ids, which are none if it was dropped: then no
// file is begun, so that a corpus of such entries is refused before there is one.
func (p *pieces) write(ctx context.Context, ids []int32) error {
	to := p.number - 1
	if each := p.entries / p.number; each > 0 {
		to = min(to, p.at/each)
	}
	p.at++
	if len(ids) == 0 {
		return nil
	}
	if err := p.openUpTo(ctx, to); err != nil {
		return err
	}
	var b []byte
	for _, id := range ids {
		b = append(strconv.AppendInt(b, int64(id), 10), ' ')
	}
	_, err := p.w.Write(b)
	return err
}

// openUpTo begins all files up to that number; those passed over stay empty.
func (p *pieces) openUpTo(ctx context.Context, number int) (err error) {
	for ; p.open <= number; p.open++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.flush(); err != nil {
			return err
		}
		if p.f, err = os.Create(bookPiece(p.dir, p.open)); err != nil {
			return err
		}
		p.w = bufio.NewWriter(p.f)
	}
	return nil
}

func (p *pieces) flush() error {
	if p.f == nil {
		return nil
	}
	err := errors.Join(p.w.Flush(), p.f.Close())
	p.f = nil
	return err
}

func bookPiece(dir string, number int) string {
	return filepath.Join(dir, fmt.Sprintf("%s%d.txt", bookPrefix, number))
}
