package segment

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"promptgen/internal/fault"
)

// span is a word as the characters it covers.
type span struct{ from, to int }

func spans(words []string) map[span]bool {
	s := map[span]bool{}
	at := 0
	for _, w := range words {
		n := len([]rune(w))
		s[span{at, at + n}] = true
		at += n
	}
	return s
}

// TestScore: the words of the PKU test set of SIGHAN 2005 are found with an F1
// of at least 0.835.
func TestScore(t *testing.T) {
	text := strings.Split(shared(t, "segment", "icwb2", "pku_test.utf8"), "\n")
	gold := strings.Split(shared(t, "segment", "icwb2", "pku_test_gold.utf8"), "\n")
	d := newDictionary(t, Options{})
	right, found, there := 0, 0, 0
	for i, line := range text {
		got, want := spans(d.AppendWords(nil, strings.TrimSpace(line))), spans(strings.Fields(gold[i]))
		for s := range got {
			if want[s] {
				right++
			}
		}
		found += len(got)
		there += len(want)
	}
	f1 := 2 * float64(right) / float64(found+there)
	t.Logf("F1 %.4f, %d words", f1, found)
	if f1 < 0.835 {
		t.Errorf("F1 is %.4f, want at least 0.835", f1)
	}
}

// TestRuns: runs of letters and of digits stay whole, case stays, and only
// words of the dictionary join a run to its neighbours.
func TestRuns(t *testing.T) {
	d := newDictionary(t, Options{})
	for text, want := range map[string]string{
		"高血压患者每天10mg，":        "高血压 患者 每天 10 mg ，",
		"COVID-19和B超":         "COVID - 19 和 B超",
		"iPhone15 Pro\n2024年": "iPhone 15 Pro 2024 年",
		"C++程序员":              "C++ 程序员",
		"１９９８年Ｔ恤":             "１９９８ 年 Ｔ 恤",
		" \t\u3000":           "",
		"café Οδυσσεύς":       "café Οδυσσεύς",
	} {
		if got := strings.Join(d.AppendWords(nil, text), " "); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// TestAddedWords: words of a vocabulary and of a user dictionary are found,
// within runs' borders; a frequency decides where words compete.
func TestAddedWords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "用户 词典.txt")
	if err := os.WriteFile(path, []byte("\ufeff杭研大厦\n\n阿莫西林胶囊 100 n\r\n程序员AT nz\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := newDictionary(t, Options{UserDict: path, Words: []string{"B12", "多喝热水", "rug"}})
	for text, want := range map[string]string{
		"网易杭研大厦":      "网易 杭研大厦",
		"吃阿莫西林胶囊":     "吃 阿莫西林胶囊",
		"维生素B12和B120": "维生素 B12 和 B 120",
		"要多喝热水":       "要 多喝热水",
		"drugs rug":   "drugs rug",
	} {
		if got := strings.Join(d.AppendWords(nil, text), " "); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	plain := strings.Join(newDictionary(t, Options{}).AppendWords(nil, "要多喝热水"), " ")
	if plain != "要 多 喝 热水" {
		t.Errorf("added words have changed the shared list: %q", plain)
	}
}

// TestUserDictFaults: each names the file, in one line, with its exit code.
func TestUserDictFaults(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for path, code := range map[string]int{
		filepath.Join(dir, "none"):               fault.CodeUsage,
		file("gbk", "\xb5\xc4\n"):                fault.CodeCorrupt,
		file("frequency", "高血压 many n\n"):        fault.CodeCorrupt,
		file("line", strings.Repeat("x", 1<<17)): fault.CodeCorrupt,
		dir:                                      fault.CodeUsage,
	} {
		_, err := New(Options{UserDict: path})
		if fault.Code(err) != code || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v (%d)", path, err, fault.Code(err))
		}
	}
}

// TestBytes: the forecast knows the embedded list, and what is allocated for it.
func TestBytes(t *testing.T) {
	edges := 0
	err := unpack(packedList, func(characters int, _ uint64) { edges = characters }, func(int, []byte, uint64) {})
	if err != nil || edges != listEdges {
		t.Errorf("the list has %d characters that are not shared, the forecast %d: %v", edges, listEdges, err)
	}
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	if list, err := z.DecodeAll(packedList, nil); err != nil || len(list) != listBytes {
		t.Errorf("the list takes %d bytes, the forecast says %d: %v", len(list), listBytes, err)
	}
	for _, n := range []int{0, 1, 682, 683, 100_000, 300_000} {
		x := newTrie(n)
		got := int64(len(x.edges))*16 + int64(len(x.filter))*8 + int64(cap(x.weight))*4 + int64(len(x.first))*4
		if want := trieBytes(n); got < want || got > want+4096 { // Go rounds sizes up
			t.Errorf("%d edges take %d bytes, forecast %d", n, got, want)
		}
	}
}

// TestManyWords: however many words are added, they fit.
func TestManyWords(t *testing.T) {
	var words []string
	for i := range 40000 {
		words = append(words, string([]rune{0x4e00 + rune(i%20000), '甴', '曱', 0x4e00 + rune(i/2)}))
	}
	d := newDictionary(t, Options{Words: words})
	for _, w := range words[:50] {
		if got := d.AppendWords(nil, w); len(got) != 1 {
			t.Errorf("%q is cut into %q", w, got)
		}
	}
}

// TestNothingIsLost: the words of any text, put together, are the text without
// its white space; blocks and cutting at once agree.
func TestNothingIsLost(t *testing.T) {
	d := newDictionary(t, Options{})
	part := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"高血压患者", "10mg", " ", "\xff", "B超", "café", "，", "中华人民共和国"}))
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(part).Draw(t, "parts"), "")
		words := d.AppendWords(nil, text)
		if got, want := strings.Join(words, ""), strings.Join(strings.FieldsFunc(text, isSpace), ""); got != want {
			t.Fatalf("%q became %q", want, got)
		}
		for _, w := range words {
			if w == "" {
				t.Fatal("an empty word")
			}
		}
	})
}

// TestPack: what is packed is unpacked, and packing repeats to the byte.
func TestPack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfNDistinct(rapid.StringN(1, 20, 80), 1, 50, rapid.ID).Draw(t, "words")
		slices.Sort(words)
		var list []Entry
		for _, w := range words {
			list = append(list, Entry{w, uint64(rapid.Uint32Min(1).Draw(t, "freq"))})
		}
		var a, b bytes.Buffer
		if err := errors.Join(Pack(&a, list), Pack(&b, list)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Fatal("packing does not repeat")
		}
		var got []Entry
		err := unpack(a.Bytes(), func(int, uint64) {}, func(_ int, w []byte, f uint64) { got = append(got, Entry{string(w), f}) })
		if err != nil || !slices.Equal(got, list) {
			t.Fatalf("%v became %v (%v)", list, got, err)
		}
	})
	if err := Pack(&bytes.Buffer{}, []Entry{{"b", 1}, {"a", 1}}); err == nil {
		t.Error("a list out of order is packed")
	}
}

// TestEmbeddedList: what is embedded is jieba's list, every word and frequency.
func TestEmbeddedList(t *testing.T) {
	want := map[string]uint64{}
	for line := range strings.Lines(shared(t, "segment", "jieba_dict.txt")) {
		field := strings.Fields(line)
		freq, err := strconv.ParseUint(field[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		want[field[0]] = freq
	}
	n := 0
	err := unpack(packedList, func(int, uint64) {}, func(_ int, w []byte, freq uint64) {
		if want[string(w)] != freq {
			t.Errorf("%s: frequency %d, want %d", w, freq, want[string(w)])
		}
		n++
	})
	if err != nil || n != len(want) {
		t.Errorf("%d words, want %d (%v)", n, len(want), err)
	}
}

// FuzzLoad: a damaged list is an error, never a panic.
func FuzzLoad(f *testing.F) {
	var b bytes.Buffer
	if err := Pack(&b, []Entry{{"患者", 5}, {"高血", 1}, {"高血压", 70000}}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, packed []byte) {
		if len(packed) > 1<<12 {
			return
		}
		if loaded, err := load(packed, 0); err == nil {
			loaded.words.find("高血压")
		}
	})
}
