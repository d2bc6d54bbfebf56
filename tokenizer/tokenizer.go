package tokenizer

import (
	"strings"
	"sync"
	"unicode/utf8"

	"promptgen/internal/fault"
	"promptgen/tokenizer/segment"
)

// Options say how text is tokenized.
type Options struct {
	// Level is what a token stands for; "" is LevelWord.
	Level Level
	// LowerCase folds the text: lower case, accents removed. Take
	// Vocab.LowerCaseByDefault unless the user says otherwise.
	LowerCase bool
	// Segmenter finds the words at the word level. nil is the dictionary
	// segmenter with the vocabulary's words and those of UserDict.
	Segmenter segment.Segmenter
	// UserDict is the path of a user dictionary for that segmenter; "" is none.
	UserDict string
	// Compat reproduces the original to the letter at the word level: digits
	// are set apart, and a word that has no pieces is one [UNK].
	Compat bool
}

// Tokenizer turns text into ids and back. It is safe for concurrent use.
type Tokenizer struct {
	vocab   *Vocab
	options Options
	pre     pretokenizer
	pieces  pieces
	scratch sync.Pool // *[]string: the words of a stretch of text
}

// New makes a tokenizer over v.
func New(v *Vocab, o Options) (*Tokenizer, error) {
	if o.Level == "" {
		o.Level = LevelWord
	}
	if _, ok := parseLevel(string(o.Level)); !ok {
		return nil, fault.Usage("tokenizer: level %q; it is word, char or bert", o.Level)
	}
	seg := o.Segmenter
	if seg == nil && o.Level == LevelWord {
		d, err := segment.New(segment.Options{UserDict: o.UserDict, Words: v.words()})
		if err != nil {
			return nil, err
		}
		seg = d
	}
	t := &Tokenizer{vocab: v, options: o}
	t.pre = newPretokenizer(o.Level, o.LowerCase, o.Compat, seg)
	t.pieces = newPieces(v)
	t.scratch.New = func() any { return new([]string) }
	return t, nil
}

// Bytes is the memory that a tokenizer over v takes beside v itself; userDict is
// the size of a user dictionary's file.
func Bytes(v *Vocab, l Level, userDict int64) int64 {
	if l != LevelWord && l != "" {
		return 0
	}
	characters := int(userDict) // at most one a byte
	for _, w := range v.words() {
		characters += utf8.RuneCountInString(w)
	}
	return segment.Bytes(characters)
}

// words are the tokens that occur as words in a text: not the special ones,
// not the pieces of words, nothing with white space.
func (v *Vocab) words() []string {
	var list []string
	for _, tok := range v.tokens {
		if !bracketed(tok) && !strings.HasPrefix(tok, "##") && !strings.ContainsFunc(tok, isSpace) {
			list = append(list, tok)
		}
	}
	return list
}

// Vocab is the vocabulary.
func (t *Tokenizer) Vocab() *Vocab { return t.vocab }

// Level is what a token stands for.
func (t *Tokenizer) Level() Level { return t.options.Level }

// Options are those that the tokenizer was made with.
func (t *Tokenizer) Options() Options { return t.options }

// Encode gives the ids of text.
func (t *Tokenizer) Encode(text string) []int32 { return t.AppendEncode(nil, text) }

// AppendEncode appends the ids of text to dst. Special tokens that are written
// out in the text, like "[SEP]", stand for themselves.
func (t *Tokenizer) AppendEncode(dst []int32, text string) []int32 {
	buf := t.scratch.Get().(*[]string)
	defer t.scratch.Put(buf)
	t.pre.each(text, buf, func(words []string) {
		for _, w := range words {
			dst = t.appendWord(dst, w)
		}
	}, func(special string) {
		dst = append(dst, t.vocab.ids[special])
	})
	return dst
}

// appendWord appends the ids of a word of the pretokenizer.
func (t *Tokenizer) appendWord(dst []int32, w string) []int32 {
	switch o := &t.options; {
	case w == "":
		return dst
	case o.Level == LevelWord && o.Compat:
		return t.appendParts(dst, w, false)
	case o.Level == LevelWord:
		if id, ok := t.vocab.ids[w]; ok { // what the vocabulary holds is found as it stands
			return append(dst, id)
		}
		return t.appendParts(dst, w, true)
	default: // a cased vocabulary is of our own making and can write every word
		return t.pieces.append(dst, w, o.Level == LevelChar && !o.LowerCase && !o.Compat)
	}
}

// appendParts folds a word of the segmenter and appends the ids of what lies
// between and of its punctuation.
func (t *Tokenizer) appendParts(dst []int32, w string, mixed bool) []int32 {
	c := t.pre.classesIn(w)
	if mixed && t.options.LowerCase && c&classFold != 0 {
		w = fold(w)
		c = t.pre.classesIn(w)
		if id, ok := t.vocab.ids[w]; ok && w != "" {
			return append(dst, id)
		}
	}
	var parts [8]string
	for _, part := range t.pre.appendSplit(parts[:0], w, c) {
		dst = t.pieces.append(dst, part, mixed)
	}
	return dst
}
