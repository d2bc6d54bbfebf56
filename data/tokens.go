package data

import (
	"sort"

	"promptgen/internal/fault"
)

// Tokens is one split of a set: a stream of token ids, document after document,
// that may be far larger than memory. Its methods may be called concurrently.
type Tokens struct {
	parts     []part  // in order
	ends      []int64 // ends[i] is the number of tokens in parts[:i+1]
	stats     Stats
	vocabSize int
}

// part is a stretch of the stream: a shard file, or memory.
type part interface {
	len() int64
	read(dst []int32, off int64) error // off+len(dst) lies within the part
	name() string
	close() error
}

// Stats are the counts of a split, kept in the manifest.
type Stats struct {
	Docs   int64 `json:"documents"`
	Tokens int64 `json:"tokens"` // frames and separators included
	Unk    int64 `json:"unk"`    // [UNK] among them
	Chars  int64 `json:"characters"`
}

// add sums up.
func (s *Stats) add(o Stats) {
	s.Docs += o.Docs
	s.Tokens += o.Tokens
	s.Unk += o.Unk
	s.Chars += o.Chars
}

// UnkShare is the share of [UNK] among the tokens.
func (s Stats) UnkShare() float64 {
	if s.Tokens == 0 {
		return 0
	}
	return float64(s.Unk) / float64(s.Tokens)
}

// NewTokens is a stream that lies in memory. ids is kept, not copied.
func NewTokens(ids []int32, stats Stats, vocabSize int) *Tokens {
	stats.Tokens = int64(len(ids))
	return newTokens([]part{memory[int32]{"tokens in memory", ids}}, stats, vocabSize)
}

func newTokens(parts []part, stats Stats, vocabSize int) *Tokens {
	t := &Tokens{parts: parts, stats: stats, vocabSize: vocabSize}
	var end int64
	for _, p := range parts {
		end += p.len()
		t.ends = append(t.ends, end)
	}
	return t
}

// Len is the number of tokens.
func (t *Tokens) Len() int64 {
	if len(t.ends) == 0 {
		return 0
	}
	return t.ends[len(t.ends)-1]
}

// Docs is the number of documents.
func (t *Tokens) Docs() int64 { return t.stats.Docs }

// Stats are the counts of the stream.
func (t *Tokens) Stats() Stats { return t.stats }

// VocabSize is what every id lies below.
func (t *Tokens) VocabSize() int { return t.vocabSize }

// ReadAt fills dst with the tokens from off on. A block of a shard that is used
// for the first time is checked against its checksum, and every id against the
// vocabulary's size; what fails is fault.Corrupt and names the file.
func (t *Tokens) ReadAt(dst []int32, off int64) error {
	if off < 0 || off+int64(len(dst)) > t.Len() {
		return fault.Data("tokens %d to %d were asked for, and there are %d", off, off+int64(len(dst)), t.Len())
	}
	i := sort.Search(len(t.ends), func(i int) bool { return t.ends[i] > off })
	for ; len(dst) > 0; i++ {
		p := t.parts[i]
		begin := t.ends[i] - p.len()
		n := min(int64(len(dst)), t.ends[i]-off)
		if err := p.read(dst[:n], off-begin); err != nil {
			return err
		}
		for j, id := range dst[:n] {
			if uint32(id) >= uint32(t.vocabSize) {
				return fault.Corrupt("%s: token %d is id %d, and the vocabulary has %d tokens; tokenize the corpus again with it", p.name(), off-begin+int64(j), id, t.vocabSize)
			}
		}
		dst, off = dst[n:], off+n
	}
	return nil
}

// Close closes the shards.
func (t *Tokens) Close() error {
	var first error
	for _, p := range t.parts {
		if err := p.close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// memory is a part that was read whole.
type memory[T uint16 | int32] struct {
	from string
	ids  []T
}

func (m memory[T]) len() int64   { return int64(len(m.ids)) }
func (m memory[T]) name() string { return m.from }
func (m memory[T]) close() error { return nil }

func (m memory[T]) read(dst []int32, off int64) error {
	for i, id := range m.ids[off : off+int64(len(dst))] {
		dst[i] = int32(id)
	}
	return nil
}
