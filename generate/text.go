package generate

import (
	"strings"

	"promptgen/tokenizer"
)

// encodePrompt turns a prompt into tokens as the corpus is turned into them:
// line feeds are [SEP].
func encodePrompt(tok *tokenizer.Tokenizer, text string) []int32 {
	var ids []int32
	for i, line := range strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n") {
		if i > 0 {
			ids = append(ids, tok.Vocab().Special().SEP)
		}
		ids = tok.AppendEncode(ids, line)
	}
	return ids
}

// writer turns the tokens of one sample into its continuation. What it has
// shown it never takes back: the possible beginning of a stop string and white
// space that may be the text's last are held until what follows is known.
type writer struct {
	stream *tokenizer.Stream // nil: no text is wanted
	stops  []string
	held   string
	prompt string          // what the stream still owes of the prompt
	shown  strings.Builder // the continuation so far
	before string          // the prompt as it was sent
}

// newWriter starts after the prompt, whose tokens are ids, so that the rules
// for joining tokens hold across the seam.
func newWriter(tok *tokenizer.Tokenizer, prompt string, ids []int32, stops []string) *writer {
	w := &writer{stops: stops, before: prompt}
	if tok == nil {
		return w
	}
	// Only the last tokens matter to what follows.
	ids = ids[max(0, len(ids)-8):]
	owed := tok.NewStream()
	w.stream = tok.NewStream()
	for _, id := range ids {
		owed.Push(id)
		w.stream.Push(id)
	}
	w.prompt = owed.Flush()
	return w
}

// push adds a token. It returns the text that has become certain, and whether
// a stop string has ended the sample.
func (w *writer) push(id int32) (text string, stopped bool) {
	if w.stream == nil {
		return "", false
	}
	return w.add(w.stream.Push(id))
}

// finish ends a sample that no stop string has ended, and returns its last text.
func (w *writer) finish() (text string, stopped bool) {
	if w.stream == nil {
		return "", false
	}
	text, stopped = w.add(w.stream.Flush())
	if !stopped {
		text += w.show(strings.TrimRight(w.held, whiteSpace))
	}
	return text, stopped
}

const whiteSpace = " \t\r\n"

func (w *writer) add(piece string) (text string, stopped bool) {
	w.held += w.afterPrompt(piece)
	if at, stop := w.firstStop(); stop {
		return w.show(strings.TrimRight(w.held[:at], whiteSpace)), true
	}
	certain := strings.TrimRight(w.held[:len(w.held)-w.openStop()], whiteSpace)
	w.held = w.held[len(certain):]
	return w.show(certain), false
}

// afterPrompt drops from the first pieces what belongs to the prompt: what the
// stream held of it, and white space where the prompt already ends with some
// (or is blank: a text does not begin with white space).
func (w *writer) afterPrompt(piece string) string {
	if piece == "" {
		return ""
	}
	piece = strings.TrimPrefix(piece, w.prompt)
	w.prompt = ""
	if w.shown.Len() > 0 || w.held != "" {
		return piece
	}
	switch {
	case strings.TrimSpace(w.before) == "":
		return strings.TrimLeft(piece, whiteSpace)
	case strings.HasSuffix(w.before, " "):
		return strings.TrimPrefix(piece, " ")
	}
	return piece
}

// firstStop finds where the earliest stop string begins in what is held. It
// cannot have begun in what was shown.
func (w *writer) firstStop() (at int, found bool) {
	at = len(w.held)
	for _, s := range w.stops {
		if i := strings.Index(w.held, s); i >= 0 && i <= at {
			at, found = i, true
		}
	}
	return at, found
}

// openStop is the length of the longest end of what is held that begins a stop
// string.
func (w *writer) openStop() int {
	longest := 0
	for _, s := range w.stops {
		for n := min(len(s)-1, len(w.held)); n > longest; n-- {
			if strings.HasSuffix(w.held, s[:n]) {
				longest = n
			}
		}
	}
	return longest
}

func (w *writer) show(text string) string {
	w.shown.WriteString(text)
	return text
}
