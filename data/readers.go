package data

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"promptgen/internal/fault"
)

// defaultTextField holds the text of a JSON object unless another is named.
const defaultTextField = "text"

// maxLine is the longest line that is taken where a line must not be cut, in
// bytes: memory has a limit there too.
const maxLine = 1 << 30

// errLongLine ends the reading of a file with a longer one.
var errLongLine = fmt.Errorf("longer than %d MiB; break it into several", maxLine>>20)

// lines reads lines however they end: \n, \r\n or a lone \r.
type lines struct {
	r     *bufio.Reader
	limit int    // of a line, in bytes
	cut   func() // told of a longer line, which comes in pieces; nil: it is an error
	queue []byte // the rest of a piece that held a \r
	more  bool   // queue holds at least one line yet
	long  []byte // a line longer than the buffer, so far
	carry []byte // the beginning of the next piece, read with the one before
	n     int    // number of the line handed out last, from 1
}

func newLines(r io.Reader, limit int, cut func()) *lines {
	return &lines{r: bufio.NewReaderSize(r, 128<<10), limit: limit, cut: cut}
}

// next is the next line without its end, good until the call after; io.EOF after
// the last.
func (l *lines) next() ([]byte, error) {
	if !l.more {
		if err := l.read(); err != nil {
			return nil, err
		}
	}
	l.n++
	line := l.queue
	if at := bytes.IndexByte(line, '\r'); at >= 0 {
		l.queue = line[at+1:]
		return line[:at], nil
	}
	l.more = false
	return line, nil
}

// read puts what stands before the next \n into the queue, or the beginning of it
// if that is long.
func (l *lines) read() error {
	l.long = append(l.long[:0], l.carry...)
	l.carry = l.carry[:0]
	for {
		b, err := l.r.ReadSlice('\n')
		whole := b
		if len(l.long) > 0 || err == bufio.ErrBufferFull {
			l.long = append(l.long, b...)
			whole = l.long
		}
		switch {
		case err == nil:
			l.queue, l.more = trimEnd(whole), true
			return nil
		case err == io.EOF && len(whole) > 0:
			l.queue, l.more = trimCR(whole), true
			return nil
		case err != bufio.ErrBufferFull:
			return err
		}
		if err := l.split(whole, len(b)); l.more || err != nil {
			return err
		}
	}
}

// split queues the lines of b that a lone \r ends, and keeps what is behind them
// for the next piece. Only the last fresh bytes were not looked at before. Where
// there is none, a line beyond the limit is cut between two characters.
func (l *lines) split(b []byte, fresh int) error {
	last := len(b) - 1 // a \r there may be half of a \r\n
	from := max(0, last-fresh)
	at := bytes.LastIndexByte(b[from:last], '\r') + from
	next := at + 1
	if at < from {
		switch {
		case len(b) <= l.limit || b[last] == '\r':
			return nil
		case l.cut == nil:
			return fmt.Errorf("line %d: %w", l.n+1, errLongLine)
		}
		l.cut()
		at = runeStart(b, l.limit)
		next = at
	}
	l.carry = append(l.carry, b[next:]...)
	l.queue, l.more = b[:at], true
	return nil
}

func trimEnd(b []byte) []byte { return trimCR(bytes.TrimSuffix(b, []byte("\n"))) }
func trimCR(b []byte) []byte  { return bytes.TrimSuffix(b, []byte("\r")) }

// readText reads plain text: a document a line, or blank lines between them.
func readText(s *source, e *emitter) error {
	l := newLines(s.text, maxDocument, e.tellCut)
	if e.o.Compat { // an entry more than the original's would be another list
		l = newLines(s.text, maxLine, nil)
	}
	var doc []byte
	flush := func() error {
		text := string(doc)
		doc = doc[:0]
		if text == "" {
			return nil
		}
		return e.emit(text)
	}
	for {
		line, err := l.next()
		switch {
		case err == io.EOF:
			return flush()
		case err != nil:
			return s.readError(err)
		case e.o.Compat:
			err = e.emit(pythonStrip(string(line)))
		case e.o.DocPerLine:
			err = e.emit(string(line))
		case len(bytes.TrimSpace(line)) == 0:
			err = flush()
		default:
			if len(doc) > 0 && len(doc)+len(line) >= maxDocument {
				e.tellCut()
				if err := flush(); err != nil {
					return err
				}
			}
			if len(doc) > 0 {
				doc = append(doc, '\n')
			}
			doc = append(doc, line...)
		}
		if err != nil {
			return err
		}
	}
}

// readJSON reads a list of strings or objects, entry by entry; values that
// simply follow one another are taken as well.
func readJSON(s *source, e *emitter) error {
	r := bufio.NewReaderSize(s.text, 64<<10)
	list := false
	if b, err := firstByte(r); err == nil {
		list = b == '['
	} else if err == io.EOF {
		return nil
	} else {
		return s.readError(err)
	}
	d := json.NewDecoder(r)
	if list {
		d.Token()
	}
	field := newField(e.o.TextField)
	for n := 1; ; n++ {
		if list && !d.More() {
			break
		}
		field.text = ""
		err := d.Decode(field)
		if err == io.EOF && !list {
			return nil
		}
		if err != nil {
			return jsonError(s, fmt.Sprintf("%s: entry %d (near byte %d)", s.path, n, d.InputOffset()), err)
		}
		if err := e.emit(field.text); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return jsonError(s, s.path+": the list's end", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fault.Corrupt("%s: something follows the list; a .json file holds one list, a .jsonl file a value a line", s.path)
	}
	return nil
}

// firstByte peeks at the first byte that is not white space.
func firstByte(r *bufio.Reader) (byte, error) {
	for {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		if !strings.ContainsRune(" \t\r\n", rune(b)) {
			return b, r.UnreadByte()
		}
	}
}

// readJSONLines reads a string or an object from every line.
func readJSONLines(s *source, e *emitter) error {
	l := newLines(s.text, maxLine, nil)
	field := newField(e.o.TextField)
	for {
		line, err := l.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return s.readError(err)
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		field.text = ""
		if err := json.Unmarshal(line, field); err != nil {
			return jsonError(s, fmt.Sprintf("%s:%d", s.path, l.n), err)
		}
		if err := e.emit(field.text); err != nil {
			return err
		}
	}
}

// jsonError tells apart a value without the text that was looked for (3), text
// that is no JSON (5), and a file that could not be read on.
func jsonError(s *source, where string, err error) error {
	var missing *fieldError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &missing):
		return fault.Data("%s: %v; name the field that holds the text with --text-field", where, missing)
	case errors.As(err, &syntax), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fault.Corrupt("%s: not JSON (%v); correct it or leave it out", where, err)
	}
	return s.readError(err)
}

// field is a JSON value that is a text or holds one at a path of field names.
type field struct {
	path []string
	text string
}

func newField(path string) *field {
	if path == "" {
		path = defaultTextField
	}
	return &field{path: strings.Split(path, ".")}
}

// fieldError says that a value has no text where one was looked for.
type fieldError struct{ msg string }

func (e *fieldError) Error() string { return e.msg }

// UnmarshalJSON takes a string as it is and looks into an object; null is "".
func (f *field) UnmarshalJSON(b []byte) error {
	for _, name := range f.path {
		if len(b) == 0 || b[0] != '{' {
			break
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(b, &object); err != nil {
			return err
		}
		value, ok := object[name]
		if !ok {
			return &fieldError{fmt.Sprintf("no field %q in an object with %s", name, someKeys(object))}
		}
		b = value
	}
	switch {
	case len(b) > 0 && b[0] == '"':
		return json.Unmarshal(b, &f.text)
	case string(b) == "null":
		return nil
	}
	return &fieldError{fmt.Sprintf("%s is not a string", abridged(b))}
}

func someKeys(object map[string]json.RawMessage) string {
	keys := slices.Sorted(maps.Keys(object))
	more := ""
	if len(keys) > 8 {
		keys, more = keys[:8], ", …"
	}
	if len(keys) == 0 {
		return "no fields"
	}
	return strings.Join(keys, ", ") + more
}

// abridged is a value's beginning, for a message.
func abridged(b []byte) string {
	const most = 40
	if len(b) > most {
		return strings.ToValidUTF8(string(b[:most]), "") + "…"
	}
	return string(b)
}
