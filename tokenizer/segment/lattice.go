package segment

import (
	"math"
	"unicode"
	"unicode/utf8"
)

// lattice is the working memory of one cut. Positions are byte offsets from
// the start of the block that is being cut.
type lattice struct {
	score []float32 // by position: the best sum of weights of a path that ends there
	from  []int32   // by position: where the last word of that path begins
	ends  []int32   // the path, read backwards
}

// AppendWords implements [Segmenter].
//
// The text is cut block by block: where no word of the dictionary reaches
// across a position, every path goes through it, so what lies before is
// decided and the lattice starts afresh. Blocks are a handful of characters.
func (d *Dictionary) AppendWords(dst []string, text string) []string {
	l := d.scratch.Get().(*lattice)
	defer d.scratch.Put(l)
	for at := 0; at < len(text); {
		r, n := decode(text[at:])
		if isSpace(r) {
			at += n
			continue
		}
		end := d.fill(l, text[at:])
		dst = l.appendPath(dst, text[at:at+end])
		at += end
	}
	return dst
}

// bestWeight is the weight of the best path through word.
func (d *Dictionary) bestWeight(word string) float32 {
	l := d.scratch.Get().(*lattice)
	defer d.scratch.Put(l)
	sum := float32(0)
	for at := 0; at < len(word); {
		end := d.fill(l, word[at:])
		sum += l.score[end]
		at += end
	}
	return sum
}

// fill builds the lattice of the block at the start of text, which is not
// empty, and returns where the block ends.
func (d *Dictionary) fill(l *lattice, text string) int {
	l.reset()
	reach := 0 // the furthest position that an edge leads to
	for at := 0; at < len(text); {
		if at > 0 && at == reach {
			return at
		}
		reach = max(reach, d.edges(l, text, at))
		r, n := decode(text[at:])
		at += n
		if k := kindOf(r); k != kindOther { // no word begins inside a run
			at = runEnd(text, at, k)
		}
	}
	return len(text)
}

// edges relaxes every edge that begins at position at and returns the
// furthest one's end.
func (d *Dictionary) edges(l *lattice, text string, at int) int {
	r, n := decode(text[at:])
	end := at + n
	kind := kindOf(r)
	node := d.words.step(0, r)
	if kind != kindOther {
		stop := runEnd(text, end, kind)
		for node != 0 && end < stop {
			r, n = decode(text[end:])
			node = d.words.step(node, r)
			end += n
		}
		end = stop
	}
	weight := d.unknown
	if node != 0 && d.words.weight[node] != 0 {
		weight = d.words.weight[node]
	}
	base := l.score[at]
	l.relax(at, end, base+weight)
	reach := end
	for at2 := end; node != 0 && at2 < len(text); {
		r, n = decode(text[at2:])
		if node = d.words.step(node, r); node == 0 {
			break
		}
		at2 += n
		if w := d.words.weight[node]; w != 0 && !insideRun(text, at2, r) {
			l.relax(at, at2, base+w)
			reach = at2
		}
	}
	return reach
}

// reset empties the lattice: position 0 is reached at no cost.
func (l *lattice) reset() {
	l.score = append(l.score[:0], 0)
	l.from = append(l.from[:0], 0)
}

// relax notes that position to is reached from position from with score.
// At equal scores the path noted first stays: its last word is longer.
func (l *lattice) relax(from, to int, score float32) {
	for len(l.score) <= to {
		l.score = append(l.score, float32(math.Inf(-1)))
		l.from = append(l.from, 0)
	}
	if score > l.score[to] {
		l.score[to], l.from[to] = score, int32(from)
	}
}

// appendPath appends the words of the best path through block.
func (l *lattice) appendPath(dst []string, block string) []string {
	l.ends = l.ends[:0]
	for end := int32(len(block)); end > 0; end = l.from[end] {
		l.ends = append(l.ends, end)
	}
	start := int32(0)
	for i := len(l.ends) - 1; i >= 0; i-- {
		dst = append(dst, block[start:l.ends[i]])
		start = l.ends[i]
	}
	return dst
}

// kind tells the characters that stay together with their like.
type kind uint8

const (
	kindOther kind = iota
	kindLetter
	kindDigit
)

// kindOf classifies r. Letters are those of alphabets with case (Latin, Greek,
// Cyrillic …, full-width forms included) and the marks upon them; Han, kana
// and Hangul are no such letters, they are cut by the dictionary.
func kindOf(r rune) kind {
	switch {
	case r < utf8.RuneSelf:
		return asciiKind[r]
	case r >= 0x2000 && r < 0x2c00, r >= 0x2e80 && r < 0xff00: // symbols; Han, kana, Hangul and their punctuation
		return kindOther
	case r >= 0xff00 && r < 0xff60: // full-width ASCII
		return asciiKind[r-0xff00+0x20]
	case unicode.In(r, unicode.Lu, unicode.Ll, unicode.Lt, unicode.Mn) && r < 0x20000:
		return kindLetter
	case unicode.Is(unicode.Nd, r):
		return kindDigit
	}
	return kindOther
}

var asciiKind = func() (k [utf8.RuneSelf]kind) {
	for r := range k {
		switch {
		case r >= '0' && r <= '9':
			k[r] = kindDigit
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z':
			k[r] = kindLetter
		}
	}
	return k
}()

// runEnd is where the run of characters of kind k that includes position at,
// or ends there, ends.
func runEnd(text string, at int, k kind) int {
	for at < len(text) {
		r, n := decode(text[at:])
		if kindOf(r) != k {
			break
		}
		at += n
	}
	return at
}

// insideRun reports whether position at, behind the character last, lies
// inside a run.
func insideRun(text string, at int, last rune) bool {
	if at >= len(text) {
		return false
	}
	k := kindOf(last)
	if k == kindOther {
		return false
	}
	r, _ := decode(text[at:])
	return kindOf(r) == k
}

// decode is utf8.DecodeRuneInString; an invalid byte is a character of its own.
func decode(s string) (rune, int) {
	if s[0] < utf8.RuneSelf {
		return rune(s[0]), 1
	}
	if len(s) > 2 && s[0]&0xf0 == 0xe0 && s[1]&0xc0 == 0x80 && s[2]&0xc0 == 0x80 {
		if r := rune(s[0]&0xf)<<12 | rune(s[1]&0x3f)<<6 | rune(s[2]&0x3f); r >= 0x800 && (r < 0xd800 || r > 0xdfff) {
			return r, 3
		}
	}
	return utf8.DecodeRuneInString(s)
}

// isSpace reports white space, which separates words.
func isSpace(r rune) bool {
	if r < utf8.RuneSelf {
		return r == ' ' || r >= '\t' && r <= '\r'
	}
	return r >= 0x85 && unicode.IsSpace(r)
}
