package data

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"

	"promptgen/internal/fault"
)

// read gives the texts of a corpus, what was noticed, and the error that ended it.
func read(t testing.TB, o CorpusOptions, paths ...string) (texts, notices []string, err error) {
	t.Helper()
	o.Notice = func(s string) { notices = append(notices, s) }
	for d, e := range Documents(t.Context(), paths, o) {
		if e != nil {
			return texts, notices, e
		}
		if !utf8.ValidString(d.Text) {
			t.Errorf("invalid UTF-8 was handed on: %q", d.Text)
		}
		texts = append(texts, d.Text)
	}
	return texts, notices, nil
}

func TestTextDocuments(t *testing.T) {
	for _, c := range []struct {
		name, content string
		o             CorpusOptions
		want          []string
	}{
		{"blank lines separate", "a\nb\n\n\nc\n", CorpusOptions{}, []string{"a\nb", "c"}},
		{"a blank line may hold spaces", "a\n \u3000\t\nb", CorpusOptions{}, []string{"a", "b"}},
		{"Windows line ends", "a\r\nb\r\n\r\nc\r\n", CorpusOptions{}, []string{"a\nb", "c"}},
		{"old Macintosh line ends", "a\rb\r\rc", CorpusOptions{}, []string{"a\nb", "c"}},
		{"a line a document", "a\n\n b \nc", CorpusOptions{DocPerLine: true}, []string{"a", "b", "c"}},
		{"as the original reads", " a\n\nb\x1f\r\n", CorpusOptions{Compat: true}, []string{"a", "", "b"}},
		{"a mark at the start", "\ufeffa", CorpusOptions{}, []string{"a"}},
		{"no text", "\n \n", CorpusOptions{}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _, err := read(t, c.o, write(t, "f.txt", c.content))
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %q (%v), want %q", got, err, c.want)
			}
		})
	}
}

func TestJSONDocuments(t *testing.T) {
	for _, c := range []struct {
		name, file, content string
		o                   CorpusOptions
		want                []string
	}{
		{"a list of strings", "f.json", `["a\r\nb", "", "c"]`, CorpusOptions{}, []string{"a\nb", "c"}},
		{"as the original keeps them", "f.json", `["a\nb", "", "c"]`, CorpusOptions{Compat: true}, []string{"a\nb", "", "c"}},
		{"a list of objects", "f.json", ` [{"text":"a","x":1},{"text":"b"}]`, CorpusOptions{}, []string{"a", "b"}},
		{"an empty list", "f.json", `[]`, CorpusOptions{}, nil},
		{"values in a row", "f.json", `"a" {"text":"b"}`, CorpusOptions{}, []string{"a", "b"}},
		{"null is no text", "f.json", `[null, {"text":null}, "a", null]`, CorpusOptions{}, []string{"a"}},
		{"a dotted field", "f.jsonl", "{\"qa\": { \"answer\" : \"a\"}}\n\n{\"qa\":{\"answer\":\"b\"}}", CorpusOptions{TextField: "qa.answer"}, []string{"a", "b"}},
		{"strings and objects, a line each", "f.jsonl", "\"a\"\r\n{\"text\":\"b\"}\r\n", CorpusOptions{}, []string{"a", "b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _, err := read(t, c.o, write(t, c.file, c.content))
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %q (%v), want %q", got, err, c.want)
			}
		})
	}
}

// What is wrong with a JSON file is told with its place and the right exit code.
func TestJSONFaults(t *testing.T) {
	for _, c := range []struct {
		file, content string
		code          int
		say           []string
	}{
		{"f.json", `["a", "b`, fault.CodeCorrupt, []string{"f.json", "entry 2"}},
		{"f.json", `["a" "b"]`, fault.CodeCorrupt, []string{"f.json", "entry 2"}},
		{"f.json", `["a"] ["b"]`, fault.CodeCorrupt, []string{"f.json", "follows the list"}},
		{"f.json", `[{"body":"a","id":7}]`, fault.CodeData, []string{"entry 1", `"text"`, "body, id", "--text-field"}},
		{"f.json", `[7]`, fault.CodeData, []string{"7 is not a string"}},
		{"f.jsonl", "\"a\"\n{\"text\": 1}", fault.CodeData, []string{"f.jsonl:2", "1 is not a string"}},
		{"f.jsonl", "\"a\"\n\n{\"text\": ", fault.CodeCorrupt, []string{"f.jsonl:3"}},
	} {
		_, _, err := read(t, CorpusOptions{}, write(t, c.file, c.content))
		code(t, err, c.code, c.say...)
	}
}

const someChinese = "高血压患者能吃党参吗？\n高血压病人可以口服党参的。党参有降血脂，降血压的作用。\n\n糖尿病还会进行遗传吗？2型糖尿病的隔代遗传概率较高。\n"
const someTaiwanese = "高血壓患者能吃黨參嗎？\n高血壓病人可以口服黨參的。黨參有降血脂，降血壓的作用。\n\n糖尿病還會進行遺傳嗎？2型糖尿病的隔代遺傳概率較高。\n"

// Every encoding that users bring is told from the others, and read.
func TestEncodings(t *testing.T) {
	utf16 := func(e unicode.Endianness, b unicode.BOMPolicy) encoding.Encoding { return unicode.UTF16(e, b) }
	four := func(e utf32.Endianness) encoding.Encoding { return utf32.UTF32(e, utf32.UseBOM) }
	for _, c := range []struct {
		name, text string
		enc        encoding.Encoding
	}{
		{"UTF-8", someChinese, encoding.Nop},
		{"GB18030", someChinese, simplifiedchinese.GB18030},
		{"GB18030", someChinese, simplifiedchinese.GBK},
		{"GB18030", someChinese + "𠮷\n", simplifiedchinese.GB18030},
		{"Big5", someTaiwanese, traditionalchinese.Big5},
		{"UTF-16LE", someChinese, utf16(unicode.LittleEndian, unicode.UseBOM)},
		{"UTF-16BE", someChinese, utf16(unicode.BigEndian, unicode.UseBOM)},
		{"UTF-16LE", someChinese, utf16(unicode.LittleEndian, unicode.IgnoreBOM)},
		{"UTF-16BE", someChinese, utf16(unicode.BigEndian, unicode.IgnoreBOM)},
		{"UTF-32LE", someChinese + "𠮷\n", four(utf32.LittleEndian)},
		{"UTF-32BE", someChinese + "𠮷\n", four(utf32.BigEndian)},
	} {
		for _, copies := range []int{1, 3000} { // longer than what is looked at, as well
			text := strings.Repeat(c.text, copies)
			b, err := c.enc.NewEncoder().String(text)
			if err != nil {
				t.Fatal(err)
			}
			want, _, _ := read(t, CorpusOptions{}, write(t, "u.txt", text))
			got, notices, err := read(t, CorpusOptions{}, write(t, "f.txt", b))
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s ×%d: got %.200q (%v)", c.name, copies, got, err)
			}
			if c.name != "UTF-8" && (len(notices) != 1 || !strings.Contains(notices[0], c.name)) {
				t.Errorf("%s ×%d: noticed %q", c.name, copies, notices)
			}
		}
	}
}

// Invalid bytes are counted, told and left out; they end nothing.
func TestInvalidBytes(t *testing.T) {
	text := strings.Repeat("高血压患者能吃党参吗\n", 10)
	got, notices, err := read(t, CorpusOptions{DocPerLine: true}, write(t, "f.txt", text+"a\xff\xfeb\n"+text))
	if err != nil || len(got) != 21 || got[10] != "a\uFFFDb" {
		t.Fatalf("got %d documents, %q (%v)", len(got), got[10], err)
	}
	if len(notices) != 1 || !strings.Contains(notices[0], "2 bytes") {
		t.Errorf("noticed %q", notices)
	}
}

// Files that hold no text, or are not what they are called, each get a line.
func TestStrangeFiles(t *testing.T) {
	good := write(t, "good.txt", "一\n")
	zeros := write(t, "zeros.txt", strings.Repeat("\x00", 1<<20))
	empty := write(t, "empty.txt", "")
	blank := write(t, "blank.txt", "\n\n")
	picture := write(t, "picture.txt", "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x01\x00\x02\x03\x04\x05")
	got, notices, err := read(t, CorpusOptions{}, zeros, empty, good, blank, picture)
	if err != nil || !slices.Equal(got, []string{"一"}) {
		t.Fatalf("got %q (%v)", got, err)
	}
	for i, want := range []string{"zeros.txt: passed over", "empty.txt: empty", "blank.txt: holds no text", "picture.txt: passed over"} {
		if i >= len(notices) || !strings.Contains(notices[i], want) {
			t.Errorf("notice %d: %q, want %q", i, notices, want)
		}
	}
	_, _, err = read(t, CorpusOptions{}, write(t, "f.txt.gz", "not compressed"))
	code(t, err, fault.CodeCorrupt, "f.txt.gz")
}

func compressed(t testing.TB, text string) (gz, zst string) {
	t.Helper()
	var g bytes.Buffer
	w := gzip.NewWriter(&g)
	io.WriteString(w, text)
	w.Close()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return g.String(), string(z.EncodeAll([]byte(text), nil))
}

func TestCompressed(t *testing.T) {
	gz, zst := compressed(t, strings.Repeat(someChinese, 100))
	want, _, _ := read(t, CorpusOptions{}, write(t, "f.txt", strings.Repeat(someChinese, 100)))
	for name, b := range map[string]string{"f.txt.gz": gz, "f.TXT.zst": zst, "f": gz} {
		got, notices, err := read(t, CorpusOptions{}, write(t, name, b))
		if err != nil || !slices.Equal(got, want) || len(notices) > 0 {
			t.Errorf("%s: %d documents, %q (%v)", name, len(got), notices, err)
		}
		_, _, err = read(t, CorpusOptions{}, write(t, name, b[:len(b)-9]))
		code(t, err, fault.CodeCorrupt, name)
	}
	got, _, err := read(t, CorpusOptions{Stdin: strings.NewReader(gz)}, Stdin)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("standard input: %d documents (%v)", len(got), err)
	}
	got, _, err = read(t, CorpusOptions{Stdin: strings.NewReader(`{"a":{"b":"c"}}`), TextField: "a.b"}, Stdin)
	if err != nil || !slices.Equal(got, []string{"c"}) {
		t.Errorf("standard input as JSON lines: %q (%v)", got, err)
	}
}

// A text without an end is cut, at line ends or between characters, and nothing
// of it is lost.
func TestEndlessDocument(t *testing.T) {
	for _, unit := range []string{"高血压患者\n", "高血压患者"} {
		text := strings.TrimSpace(strings.Repeat(unit, 5<<20/len(unit)))
		for _, name := range []string{"f.txt", "f.json"} {
			content := text
			if name == "f.json" {
				content = "[" + strconv.Quote(text) + "]"
			}
			got, notices, err := read(t, CorpusOptions{}, write(t, name, content))
			if err != nil || len(notices) != 1 || !strings.Contains(notices[0], "cut") {
				t.Fatalf("%s: noticed %q (%v)", name, notices, err)
			}
			sep := unit[len("高血压患者"):]
			if strings.Join(got, sep) != text {
				t.Errorf("%s: text was lost or changed", name)
			}
			for _, d := range got {
				if len(d) > maxDocument {
					t.Errorf("%s: a document of %d bytes", name, len(d))
				}
			}
		}
	}
}

// A line without an end is cut where every line is a document, which is told once;
// as the original reads it stays one entry, or its list would be another.
func TestEndlessLine(t *testing.T) {
	text := strings.Repeat("高血压患者", 9<<20/15)
	path := write(t, "f.txt", "一\n"+text+"\n二\n")
	got, notices, err := read(t, CorpusOptions{DocPerLine: true}, path)
	if err != nil || len(notices) != 1 || !strings.Contains(notices[0], "cut") {
		t.Fatalf("noticed %q (%v)", notices, err)
	}
	if len(got) != 5 || strings.Join(got, "") != "一"+text+"二" {
		t.Errorf("%d documents, or text was lost", len(got))
	}
	got, notices, err = read(t, CorpusOptions{Compat: true}, path)
	if err != nil || len(notices) > 0 || !slices.Equal(got, []string{"一", text, "二"}) {
		t.Errorf("as the original reads: %d entries, noticed %q (%v)", len(got), notices, err)
	}
}

// A document just as long as one may be is whole, and nothing is told.
func TestLongestDocument(t *testing.T) {
	text := strings.Repeat("a", maxDocument)
	for _, perLine := range []bool{false, true} {
		got, notices, err := read(t, CorpusOptions{DocPerLine: perLine}, write(t, "f.txt", "b\n\n"+text+"\r\n\r\nc"))
		if err != nil || len(notices) > 0 || !slices.Equal(got, []string{"b", text, "c"}) {
			t.Errorf("%d documents, noticed %q (%v)", len(got), notices, err)
		}
	}
}

// A file without \n is long, and none of its lines is: nothing is cut.
func TestLoneReturns(t *testing.T) {
	const line = "高血压患者a"
	n := 6 << 20 / len(line)
	for _, o := range []CorpusOptions{{DocPerLine: true}, {Compat: true}} {
		got, notices, err := read(t, o, write(t, "f.txt", strings.Repeat(line+"\r", n)))
		if err != nil || len(notices) > 0 || len(got) != n {
			t.Fatalf("%d lines of %d, noticed %q (%v)", len(got), n, notices, err)
		}
		if at := slices.IndexFunc(got, func(s string) bool { return s != line }); at >= 0 {
			t.Errorf("line %d is %q", at, got[at])
		}
	}
}

// The two bytes of \r\n are one end wherever a read ends, between them too.
func TestLineEndAcrossReads(t *testing.T) {
	const lone = 64<<10 - 2
	for shift := range 4 {
		l := newLines(strings.NewReader(strings.Repeat("a", shift)+strings.Repeat("a\r", lone)+"b\r\nc\r\n"), maxLine, nil)
		var got []string
		for line, err := l.next(); err == nil; line, err = l.next() {
			got = append(got, string(line))
		}
		if len(got) != lone+2 || got[lone] != "b" || got[lone+1] != "c" {
			t.Errorf("shift %d: %d lines, at last %q", shift, len(got), got[len(got)-3:])
		}
	}
}

// A line that must not be cut has a limit too, beyond which the file is refused.
func TestLineBeyondTheLimit(t *testing.T) {
	l := newLines(strings.NewReader("a\n"+strings.Repeat("b", 1<<20)), 1<<19, nil)
	if line, err := l.next(); string(line) != "a" || err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	_, err := l.next()
	code(t, (&source{path: "f.txt"}).readError(err), fault.CodeData, "f.txt: line 2", "break it")
}

func TestExpandGlobs(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.txt", "a 语料.txt", "sub/c.jsonl.gz", "sub/readme.md", ".hidden.txt", "x[1].txt"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	in := func(names ...string) (paths []string) {
		for _, n := range names {
			paths = append(paths, filepath.Join(dir, n))
		}
		return paths
	}
	for _, c := range []struct{ patterns, want []string }{
		{in(""), in("a 语料.txt", "b.txt", "sub/c.jsonl.gz", "x[1].txt")},
		{in("?.txt", "b.txt"), in("b.txt")},
		{in("*.txt"), in(".hidden.txt", "a 语料.txt", "b.txt", "x[1].txt")},
		{in("x[1].txt"), in("x[1].txt")},
		{[]string{Stdin}, []string{Stdin}},
	} {
		got, err := ExpandGlobs(c.patterns)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q (%v), want %q", c.patterns, got, err, c.want)
		}
	}
	for _, c := range []struct {
		patterns []string
		code     int
	}{
		{in("none.txt"), fault.CodeUsage}, {in("*.csv"), fault.CodeUsage}, {in("su?"), fault.CodeUsage},
		{in("[.txt"), fault.CodeUsage}, {nil, fault.CodeUsage}, {[]string{t.TempDir()}, fault.CodeData},
	} {
		_, err := ExpandGlobs(c.patterns)
		code(t, err, c.code)
	}
	if os.Geteuid() != 0 { // root reads everything
		os.Chmod(filepath.Join(dir, "b.txt"), 0)
		_, err := ExpandGlobs(in("*.txt"))
		code(t, err, fault.CodeUsage, "b.txt", "cannot be read")
	}
}

// A reader that is stopped, or told to, reads no further.
func TestDocumentsStop(t *testing.T) {
	path := write(t, "f.txt", strings.Repeat("a\n\n", 1000))
	n := 0
	for range Documents(t.Context(), []string{path, path}, CorpusOptions{}) {
		if n++; n == 5 {
			break
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, err := range Documents(ctx, []string{path}, CorpusOptions{}) {
		if n++; n == 10 {
			cancel()
		}
		if err != nil && fault.Code(err) != fault.CodeInterrupted {
			t.Error(err)
		}
	}
	if n > 11 {
		t.Errorf("%d documents after all", n)
	}
}

// fuzzReader feeds anything to a reader: it may refuse, never panic, and what it
// gives is valid text.
func fuzzReader(f *testing.F, name string, seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s), false, "")
		f.Add([]byte(s), true, "a.b")
	}
	f.Fuzz(func(t *testing.T, b []byte, perLine bool, field string) {
		path := write(t, name, string(b))
		for _, compat := range []bool{false, true} {
			_, _, err := read(t, CorpusOptions{DocPerLine: perLine, TextField: field, Compat: compat}, path)
			if err != nil {
				if c := fault.Code(err); c != fault.CodeCorrupt && c != fault.CodeData {
					t.Errorf("exit code %d: %v", c, err)
				}
				if !strings.Contains(err.Error(), path) {
					t.Errorf("does not name the file: %v", err)
				}
			}
		}
	})
}

func FuzzReadText(f *testing.F) {
	gbk, _ := simplifiedchinese.GBK.NewEncoder().String(someChinese)
	b5, _ := traditionalchinese.Big5.NewEncoder().String(someTaiwanese)
	u16, _ := unicode.UTF16(unicode.LittleEndian, unicode.UseBOM).NewEncoder().String(someChinese)
	gz, zst := compressed(f, someChinese)
	fuzzReader(f, "f.txt", someChinese, gbk, b5, u16, gz, zst, "a\rb\r\n\r\nc\xff", "\x00\x00")
}

func FuzzReadJSON(f *testing.F) {
	fuzzReader(f, "f.json", `["a","b\nc",null]`, `[{"text":"a"},{"a":{"b":"c"}}]`, `"a""b"`, `[`, `[[[`)
}

func FuzzReadJSONLines(f *testing.F) {
	fuzzReader(f, "f.jsonl", "\"a\"\n{\"text\":\"b\"}\n", "{\"a\":{\"b\":\"c\"}}\r\n\r\n", "{\"a\":1}", "\xff")
}

// A link to a folder names the folder: what is below it is read.
func TestFolderByALink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "texts"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "texts", "a.txt"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("texts", link); err != nil {
		t.Skip(err)
	}
	if paths, err := ExpandGlobs([]string{link}); err != nil || len(paths) != 1 || filepath.Base(paths[0]) != "a.txt" {
		t.Errorf("%q, %v", paths, err)
	}
}
