package tokenizer

import (
	"strings"
	"unicode/utf8"

	"promptgen/tokenizer/segment"
)

// Level is what a token stands for.
type Level string

const (
	LevelWord Level = "word" // words that a segmenter finds
	LevelChar Level = "char" // Chinese characters, digits, Latin words
	LevelBERT Level = "bert" // as char, but digits are not set apart
)

// parseLevel finds the level of that name.
func parseLevel(name string) (Level, bool) {
	switch l := Level(name); l {
	case LevelWord, LevelChar, LevelBERT:
		return l, true
	}
	return "", false
}

// pretokenizer cuts text into words, which WordPiece then looks up or a
// vocabulary counts. It does not change.
type pretokenizer struct {
	level  Level
	lower  bool
	compat bool
	seg    segment.Segmenter
	class  *[bmpSize]class
}

func newPretokenizer(level Level, lower, compat bool, seg segment.Segmenter) pretokenizer {
	return pretokenizer{level, lower, compat, seg, classes()}
}

func (p *pretokenizer) classOf(r rune) class {
	if uint32(r) < bmpSize {
		return p.class[r]
	}
	return classify(r)
}

// each cuts text, stretch by stretch, and hands on the words of each stretch
// and, between them, the special tokens that are written out in the text. The
// words are good until the call returns; buf is kept from one text to the next.
func (p *pretokenizer) each(text string, buf *[]string, words func([]string), special func(string)) {
	for text != "" {
		piece, tok, rest := cutSpecial(text)
		for piece = strip(piece); piece != ""; {
			var head string
			head, piece = chunk(piece)
			*buf = p.appendWords((*buf)[:0], head)
			words(*buf)
			clear(*buf) // kept buffers must not keep documents
		}
		if tok != "" {
			special(tok)
		}
		text = rest
	}
}

// cutSpecial cuts text at the first special token in it; special is "" where
// there is none.
func cutSpecial(text string) (before, special, after string) {
	for at := 0; ; at++ {
		i := strings.IndexByte(text[at:], '[')
		if i < 0 {
			return text, "", ""
		}
		at += i
		for _, tok := range specials {
			if strings.HasPrefix(text[at:], tok) {
				return text[:at], tok, text[at+len(tok):]
			}
		}
	}
}

// longest is how much text is cut at once, so that the memory used does not
// grow with the document.
const longest = 64 << 10

// chunk splits text after its first longest bytes or so, behind white space
// or ideographic punctuation, where no word can go on. Without such a place,
// rest is empty.
func chunk(text string) (head, rest string) {
	if len(text) <= longest {
		return text, ""
	}
	i := strings.IndexAny(text[longest:], " \n\t。，")
	if i < 0 {
		return text, ""
	}
	i += longest
	_, n := utf8.DecodeRuneInString(text[i:])
	return text[:i+n], text[i+n:]
}

// appendWords appends the words of a text without special tokens to dst. At
// the word level these are the segmenter's, not yet folded nor split at
// punctuation; at the others they are final.
func (p *pretokenizer) appendWords(dst []string, text string) []string {
	if p.level == LevelWord {
		return p.seg.AppendWords(dst, p.clean(text))
	}
	return p.appendChars(dst, text)
}

// clean drops what carries no meaning and makes every space a plain one; with
// compat it also sets digits apart by spaces. It returns text itself where
// nothing changes.
func (p *pretokenizer) clean(text string) string {
	change := classDrop | classSpace
	if p.compat {
		change |= classDigit
	}
	at := strings.IndexFunc(text, func(r rune) bool { return r != ' ' && p.classOf(r)&change != 0 })
	if at < 0 {
		return text
	}
	b := make([]byte, at, len(text)+len(text)/8+8)
	copy(b, text)
	for _, r := range text[at:] {
		switch c := p.classOf(r); {
		case c&classDrop != 0:
		case c&classSpace != 0:
			b = append(b, ' ')
		case c&change != 0:
			b = utf8.AppendRune(append(b, ' '), r)
			b = append(b, ' ')
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return string(b)
}

// appendChars cuts text at the char and bert levels: ideographs, and at the
// char level digits, stand alone, the rest is split at spaces, folded, and
// split at punctuation.
func (p *pretokenizer) appendChars(dst []string, text string) []string {
	alone := classCJK
	if p.level == LevelChar {
		alone |= classDigit
	}
	run := word{} // what has been read since the last boundary
	for at := 0; at < len(text); {
		r, n := utf8.DecodeRuneInString(text[at:])
		c := p.classOf(r)
		switch {
		case c&(classSpace|classLine) != 0:
			dst = p.appendRun(dst, text, &run)
		case c&classDrop != 0:
			run.skip(text, at)
		case c&alone != 0:
			dst = p.appendRun(dst, text, &run)
			run.take(text, at, n, c)
			dst = p.appendRun(dst, text, &run)
		default:
			run.take(text, at, n, c)
		}
		at += n
	}
	return p.appendRun(dst, text, &run)
}

// word is a stretch of a text that is being read, with what was dropped from
// it left out: a piece of the text as long as possible, a copy otherwise.
type word struct {
	start, end int
	copied     []byte // the characters so far, once some were dropped
	class      class  // all that occur
}

func (w *word) take(text string, at, n int, c class) {
	w.class |= c
	if w.copied != nil {
		w.copied = append(w.copied, text[at:at+n]...)
		return
	}
	if w.start == w.end {
		w.start = at
	}
	w.end = at + n
}

// skip leaves out the character at position at.
func (w *word) skip(text string, at int) {
	if w.copied == nil && w.end > w.start {
		w.copied = append(make([]byte, 0, 2*(w.end-w.start)), text[w.start:w.end]...)
	}
}

// appendRun appends the words of run and empties it.
func (p *pretokenizer) appendRun(dst []string, text string, run *word) []string {
	s := text[run.start:run.end]
	if run.copied != nil {
		s = string(run.copied)
	}
	c := run.class
	*run = word{}
	if s == "" {
		return dst
	}
	return p.appendSplit(dst, s, c)
}

// appendSplit folds s, if folding is asked for, and appends what is left of it
// between and of its punctuation. c holds the classes that occur in s.
func (p *pretokenizer) appendSplit(dst []string, s string, c class) []string {
	if p.lower && c&classFold != 0 {
		s = fold(s)
		c = p.classesIn(s)
	}
	const cut = classPunct | classSpace | classLine
	if c&cut == 0 {
		if s != "" {
			dst = append(dst, s)
		}
		return dst
	}
	start := 0
	for at := 0; at < len(s); {
		r, n := utf8.DecodeRuneInString(s[at:])
		if c := p.classOf(r); c&cut != 0 {
			if at > start {
				dst = append(dst, s[start:at])
			}
			if c&classPunct != 0 {
				dst = append(dst, s[at:at+n])
			}
			start = at + n
		}
		at += n
	}
	if start < len(s) {
		dst = append(dst, s[start:])
	}
	return dst
}

// classesIn is the union of the classes of the characters of s.
func (p *pretokenizer) classesIn(s string) class {
	c := class(0)
	for _, r := range s {
		c |= p.classOf(r)
	}
	return c
}
