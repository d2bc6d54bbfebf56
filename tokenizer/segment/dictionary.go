package segment

import (
	"bufio"
	_ "embed"
	"errors"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"promptgen/internal/fault"
)

//go:generate go run promptgen/scripts/packdict -in dict.txt -out dict.bin.zst

//go:embed dict.bin.zst
var packedList []byte

// Options say what a Dictionary knows beyond the embedded list.
type Options struct {
	// UserDict is the path of a list of further words, in jieba's format: a
	// word a line, then optionally its frequency and its part of speech
	// (not used). "" is none. A word without a frequency gets one that is
	// just enough for it to be found.
	UserDict string
	// Words are further words without frequencies: those of a vocabulary, so
	// that what it holds is found in the text.
	Words []string
}

// Dictionary is the maximum-probability segmenter. It does not change after
// New and is safe for concurrent use.
type Dictionary struct {
	words   *trie
	unknown float32 // weight of a character that is no word of the list
	scratch sync.Pool
}

// base is the embedded list as a trie.
type base struct {
	words    *trie
	logTotal float64
}

// embedded is the list alone, built at first use, shared and never written to.
var embedded = sync.OnceValues(func() (base, error) { return load(packedList, 0) })

// listEdges is how many edges the embedded list has, and listBytes its size unpacked,
// which is let go once the trie stands.
const (
	listEdges = 498_113
	listBytes = 2_573_331
)

// Bytes is the memory that a Dictionary takes, and the making of it, with words of
// so many characters in all beside the embedded list.
func Bytes(characters int) int64 { return trieBytes(listEdges+characters) + listBytes }

// load builds the trie of a packed list with room for extra more edges.
func load(packed []byte, extra int) (base, error) {
	var (
		t        *trie
		path     [math.MaxUint8 + 1]int32 // node after each byte of the word, at the ends of characters
		logTotal float64
		logs     logTable
	)
	err := unpack(packed,
		func(characters int, total uint64) {
			t = newTrie(characters + extra)
			logTotal = math.Log(float64(total))
		},
		func(shared int, word []byte, freq uint64) {
			node := path[shared]
			for i := shared; i < len(word); {
				r, n := utf8.DecodeRune(word[i:])
				node = t.insert(node, r) // new, for the list is sorted
				i += n
				path[i] = node
			}
			t.weight[node] = float32(logs.of(freq) - logTotal)
		})
	if err != nil {
		return base{}, err
	}
	return base{t, logTotal}, nil
}

// logTable remembers logarithms of small numbers: most frequencies are small.
type logTable [1 << 10]float64

func (t *logTable) of(n uint64) float64 {
	if n >= uint64(len(t)) {
		return math.Log(float64(n))
	}
	if t[n] == 0 {
		t[n] = math.Log(float64(n))
	}
	return t[n]
}

// New makes a Dictionary of the embedded list and what o adds to it. A user
// dictionary that is missing is a usage error (2), one that cannot be read as
// such is corrupt (5); both name the file, and the line.
func New(o Options) (*Dictionary, error) {
	user, err := readUserDict(o.UserDict)
	if err != nil {
		return nil, err
	}
	need := 0
	for _, e := range user {
		need += utf8.RuneCountInString(e.Word)
	}
	for _, w := range o.Words {
		need += utf8.RuneCountInString(w)
	}
	var b base
	if need == 0 {
		b, err = embedded()
	} else { // a copy of the shared one would take its memory twice
		b, err = load(packedList, need)
	}
	if err != nil {
		return nil, fault.With(fault.CodeCorrupt, err)
	}
	d := &Dictionary{words: b.words, unknown: float32(-b.logTotal)}
	d.scratch.New = func() any { return new(lattice) }
	d.join(user, o.Words, b.logTotal)
	return d, nil
}

// join adds the user's words, then those without a frequency. These get the
// probability of the best way to write them with the words there were before,
// and a little more, so that they are preferred to their parts.
func (d *Dictionary) join(user []Entry, words []string, logTotal float64) {
	const little = 1e-2
	var weights []float32
	var names []string
	bare := func(w string) {
		if w == "" || d.words.find(w) != 0 {
			return
		}
		names = append(names, w)
		weights = append(weights, min(max(d.bestWeight(w), d.unknown)+little, -little))
	}
	for _, e := range user {
		if e.Freq == 0 {
			bare(e.Word)
		}
	}
	for _, w := range words {
		bare(w)
	}
	for _, e := range user {
		if e.Freq > 0 {
			d.words.add(e.Word, float32(min(math.Log(float64(e.Freq))-logTotal, -little)))
		}
	}
	for i, w := range names {
		d.words.add(w, weights[i])
	}
}

// readUserDict reads a user dictionary; no path is an empty one.
func readUserDict(path string) ([]Entry, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Usage("user dictionary %s: no such file", path)
	} else if err != nil {
		return nil, fault.Usage("user dictionary: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, fault.Usage("user dictionary %s: is a folder; name a file", path)
	}
	var list []Entry
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if n == 1 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		if !utf8.ValidString(line) {
			return nil, fault.Corrupt("user dictionary %s:%d: not UTF-8; convert the file", path, n)
		}
		field := strings.Fields(line)
		if len(field) == 0 {
			continue
		}
		e := Entry{Word: field[0]}
		if len(field) > 1 {
			if freq, err := strconv.ParseUint(field[1], 10, 32); err == nil {
				e.Freq = freq
			} else if len(field) > 2 {
				return nil, fault.Corrupt("user dictionary %s:%d: frequency %q is no number; a line is a word, its frequency, its part of speech", path, n, field[1])
			}
		}
		list = append(list, e)
	}
	if err := lines.Err(); err != nil {
		return nil, fault.Corrupt("user dictionary %s: %w", path, err)
	}
	return list, nil
}
