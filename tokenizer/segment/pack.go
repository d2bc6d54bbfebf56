package segment

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
)

// The embedded form of the word list is sorted and front-coded, column by
// column, so that equals lie side by side for the compressor:
//
//	words, bytes of the rests, sum of all frequencies   uvarint each
//	bytes shared with the word before           one byte a word
//	bytes of the rest                           one byte a word
//	the rests, one after another
//	frequencies                                 uvarint each
//
// and that compressed by zstd. Only whole characters are shared. Sorted words
// also build the trie quickest: the walk starts where the word before left off,
// and each character of the rests is exactly one edge.

// Entry is a word of a list and how often it was counted.
type Entry struct {
	Word string
	Freq uint64
}

// Pack writes the embedded form of a list that is sorted by Word (bytewise),
// without duplicates, with words of 1 to 255 bytes. It is what scripts/packdict
// calls; the same list always gives the same bytes.
func Pack(w io.Writer, list []Entry) error {
	var shared, rest, tails, freqs []byte
	total := uint64(0)
	last := ""
	for _, e := range list {
		if e.Word <= last || len(e.Word) > math.MaxUint8 {
			return fmt.Errorf("word list: %q is out of order, twice there, or longer than 255 bytes", e.Word)
		}
		n := 0
		for n < len(last) && n < len(e.Word) && last[n] == e.Word[n] {
			n++
		}
		for n < len(e.Word) && !utf8.RuneStart(e.Word[n]) {
			n--
		}
		shared = append(shared, byte(n))
		rest = append(rest, byte(len(e.Word)-n))
		tails = append(tails, e.Word[n:]...)
		freqs = binary.AppendUvarint(freqs, e.Freq)
		total += e.Freq
		last = e.Word
	}
	head := binary.AppendUvarint(nil, uint64(len(list)))
	head = binary.AppendUvarint(head, uint64(len(tails)))
	head = binary.AppendUvarint(head, total)

	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	_, err = w.Write(z.EncodeAll(slices.Concat(head, shared, rest, tails, freqs), nil))
	return err
}

// unpack calls start with the number of characters that are not shared and
// the sum of frequencies, then
// each with every word of a packed list, in order; word is only good until
// each returns. Damage is an error, never a panic.
func unpack(packed []byte, start func(characters int, total uint64), each func(shared int, word []byte, freq uint64)) error {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	b, err := z.DecodeAll(packed, nil)
	if err != nil {
		return fmt.Errorf("word list: %w", err)
	}
	damaged := fmt.Errorf("word list: cut short or damaged")
	var head [3]uint64
	for i := range head {
		n := 0
		if head[i], n = binary.Uvarint(b); n <= 0 {
			return damaged
		}
		b = b[n:]
	}
	words, suffix, total := head[0], head[1], head[2]
	if words > uint64(len(b)) || suffix > uint64(len(b)) || 2*words+suffix > uint64(len(b)) {
		return damaged
	}
	shared, rest := b[:words], b[words:2*words]
	tails, freqs := b[2*words:2*words+suffix], b[2*words+suffix:]
	start(utf8.RuneCount(tails), total)

	word := make([]byte, 0, 2*math.MaxUint8)
	for i := range shared {
		keep, add := int(shared[i]), int(rest[i])
		freq, n := binary.Uvarint(freqs)
		if keep > len(word) || add > len(tails) || n <= 0 {
			return damaged
		}
		word = append(word[:keep], tails[:add]...)
		if keep+add > math.MaxUint8 || !utf8.Valid(word[keep:]) {
			return damaged
		}
		tails, freqs = tails[add:], freqs[n:]
		each(keep, word, freq)
	}
	return nil
}
