package data

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"promptgen/internal/fault"
)

// Stdin is the name of standard input among a corpus's files.
const Stdin = "-"

// format is how a file holds documents.
type format int

const (
	formatText  format = iota // lines, and blank lines between documents
	formatJSON                // a list of strings or objects
	formatLines               // a string or an object a line (.jsonl)
)

// corpusExtensions are those of the files taken from a folder, the endings of
// compressed ones cut off.
var corpusExtensions = map[string]format{".txt": formatText, ".json": formatJSON, ".jsonl": formatLines}

// formatOf tells a file's format by its name; any name not known is plain text.
func formatOf(path string) (f format, known bool) {
	name := strings.ToLower(filepath.Base(path))
	name = strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), ".zst")
	f, known = corpusExtensions[filepath.Ext(name)]
	return f, known
}

// source is a file of a corpus, opened, decompressed and decoded.
type source struct {
	path    string
	format  format
	text    *cleaner
	enc     textEncoding
	empty   bool
	closers []func()
}

// openSource opens one file. Its encoding is told to o.Notice where it is not
// UTF-8. errBinary says that it holds no text.
func openSource(ctx context.Context, path string, o *CorpusOptions) (_ *source, err error) {
	s := &source{path: path}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	raw, err := s.open(ctx, o)
	if err != nil {
		return nil, err
	}
	plain, err := s.decompress(bufio.NewReaderSize(counted{raw, o.Progress}, 64<<10))
	if err != nil {
		return nil, s.readError(err)
	}
	head := bufio.NewReaderSize(plain, sampleBytes)
	sample, err := head.Peek(sampleBytes)
	if err != nil && err != io.EOF {
		return nil, s.readError(err)
	}
	s.empty = len(sample) == 0
	if s.enc, err = detect(sample); err != nil {
		return nil, err
	}
	head.Discard(s.enc.bom)
	if s.enc.decoder == nil {
		s.text = newCleaner(head, false)
	} else {
		s.text = newCleaner(s.enc.decoder.NewDecoder().Reader(head), true)
		o.notice("%s: read as %s", s.path, s.enc.name)
	}
	return s, nil
}

// open opens the file itself, or takes standard input.
func (s *source) open(ctx context.Context, o *CorpusOptions) (io.Reader, error) {
	if s.path == Stdin {
		s.path = "standard input" // in what is told of it
		if o.TextField != "" {
			s.format = formatLines
		}
		if o.Stdin != nil {
			return s.patient(ctx, o.Stdin), nil
		}
		return s.patient(ctx, os.Stdin), nil
	}
	s.format, _ = formatOf(s.path)
	info, err := os.Stat(s.path)
	if err != nil {
		return nil, unreadable(s.path, err)
	}
	if info.Mode().IsRegular() {
		f, err := os.Open(s.path)
		if err != nil {
			return nil, unreadable(s.path, err)
		}
		s.closers = append(s.closers, func() { f.Close() })
		return f, nil
	}
	f, err := openPipe(ctx, s.path)
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, func() { f.Close() })
	return s.patient(ctx, f), nil
}

// openPipe opens what is no regular file, and waits for its writer no longer
// than ctx allows: the system's call cannot be interrupted.
func openPipe(ctx context.Context, path string) (*os.File, error) {
	type opened struct {
		f   *os.File
		err error
	}
	done := make(chan opened)
	go func() {
		f, err := os.Open(path)
		select {
		case done <- opened{f, err}:
		case <-ctx.Done():
			if err == nil {
				f.Close()
			}
		}
	}()
	select {
	case o := <-done:
		if o.err != nil {
			return nil, unreadable(path, o.err)
		}
		return o.f, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// patient reads from what may have nothing to give for long (a pipe, a
// terminal), and ends with ctx.
func (s *source) patient(ctx context.Context, r io.Reader) io.Reader {
	out, in := io.Pipe()
	stop := context.AfterFunc(ctx, func() { in.CloseWithError(ctx.Err()) })
	s.closers = append(s.closers, func() { stop(); out.Close() })
	go func() { // ends with the next that r gives, or with the program
		_, err := io.Copy(in, r)
		in.CloseWithError(err)
	}()
	return out
}

// unreadable tells why a file cannot be opened (2).
func unreadable(path string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fault.Usage("%s: no such file", path)
	}
	var p *os.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return fault.Usage("%s: cannot be read (%v); allow it or name another", path, err)
}

// decompress looks at the first bytes, not at the name: compressed data on
// standard input has none.
func (s *source) decompress(r *bufio.Reader) (io.Reader, error) {
	magic, _ := r.Peek(4)
	switch {
	case strings.HasPrefix(string(magic), "\x1f\x8b"):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		return z, nil
	case string(magic) == "\x28\xb5\x2f\xfd":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, err
		}
		s.closers = append(s.closers, z.Close)
		return z, nil
	}
	if ext := strings.ToLower(filepath.Ext(s.path)); len(magic) > 0 && (ext == ".gz" || ext == ".zst") {
		return nil, fmt.Errorf("is called %s and is not compressed so", ext)
	}
	return r, nil
}

// readError makes an error of reading one that names the file.
func (s *source) readError(err error) error {
	var p *os.PathError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err // interrupted while it waited
	case errors.As(err, &p):
		return unreadable(s.path, err)
	case errors.Is(err, errLongLine):
		return fault.Data("%s: %w", s.path, err)
	}
	return fault.Corrupt("%s: %v; copy or compress the file again", s.path, err)
}

func (s *source) close() {
	for _, c := range s.closers {
		c()
	}
}

// counted reports how many bytes were read.
type counted struct {
	r        io.Reader
	progress func(n int64)
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.progress != nil && n > 0 {
		c.progress(int64(n))
	}
	return n, err
}
