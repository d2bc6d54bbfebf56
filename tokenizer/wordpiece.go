package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// pieces is WordPiece over a vocabulary.
type pieces struct {
	ids     [2]map[string]int32 // whole and inner tokens, these without their "##"
	single  []int32             // by BMP character: the token of it alone, -1: none
	unknown int32
	reach   [2][256]int // bytes of the longest whole or inner token that begins with this byte
}

const (
	whole = iota // tokens that stand at the start of a word
	inner        // "##" tokens
)

// maxWord is the number of characters beyond which BERT makes a word [UNK].
const maxWord = 100

func newPieces(v *Vocab) pieces {
	p := pieces{single: make([]int32, bmpSize), unknown: v.special.UNK}
	p.ids[whole], p.ids[inner] = v.ids, map[string]int32{}
	for r := range p.single {
		p.single[r] = -1
	}
	for tok, id := range v.ids {
		p.limit(whole, tok)
		if piece, ok := strings.CutPrefix(tok, "##"); ok {
			p.ids[inner][piece] = id
			p.limit(inner, piece)
		}
		if r, n := utf8.DecodeRuneInString(tok); n == len(tok) && n > 0 && r < bmpSize {
			p.single[r] = id
		}
	}
	return p
}

// limit notes how long tokens get, so that no longer ones are looked up.
func (p *pieces) limit(kind int, tok string) {
	if tok != "" {
		p.reach[kind][tok[0]] = max(p.reach[kind][tok[0]], len(tok))
	}
}

// append appends the ids of w: the longest token that it begins with, then the
// longest "##" token that the rest begins with, and so on. Where that fails,
// or w is too long, w is one [UNK]; with mixed, it is then written with the
// longest tokens of either kind, and [UNK] stands for single characters.
func (p *pieces) append(dst []int32, w string, mixed bool) []int32 {
	r, n := utf8.DecodeRuneInString(w)
	if n == len(w) && r < bmpSize {
		if id := p.single[r]; id >= 0 {
			return append(dst, id)
		}
		return append(dst, p.unknown)
	}
	if len(w) <= maxWord || utf8.RuneCountInString(w) <= maxWord {
		mark := len(dst)
		kind := whole
		for rest := w; ; kind = inner {
			id, n := p.match(kind, rest)
			if n == 0 {
				dst = dst[:mark]
				break
			}
			dst = append(dst, id)
			if rest = rest[n:]; rest == "" {
				return dst
			}
		}
	}
	if mixed {
		return p.appendMixed(dst, w)
	}
	return append(dst, p.unknown)
}

// match finds the longest token of that kind that s, which is not empty,
// begins with; n is 0 if there is none.
func (p *pieces) match(kind int, s string) (id int32, n int) {
	for n = min(len(s), p.reach[kind][s[0]]); n > 0; n-- {
		if n < len(s) && !utf8.RuneStart(s[n]) {
			continue
		}
		if id, ok := p.ids[kind][s[:n]]; ok {
			return id, n
		}
	}
	return 0, 0
}

// appendMixed writes w with the longest tokens, "##" or not; at equal length
// "##" goes first inside the word.
func (p *pieces) appendMixed(dst []int32, w string) []int32 {
	for rest := w; rest != ""; {
		id, n := p.match(whole, rest)
		if len(rest) < len(w) {
			if piece, m := p.match(inner, rest); m >= n {
				id, n = piece, m
			}
		}
		if n == 0 {
			_, n = utf8.DecodeRuneInString(rest)
			id = p.unknown
		}
		dst = append(dst, id)
		rest = rest[n:]
	}
	return dst
}
