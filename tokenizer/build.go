package tokenizer

import (
	"cmp"
	"context"
	"iter"
	"math"
	"runtime"
	"slices"
	"strings"
	"unicode/utf8"

	"promptgen/internal/fault"
	"promptgen/tokenizer/segment"
)

// BuildOptions say what vocabulary is made.
type BuildOptions struct {
	// Size is the number of tokens at most, 0 is 50000; the special tokens are
	// counted, with Compat they come on top, as in the original. Characters
	// are never left out to keep it.
	Size int
	// MinCount leaves out words that occur less often; characters stay.
	MinCount int
	// Level is what a token stands for; "" is LevelWord.
	Level Level
	// Segmenter finds the words at the word level; nil is the dictionary
	// segmenter with UserDict.
	Segmenter segment.Segmenter
	UserDict  string
	// Compat makes exactly the original's list (word level): lower-cased,
	// ASCII punctuation left out, words only.
	Compat bool
	// Threads count in parallel, 0 is one for each usable core. The result
	// does not depend on it.
	Threads int
}

// Validate checks o whole; the error names every fault.
func (o BuildOptions) Validate() error {
	var l fault.List
	if o.Size < 0 {
		l.Addf("size %d is negative", o.Size)
	}
	if o.MinCount < 0 {
		l.Addf("min-count %d is negative", o.MinCount)
	}
	if o.Threads < 0 {
		l.Addf("threads %d is negative", o.Threads)
	}
	if _, ok := parseLevel(string(o.Level)); !ok && o.Level != "" {
		l.Addf("level %q; it is word, char or bert", o.Level)
	}
	if o.Compat && o.Level != LevelWord && o.Level != "" {
		l.Addf("the book's vocabulary is of level word, not %s", o.Level)
	}
	return l.Err("vocabulary")
}

// BuildReport says what was counted and what of it the vocabulary holds.
type BuildReport struct {
	Documents  int64   `json:"documents"`
	Words      int64   `json:"words"`      // occurrences
	Distinct   int     `json:"distinct"`   // different words
	Characters int     `json:"characters"` // different characters
	Tokens     int     `json:"tokens"`     // of the vocabulary
	Coverage   float64 `json:"coverage"`   // share of the occurrences that are one token
}

const defaultSize = 50000

// BuildVocab counts the words of docs and makes a vocabulary of them: the
// special tokens, then words by falling frequency (those seen earlier first
// among equals), then what lets every text of the kind be written: the
// characters that occurred, ASCII letters, digits and punctuation, and the
// "##" pieces. Text tokenized by it at the same level, with the same user
// dictionary and without folding, gives no [UNK] where it is that of docs.
//
// An error that docs yields ends the count and is returned; docs without a
// word are fault.Data (3).
func BuildVocab(ctx context.Context, docs iter.Seq2[string, error], o BuildOptions) (*Vocab, BuildReport, error) {
	if err := o.Validate(); err != nil {
		return nil, BuildReport{}, err
	}
	o.Size = cmp.Or(o.Size, defaultSize)
	o.Level = cmp.Or(o.Level, LevelWord)
	o.Threads = cmp.Or(o.Threads, runtime.GOMAXPROCS(0))
	if o.Segmenter == nil && o.Level == LevelWord {
		d, err := segment.New(segment.Options{UserDict: o.UserDict})
		if err != nil {
			return nil, BuildReport{}, err
		}
		o.Segmenter = d
	}
	c, documents, err := count(ctx, docs, o)
	if err != nil {
		return nil, BuildReport{}, err
	}
	if len(c.words)+len(c.chars) == 0 {
		return nil, BuildReport{}, fault.Data("vocabulary: the corpus holds no word (%d documents); check the files and their encoding", documents)
	}
	for w, s := range c.words {
		c.addChars(w, s.count)
	}
	r := BuildReport{Documents: documents, Distinct: len(c.words), Characters: len(c.chars)}
	v, err := NewVocab(c.assemble(o))
	if err != nil {
		return nil, BuildReport{}, err
	}
	r.Tokens = v.Len()
	held := int64(0)
	for w, s := range c.words {
		r.Words += s.count
		if _, ok := v.ids[w]; ok {
			held += s.count
		}
	}
	r.Coverage = float64(held) / float64(max(r.Words, 1))
	return v, r, nil
}

// seen is how often something occurred and where it did first.
type seen struct {
	count int64
	first place
}

// place orders the words of a corpus: document, then word in it.
type place struct{ doc, word int64 }

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.doc, q.doc), cmp.Compare(p.word, q.word))
}

// counts is what one worker, or all of them, have seen.
type counts struct {
	words map[string]*seen
	chars map[rune]int64 // of the words too long to count, then of all
	inner map[rune]int64 // those not at the start of a word
}

func newCounts() *counts {
	return &counts{words: map[string]*seen{}, chars: map[rune]int64{}, inner: map[rune]int64{}}
}

// add counts one occurrence of w at place p.
func (c *counts) add(w string, p place) {
	s := c.words[w]
	if s == nil {
		s = &seen{first: p}
		c.words[strings.Clone(w)] = s // w is part of a document, which may go
	}
	s.count++
}

// merge adds what d has seen to c.
func (c *counts) merge(d *counts) {
	for w, s := range d.words {
		if t := c.words[w]; t == nil {
			c.words[w] = s
		} else {
			t.count += s.count
			if s.first.compare(t.first) < 0 {
				t.first = s.first
			}
		}
	}
	for r, n := range d.chars {
		c.chars[r] += n
	}
	for r, n := range d.inner {
		c.inner[r] += n
	}
}

// addChars counts n occurrences of the characters of w.
func (c *counts) addChars(w string, n int64) {
	for i, r := range w {
		c.chars[r] += n
		if i > 0 {
			c.inner[r] += n
		}
	}
}

// candidate is a token that may enter a vocabulary.
type candidate struct {
	token string
	seen
}

// sorted are the candidates by falling frequency, the earlier seen first among
// equals.
func sorted(list []candidate) []candidate {
	slices.SortFunc(list, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.count, a.count), a.first.compare(b.first), strings.Compare(a.token, b.token))
	})
	return list
}

// assemble makes the list of tokens.
func (c *counts) assemble(o BuildOptions) []string {
	list := slices.Clone(specials[:])
	var words []candidate
	for w, s := range c.words {
		if s.count >= int64(o.MinCount) {
			words = append(words, candidate{w, *s})
		}
	}
	sorted(words)
	if o.Compat {
		for _, w := range words[:min(o.Size, len(words))] {
			list = append(list, w.token)
		}
		return list
	}

	chars, pieces := c.alphabet()
	room := max(0, o.Size-len(list)-len(chars)-len(pieces))
	for _, w := range words {
		if room == 0 {
			break
		}
		if utf8.RuneCountInString(w.token) > 1 && !strings.HasPrefix(w.token, "##") && !slices.Contains(list, w.token) {
			chars = append(chars, w)
			room--
		}
	}
	for _, w := range sorted(chars) {
		list = append(list, w.token)
	}
	for _, p := range sorted(pieces) {
		list = append(list, p.token)
	}
	return list
}

// alphabet are the single characters, each counted as a word of its own, and
// the "##" pieces of one character.
func (c *counts) alphabet() (chars, pieces []candidate) {
	nowhere := place{math.MaxInt64, math.MaxInt64}
	for r := rune('!'); r <= '~'; r++ {
		c.chars[r] += 0
		if isLetterOrDigit(r) {
			c.inner[r] += 0
		}
	}
	for r := range c.chars {
		s := seen{0, nowhere}
		if w := c.words[string(r)]; w != nil {
			s = *w
		}
		chars = append(chars, candidate{string(r), s})
	}
	for r, n := range c.inner {
		pieces = append(pieces, candidate{"##" + string(r), seen{n, nowhere}})
	}
	return chars, pieces
}

func isLetterOrDigit(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}
