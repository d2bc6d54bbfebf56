package tokenizer

import (
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
	"golang.org/x/text/unicode/norm"
)

// class says how the basic tokenizer treats a character; several may hold.
type class uint8

const (
	classDrop  class = 1 << iota // vanishes: control, format, private, unassigned, U+0000, U+FFFD
	classSpace                   // becomes a space
	classLine                    // U+2028, U+2029: kept by cleaning, yet separates
	classPunct                   // a token of its own
	classDigit                   // Python's str.isdigit
	classCJK                     // the ideographs that BERT sets apart
	classFold                    // folding may change it, or its neighbours
)

const bmpSize = 1 << 16

// classes is the class of every character of the Basic Multilingual Plane.
var classes = sync.OnceValue(func() *[bmpSize]class {
	t := new([bmpSize]class)
	for r := range t {
		t[r] = classify(rune(r))
	}
	return t
})

// classify finds the class of r from Unicode's tables.
func classify(r rune) class {
	switch {
	case r == '\t' || r == '\n' || r == '\r' || unicode.Is(unicode.Zs, r):
		return classSpace
	case r == '\u2028' || r == '\u2029':
		return classLine
	case r == 0 || r == utf8.RuneError || !unicode.In(r, assigned...):
		return classDrop
	}
	c := class(0)
	if isPunct(r) {
		c |= classPunct
	}
	if isDigit(r) {
		c |= classDigit
	}
	if isCJK(r) {
		c |= classCJK
	}
	if folds(r) {
		c |= classFold
	}
	return c
}

// assigned are all categories but C; what is in none of them is Cc, Cf, Co, Cs
// or not assigned at all, which Go's unicode.C does not include.
var assigned = []*unicode.RangeTable{unicode.L, unicode.P, unicode.N, unicode.S, unicode.M, unicode.Z}

// isPunct reports BERT's punctuation: every ASCII character that is neither
// letter, digit, space nor control, and category P.
func isPunct(r rune) bool {
	return r >= 33 && r <= 47 || r >= 58 && r <= 64 || r >= 91 && r <= 96 || r >= 123 && r <= 126 ||
		unicode.Is(unicode.P, r)
}

// isDigit is Python's str.isdigit: decimal digits and those with the property
// Numeric_Type=Digit (superscripts, circled digits …), which Go has no table of.
func isDigit(r rune) bool { return unicode.Is(unicode.Nd, r) || unicode.Is(otherDigits, r) }

var otherDigits = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x00b2, Hi: 0x00b3, Stride: 1}, {Lo: 0x00b9, Hi: 0x00b9, Stride: 1},
		{Lo: 0x1369, Hi: 0x1371, Stride: 1}, {Lo: 0x19da, Hi: 0x19da, Stride: 1},
		{Lo: 0x2070, Hi: 0x2070, Stride: 1}, {Lo: 0x2074, Hi: 0x2079, Stride: 1},
		{Lo: 0x2080, Hi: 0x2089, Stride: 1}, {Lo: 0x2460, Hi: 0x2468, Stride: 1},
		{Lo: 0x2474, Hi: 0x247c, Stride: 1}, {Lo: 0x2488, Hi: 0x2490, Stride: 1},
		{Lo: 0x24ea, Hi: 0x24ea, Stride: 1}, {Lo: 0x24f5, Hi: 0x24fd, Stride: 1},
		{Lo: 0x24ff, Hi: 0x24ff, Stride: 1}, {Lo: 0x2776, Hi: 0x277e, Stride: 1},
		{Lo: 0x2780, Hi: 0x2788, Stride: 1}, {Lo: 0x278a, Hi: 0x2792, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x10a40, Hi: 0x10a43, Stride: 1}, {Lo: 0x10e60, Hi: 0x10e68, Stride: 1},
		{Lo: 0x11052, Hi: 0x1105a, Stride: 1}, {Lo: 0x1f100, Hi: 0x1f10a, Stride: 1},
	},
	LatinOffset: 2,
}

// isCJK reports the eight blocks of ideographs that BERT sets apart. Kana,
// Hangul, 〇 and 々 are not in them, nor are the extensions after E.
func isCJK(r rune) bool {
	return r >= 0x4e00 && r <= 0x9fff || r >= 0x3400 && r <= 0x4dbf ||
		r >= 0x20000 && r <= 0x2a6df || r >= 0x2a700 && r <= 0x2b73f ||
		r >= 0x2b740 && r <= 0x2b81f || r >= 0x2b820 && r <= 0x2ceaf ||
		r >= 0xf900 && r <= 0xfaff || r >= 0x2f800 && r <= 0x2fa1f
}

// folds reports the characters that fold may change or reorder.
func folds(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= 'A' && r <= 'Z'
	}
	if unicode.ToLower(r) != r || unicode.Is(unicode.Mn, r) || r >= 0xac00 && r <= 0xd7a3 {
		return true
	}
	p := norm.NFD.PropertiesString(string(r))
	return p.Decomposition() != nil || p.CCC() != 0
}

// lower lower-cases s as Python's str.lower does, final sigma and İ included.
func lower(s string) string {
	if strings.ContainsAny(s, "Σİ") {
		return cases.Lower(language.Und).String(s) // a Caser holds state: one a call
	}
	return strings.ToLower(s)
}

// fold lower-cases s, decomposes it and removes the non-spacing marks: "Lǜ"
// becomes "lu".
func fold(s string) string {
	if isASCII(s) {
		return strings.ToLower(s)
	}
	s = norm.NFD.String(lower(s))
	if !strings.ContainsFunc(s, isMark) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if isMark(r) {
			return -1
		}
		return r
	}, s)
}

func isMark(r rune) bool { return unicode.Is(unicode.Mn, r) }

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// isSpace is Python's str.isspace for one character, as str.strip uses it.
func isSpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }

// strip removes white space from both ends.
func strip(s string) string { return strings.TrimFunc(s, isSpace) }
