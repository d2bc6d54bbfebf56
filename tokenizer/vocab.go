package tokenizer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"promptgen/internal/atomicdir"
	"promptgen/internal/fault"
)

// The special tokens. Documents are framed [MASK] … [CLS], [SEP] stands for a
// line feed inside one.
const (
	UNK  = "[UNK]"
	SEP  = "[SEP]"
	PAD  = "[PAD]"
	CLS  = "[CLS]"
	MASK = "[MASK]"
)

// specials are the five in the order in which our vocabularies begin.
var specials = [...]string{SEP, CLS, MASK, PAD, UNK}

// maxVocabBytes is far beyond any vocabulary; a larger file is another thing.
const maxVocabBytes = 64 << 20

// Special holds the ids of the special tokens.
type Special struct{ UNK, SEP, PAD, CLS, MASK int32 }

// Vocab is a list of tokens; a token's id is its place. It does not change.
type Vocab struct {
	tokens  []string
	ids     map[string]int32
	special Special
	notes   []string
	hash    func() string
	cased   func() bool
}

// NewVocab makes a vocabulary of tokens in the order of their ids. A token
// that is there twice has the later id (Notes tells). All five special tokens
// must be there; the error is fault.Corrupt.
func NewVocab(tokens []string) (*Vocab, error) {
	v := &Vocab{tokens: slices.Clone(tokens), ids: make(map[string]int32, len(tokens))}
	double, first := 0, ""
	for id, tok := range v.tokens {
		if _, ok := v.ids[tok]; ok {
			if double++; double == 1 {
				first = tok
			}
		}
		v.ids[tok] = int32(id)
	}
	if double > 0 {
		v.note("%d tokens are there more than once (the first: %q); the last of each counts", double, first)
	}
	var missing []string
	for _, tok := range specials {
		if _, ok := v.ids[tok]; !ok {
			missing = append(missing, tok)
		}
	}
	if len(missing) > 0 {
		return nil, fault.Corrupt("vocabulary of %d tokens lacks %s; add the missing line or take another vocabulary", len(tokens), strings.Join(missing, " "))
	}
	v.special = Special{UNK: v.ids[UNK], SEP: v.ids[SEP], PAD: v.ids[PAD], CLS: v.ids[CLS], MASK: v.ids[MASK]}
	v.hash = sync.OnceValue(v.sum)
	v.cased = sync.OnceValue(v.hasCapitals)
	return v, nil
}

// ReadVocab reads a vocabulary file: a token a line, in UTF-8; lines end in
// LF, CRLF or CR, the last one may lack its end. A file that is not there is a
// usage error (2), one that is no vocabulary is corrupt (5); both name it.
func ReadVocab(path string) (*Vocab, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Usage("vocabulary %s: no such file; make one with `promptgen vocab`", path)
	} else if err != nil {
		return nil, fault.Usage("vocabulary: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, fault.Usage("vocabulary %s: is a folder; name the file in it", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxVocabBytes+1))
	if err != nil {
		return nil, fmt.Errorf("vocabulary %s: %w", path, err)
	}
	v, err := ParseVocab(b)
	if err != nil {
		return nil, fault.Corrupt("%s: %w", path, err)
	}
	return v, nil
}

// ParseVocab reads a vocabulary from the bytes of its file.
func ParseVocab(b []byte) (*Vocab, error) {
	switch {
	case len(b) == 0:
		return nil, fault.Corrupt("vocabulary is empty")
	case len(b) > maxVocabBytes:
		return nil, fault.Corrupt("vocabulary is larger than %d MiB; this is another kind of file", maxVocabBytes>>20)
	case bytes.IndexByte(b, 0) >= 0:
		return nil, fault.Corrupt("vocabulary holds a zero byte; this is no text file")
	case !utf8.Valid(b):
		return nil, fault.Corrupt("vocabulary is not UTF-8; convert it")
	}
	text, marked := strings.CutPrefix(string(b), "\ufeff")
	text = strings.ReplaceAll(text, "\r\n", "\n")
	text = strings.ReplaceAll(text, "\r", "\n")
	v, err := NewVocab(strings.Split(strings.TrimSuffix(text, "\n"), "\n"))
	if err == nil && marked {
		v.note("a byte order mark was left out of the first token")
	}
	return v, err
}

// WriteFile writes v to path, a token a line, whole or not at all.
func (v *Vocab) WriteFile(ctx context.Context, path string) error {
	return atomicdir.WriteFile(ctx, path, func(w io.Writer) error {
		_, err := io.WriteString(w, strings.Join(v.tokens, "\n")+"\n")
		return err
	})
}

func (v *Vocab) note(format string, args ...any) {
	v.notes = append(v.notes, fmt.Sprintf(format, args...))
}

// Len is the number of tokens; ids go from 0 to Len-1.
func (v *Vocab) Len() int { return len(v.tokens) }

// ID is the id of tok and whether the vocabulary has it.
func (v *Vocab) ID(tok string) (int32, bool) { id, ok := v.ids[tok]; return id, ok }

// Token is the token of id, "[UNK]" where id is none.
func (v *Vocab) Token(id int32) string {
	if id < 0 || int(id) >= len(v.tokens) {
		return UNK
	}
	return v.tokens[id]
}

// Tokens is a copy of the list.
func (v *Vocab) Tokens() []string { return slices.Clone(v.tokens) }

// Special gives the ids of the special tokens.
func (v *Vocab) Special() Special { return v.special }

// Notes says what was found in the vocabulary that its owner may want to know.
func (v *Vocab) Notes() []string { return slices.Clone(v.notes) }

// Hash identifies the vocabulary: SHA-256, in hexadecimal, of its tokens
// joined by line feeds.
func (v *Vocab) Hash() string { return v.hash() }

func (v *Vocab) sum() string {
	h := sha256.New()
	for i, tok := range v.tokens {
		if i > 0 {
			h.Write([]byte{'\n'})
		}
		io.WriteString(h, tok)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// LowerCaseByDefault reports whether the vocabulary has no capital letters,
// tokens in brackets aside: then text has to be lower-cased to be found.
func (v *Vocab) LowerCaseByDefault() bool { return !v.cased() }

func (v *Vocab) hasCapitals() bool {
	for _, tok := range v.tokens {
		if !bracketed(tok) && strings.ContainsFunc(tok, unicode.IsUpper) {
			return true
		}
	}
	return false
}

// bracketed reports names like [UNK] and <S>, which are no words of a text.
func bracketed(tok string) bool {
	n := len(tok)
	return n > 2 && (tok[0] == '[' && tok[n-1] == ']' || tok[0] == '<' && tok[n-1] == '>')
}
