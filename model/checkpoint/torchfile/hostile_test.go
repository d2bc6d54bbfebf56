package torchfile

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/model/checkpoint/blob"
)

// zipOf makes an archive as torch.save does, around any pickle.
func zipOf(t testing.TB, pickle string, data map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	put := func(name string, content []byte) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: "a/" + name, Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	put("data.pkl", []byte(pickle))
	for name, content := range data {
		put(name, content)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Text in a pickle: SHORT_BINUNICODE.
func text(s string) string { return "\x8c" + string(rune(len(s))) + s }

const (
	ordered = "ccollections\nOrderedDict\n)R"
	rebuild = "ctorch._utils\n_rebuild_tensor_v2\n"
)

// storageID is the persistent id of a float storage.
func storageID(key, elems string) string {
	return "(" + text("storage") + "ctorch\nFloatStorage\n" + text(key) + text("cpu") + elems + "tQ"
}

// tensorOf is a tensor over storage "0".
func tensorOf(elems, offset, shape, strides string) string {
	return rebuild + "(" + storageID("0", elems) + offset + shape + strides + "\x89" + ordered + "tR"
}

// hostile are pickles that do what a file of weights must not: name functions,
// nest calls, claim sizes, go round in circles. None may run, hang, panic or
// take memory that the file does not justify.
func hostile() map[string]string {
	dict := func(value string) string { return "\x80\x02}" + text("w") + value + "s." }
	deep := strings.Repeat
	return map[string]string{
		"os.system":              "\x80\x02cos\nsystem\n(" + text("touch /tmp/x") + "tR.",
		"posix.system":           "\x80\x02cposix\nsystem\n(" + text("id") + "tR.",
		"builtins.eval":          "\x80\x02cbuiltins\neval\n(" + text("1+1") + "tR.",
		"stack global exec":      "\x80\x04" + text("builtins") + text("exec") + "\x93(" + text("1") + "tR.",
		"subprocess":             "\x80\x02csubprocess\nPopen\n(" + text("sh") + "tR.",
		"nested reduce":          dict("cbuiltins\ngetattr\n(cos\nsystem\n" + text("x") + "tRR"),
		"torch.load itself":      dict("ctorch\nload\n(" + text("x") + "tR"),
		"allowed module":         dict("ctorch._utils\n_import_dotted_name\n(" + text("os.system") + "tR"),
		"name in a name":         dict("ctorch\nFloatStorage.__init__.__globals__\n"),
		"old-style instance":     "\x80\x02(ios\nsystem\n.",
		"OBJ":                    "\x80\x02(cos\nsystem\n" + text("x") + "o.",
		"NEWOBJ":                 "\x80\x02ccollections\nOrderedDict\n)\x81.",
		"extension registry":     "\x80\x02\x82\x01.",
		"a storage called":       dict("ctorch\nFloatStorage\n)R"),
		"attributes of a list":   dict("]}b"),
		"a string of 4 GiB":      "\x80\x02X\xff\xff\xff\xff.",
		"a string of 2^63":       "\x80\x04\x8d\x00\x00\x00\x00\x00\x00\x00\x80.",
		"a number of 255 bytes":  "\x80\x02\x8a\xff" + deep("\xff", 255) + ".",
		"memo index 2^32":        "\x80\x02}r\xff\xff\xff\xff.",
		"memo never stored":      "\x80\x02h\x07.",
		"a dictionary in itself": "\x80\x02}q\x00" + text("w") + "h\x00s.",
		"a list in itself":       "\x80\x02]q\x00h\x00a.",
		"a tuple of tuples":      "\x80\x02" + deep(")", 1<<17) + ".",
		"marks without end":      "\x80\x02" + deep("(", 1<<17) + ".",
		"doubled lists":          "\x80\x02]q\x00" + deep("]q\x01h\x00ah\x00aq\x00", 4096) + ".",
		"pop of nothing":         "\x80\x020.",
		"no end":                 "\x80\x02}",
		"empty":                  "",
		"a tensor of 2^62":       dict(tensorOf("K\x04", "K\x00", "(\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40t", "(K\x01t")),
		"shape that overflows":   dict(tensorOf("K\x04", "K\x00", "(J\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7ft", "(K\x01K\x01K\x01t")),
		"negative shape":         dict(tensorOf("K\x04", "K\x00", "(J\xff\xff\xff\xfft", "(K\x01t")),
		"offset beyond":          dict(tensorOf("K\x04", "K\x03", "(K\x02t", "(K\x01t")),
		"negative offset":        dict(tensorOf("K\x04", "J\xfc\xff\xff\xff", "(K\x02t", "(K\x01t")),
		"storage of 2^62":        dict(tensorOf("\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40", "K\x00", "(K\x02t", "(K\x01t")),
		"storage elsewhere":      dict(rebuild + "(" + storageID("../../etc/passwd", "K\x04") + "K\x00(K\x02t(K\x01t\x89" + ordered + "tR"),
		"no tensor at all":       "\x80\x02}" + text("w") + "K\x01s.",
		"a tensor of a dict":     dict(rebuild + "(}K\x00(K\x02t(K\x01t\x89}tR"),
	}
}

func TestHostilePickles(t *testing.T) {
	data := map[string][]byte{"data/0": make([]byte, 16)}
	for name, pickle := range hostile() {
		t.Run(name, func(t *testing.T) {
			file := zipOf(t, pickle, data)
			for _, b := range [][]byte{file, []byte("\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}." + pickle)} {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				tensors, err := Parse("evil.bin", b)
				runtime.ReadMemStats(&after)
				if err == nil {
					t.Fatalf("accepted as %d tensors", len(tensors))
				}
				if fault.Code(err) != fault.CodeCorrupt || !strings.Contains(err.Error(), "evil.bin") {
					t.Errorf("code %d: %v", fault.Code(err), err)
				}
				if used := after.TotalAlloc - before.TotalAlloc; used > uint64(2*len(b)+16<<20) {
					t.Errorf("took %d bytes for a file of %d", used, len(b))
				}
			}
		})
	}
}

// The same pieces, put together as they should be, are a file.
func TestHarmlessPickle(t *testing.T) {
	p := "\x80\x02" + ordered + "q\x00" + text("w") + tensorOf("K\x04", "K\x01", "(K\x03t", "(K\x01t") +
		"s}" + text("_metadata") + ordered + "sb."
	ts, err := Parse("good.bin", zipOf(t, p, map[string][]byte{"data/0": blob.Encode(nil, blob.F32, []float32{1, 2, 3, 4})}))
	if err != nil {
		t.Fatal(err)
	}
	if len(ts) != 1 || ts[0].Name != "w" || fmt.Sprint(ts[0].Floats()) != "[2 3 4]" {
		t.Errorf("read %+v", ts)
	}
}

// What Write writes Parse reads, both tensors of a shared storage included.
func TestWriteParse(t *testing.T) {
	f := []float32{1, -2, 3.5, 0, 5, 6}
	var b bytes.Buffer
	err := Write(&b, []Storage{{
		DType: blob.F32, Size: 24, Write: func(w io.Writer) error { return blob.WriteFloats(w, blob.F32, f) },
		Tensors: []Named{{"a", []int{2, 3}}, {"b", []int{3, 2}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	ts, err := Parse("x.bin", b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"a", "b"} {
		if ts[i].Name != name || fmt.Sprint(ts[i].Floats()) != fmt.Sprint(f) {
			t.Errorf("read %+v", ts[i])
		}
	}
	if _, ok := blob.View(ts[0]); !ok {
		t.Error("the data is not aligned")
	}
}

func FuzzParse(f *testing.F) {
	data := map[string][]byte{"data/0": make([]byte, 16)}
	for _, p := range hostile() {
		f.Add(zipOf(f, p, data))
	}
	f.Add([]byte("\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02}.\x80\x02]."))
	f.Fuzz(func(t *testing.T, b []byte) {
		ts, err := Parse("fuzz.bin", b)
		if err != nil && fault.Code(err) != fault.CodeCorrupt {
			t.Fatalf("code %d: %v", fault.Code(err), err)
		}
		for _, x := range ts {
			if x.DType.IsWeight() {
				x.Floats()
			}
		}
	})
}
