package tokenizer

// joiner writes tokens one after another as text. The rules are the
// original's:
//
//   - a space comes between two neighbours that are both English words, that
//     is, of the letters a to z alone;
//   - [MASK] and [UNK] become a space, [SEP] a line feed, [CLS] two;
//   - then every "##" is deleted, wherever it came from.
//
// So the space waits for the second word, and a single '#' for what follows.
type joiner struct {
	word bool // the token before is an English word
	hash bool // a '#' is held back
}

// append appends to dst what is certain once tok is known.
func (j *joiner) append(dst []byte, tok string) []byte {
	word := isWord(tok)
	if word && j.word {
		dst = j.write(dst, " ")
	}
	j.word = word
	switch tok {
	case MASK, UNK:
		tok = " "
	case SEP:
		tok = "\n"
	case CLS:
		tok = "\n\n"
	}
	return j.write(dst, tok)
}

// write appends s without its "##".
func (j *joiner) write(dst []byte, s string) []byte {
	for i := range len(s) {
		switch {
		case s[i] != '#':
			dst = append(j.flush(dst), s[i])
		default:
			j.hash = !j.hash
		}
	}
	return dst
}

// flush appends the '#' that was held back.
func (j *joiner) flush(dst []byte) []byte {
	if j.hash {
		j.hash = false
		dst = append(dst, '#')
	}
	return dst
}

// isWord reports an English word as the original sees it: no letters but a to
// z, which also holds for the empty string.
func isWord(tok string) bool {
	for i := range len(tok) {
		if tok[i] < 'a' || tok[i] > 'z' {
			return false
		}
	}
	return true
}

// Decode writes ids as text, white space at its ends removed. An id that the
// vocabulary does not have reads as [UNK].
func (t *Tokenizer) Decode(ids []int32) string {
	var j joiner
	var b []byte
	for _, id := range ids {
		b = j.append(b, t.vocab.Token(id))
	}
	return strip(string(j.flush(b)))
}

// Stream decodes ids as they come. What Push and Flush return, put together,
// is what Decode gives of all the ids, but for the white space at the ends. It
// never returns half a character or a "##" of which more may follow.
type Stream struct {
	vocab *Vocab
	j     joiner
	buf   []byte
}

// NewStream starts a stream.
func (t *Tokenizer) NewStream() *Stream { return &Stream{vocab: t.vocab} }

// Push returns the text that id makes certain; it may be empty.
func (s *Stream) Push(id int32) string {
	s.buf = s.j.append(s.buf[:0], s.vocab.Token(id))
	return string(s.buf)
}

// Flush ends the stream and returns what was held back.
func (s *Stream) Flush() string {
	s.buf = s.j.flush(s.buf[:0])
	s.j = joiner{}
	return string(s.buf)
}
