package data

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"promptgen/internal/fault"
)

// CorpusOptions say how files hold documents.
type CorpusOptions struct {
	// DocPerLine makes every line of a text file a document; else blank lines
	// separate them.
	DocPerLine bool

	// TextField names the field of a JSON object that holds its text, with dots
	// for fields of fields ("answer.text"); "" means "text". Given, it also makes
	// standard input JSON lines.
	TextField string

	// Compat reads as the original does: every line, stripped, is an entry, the
	// empty ones too, and however long it is.
	Compat bool

	// Notice is told, one line each, what is worth knowing about the files: an
	// encoding other than UTF-8, invalid bytes, files without text. May be nil.
	Notice func(string)

	// Progress is told of bytes as they are read from the files (compressed ones
	// as they lie there). May be nil.
	Progress func(n int64)

	// Stdin is read for "-"; nil means os.Stdin.
	Stdin io.Reader
}

func (o *CorpusOptions) notice(format string, args ...any) {
	if o.Notice != nil {
		o.Notice(fmt.Sprintf(format, args...))
	}
}

// Document is one text of a corpus.
type Document struct {
	Text string // lines separated by \n, valid UTF-8
}

// maxDocument is where a text without an end is cut, in bytes, so that memory
// has a limit whatever the corpus looks like. Compat cuts none.
const maxDocument = 4 << 20

// ExpandGlobs turns what a user names into files that can be read: files
// themselves, patterns (* ? [ ]), folders (all .txt, .json and .jsonl below them,
// .gz and .zst of these included), and "-". What it finds is sorted within a
// pattern; a file named twice counts once.
func ExpandGlobs(patterns []string) ([]string, error) {
	var paths []string
	seen := map[string]bool{}
	for _, p := range patterns {
		found, err := expand(p)
		if err != nil {
			return nil, err
		}
		for _, path := range found {
			if clean := filepath.Clean(path); !seen[clean] {
				seen[clean] = true
				paths = append(paths, path)
			}
		}
	}
	if len(patterns) == 0 {
		return nil, fault.Usage("no corpus: name its files with --corpus")
	}
	return paths, nil
}

func expand(pattern string) ([]string, error) {
	if pattern == Stdin {
		return []string{Stdin}, nil
	}
	if info, err := os.Stat(pattern); err == nil {
		if info.IsDir() {
			return corpusFolder(pattern)
		}
		return []string{pattern}, checkReadable(pattern, info)
	}
	matches, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fault.Usage("%s: not a pattern (%v)", pattern, err)
	}
	if len(matches) == 0 {
		return nil, fault.Usage("%s: no such file; check the path given to --corpus", pattern)
	}
	slices.Sort(matches)
	var paths []string
	for _, m := range matches {
		info, err := os.Stat(m)
		if err != nil {
			return nil, unreadable(m, err)
		}
		if info.IsDir() {
			continue // a pattern means files: * beside folders is common
		}
		if err := checkReadable(m, info); err != nil {
			return nil, err
		}
		paths = append(paths, m)
	}
	if len(paths) == 0 {
		return nil, fault.Usage("%s: matches folders only; name a folder itself to read what is below it", pattern)
	}
	return paths, nil
}

// corpusFolder lists the corpus files below dir, hidden ones left out.
func corpusFolder(dir string) ([]string, error) {
	root, err := filepath.EvalSymlinks(dir) // the walk itself follows none
	if err != nil {
		return nil, unreadable(dir, err)
	}
	var paths []string
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return unreadable(path, err)
		case path != root && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		case d.IsDir():
			return nil
		}
		if _, known := formatOf(path); !known {
			return nil
		}
		info, err := os.Stat(path)
		if err != nil {
			return unreadable(path, err)
		}
		paths = append(paths, path)
		return checkReadable(path, info)
	})
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fault.Data("%s: a folder without .txt, .json or .jsonl files", dir)
	}
	return paths, nil
}

// checkReadable opens a regular file to see that it can be: better now than after
// hours. A pipe would not survive it.
func checkReadable(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return unreadable(path, err)
	}
	return f.Close()
}

// corpusBytes is the size of the files together, 0 where one has none to tell.
func corpusBytes(paths []string) int64 {
	var sum int64
	for _, p := range paths {
		info, err := os.Stat(p)
		if p == Stdin || err != nil || !info.Mode().IsRegular() {
			return 0
		}
		sum += info.Size()
	}
	return sum
}

// Documents reads the files' documents one after the other; no more than one is
// in memory. It ends at the first error, of which it is the last element. Files
// that hold no text are told to o.Notice and passed over.
func Documents(ctx context.Context, paths []string, o CorpusOptions) iter.Seq2[Document, error] {
	return func(yield func(Document, error) bool) {
		for _, path := range paths {
			more, err := readFile(ctx, path, &o, func(d Document) bool { return yield(d, nil) })
			if err != nil {
				yield(Document{}, err)
				return
			}
			if !more {
				return
			}
		}
	}
}

// readFile yields one file's documents; more is false once yield was.
func readFile(ctx context.Context, path string, o *CorpusOptions, yield func(Document) bool) (more bool, err error) {
	s, err := openSource(ctx, path, o)
	if errors.Is(err, errBinary) {
		o.notice("%s: passed over: %v", path, err)
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer s.close()
	e := &emitter{ctx: ctx, path: s.path, o: o, yield: yield}
	switch s.format {
	case formatJSON:
		err = readJSON(s, e)
	case formatLines:
		err = readJSONLines(s, e)
	default:
		err = readText(s, e)
	}
	if errors.Is(err, errStopped) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	switch {
	case s.empty:
		o.notice("%s: empty", s.path)
	case e.documents == 0:
		o.notice("%s: holds no text", s.path)
	}
	if n := s.text.invalid; n > 0 {
		o.notice("%s: %d bytes or characters that are not %s left out; check the file's encoding if they are many", s.path, n, s.enc.name)
	}
	return true, nil
}

// errStopped ends the reading when the receiver wants no more.
var errStopped = errors.New("stopped")

// emitter hands documents on, in the form that the mode asks for.
type emitter struct {
	ctx       context.Context
	path      string
	o         *CorpusOptions
	yield     func(Document) bool
	documents int
	cut       bool
}

// emit passes a text on: with Compat as it is, else trimmed, with its line ends
// made \n, cut where it is longer than a document may be, and not if it is blank.
func (e *emitter) emit(text string) error {
	if err := e.ctx.Err(); err != nil {
		return err
	}
	if e.o.Compat {
		return e.pass(text)
	}
	if strings.Contains(text, "\r") {
		text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	}
	text = strings.TrimSpace(text)
	for len(text) > maxDocument {
		at := strings.LastIndexByte(text[:maxDocument], '\n') + 1
		if at == 0 {
			at = runeStart(text, maxDocument)
		}
		e.tellCut()
		if err := e.pass(strings.TrimSpace(text[:at])); err != nil {
			return err
		}
		text = strings.TrimSpace(text[at:])
	}
	return e.pass(text)
}

func (e *emitter) pass(text string) error {
	if text == "" && !e.o.Compat {
		return nil
	}
	e.documents++
	if !e.yield(Document{Text: text}) {
		return errStopped
	}
	return nil
}

// tellCut says once a file that a document of it was cut.
func (e *emitter) tellCut() {
	if !e.cut {
		e.cut = true
		e.o.notice("%s: a text of more than %d MiB was cut into several documents; break it up: a blank line ends a document, with --doc-per-line every line", e.path, maxDocument>>20)
	}
}

// runeStart is the last place not behind i where a character begins.
func runeStart[S string | []byte](s S, i int) int {
	for i > 0 && s[i]&0xc0 == 0x80 {
		i--
	}
	return i
}

// pythonStrip is Python's str.strip, which also takes the separators FS to US.
func pythonStrip(s string) string {
	return strings.TrimFunc(s, func(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f })
}
