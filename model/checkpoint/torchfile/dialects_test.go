package torchfile

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/model/checkpoint/blob"
)

// Picklers have many ways to write the same; each must give the same tensor.
func TestDialects(t *testing.T) {
	const names = "torch._utils\n_rebuild_tensor_v2\n"
	storage := "(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nL4L\ntQ"
	usual := tensorOf("K\x04", "K\x01", "K\x03\x85", "K\x01\x85")
	for name, pickle := range map[string]string{
		"protocol 0": "(dp0\nVw\np1\nc" + names + "(" + storage + "I1\n(L3\nt(I1\ntI00\nccollections\nOrderedDict\n(tRtRs.",
		"protocol 1": "}q\x00(U\x01wc" + names + "(" + storage + "M\x01\x00(J\x03\x00\x00\x00t(K\x01t\x89" + ordered + "tRu.",
		"protocol 2": "\x80\x02}X\x01\x00\x00\x00w" + usual + "s.",
		"protocol 4": "\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94\x8d\x01\x00\x00\x00\x00\x00\x00\x00w" +
			text("torch._utils") + text("_rebuild_tensor_v2") + "\x93(" + storageID("0", "\x8a\x01\x04") + "\x8a\x01\x01\x8a\x01\x03\x85\x8a\x01\x01\x85\x89}tRs.",
		"a memo":                   "\x80\x02}T\x01\x00\x00\x00wr\x02\x00\x00\x000j\x02\x00\x00\x00" + usual + "q\x050h\x05p7\n0g7\ns.",
		"a dictionary of pairs":    "\x80\x02ccollections\nOrderedDict\n(](" + text("w") + usual + "tatR.",
		"a dictionary of lists":    "\x80\x02ccollections\nOrderedDict\n(](](" + text("w") + usual + "eetR.",
		"a list that is forgotten": "\x80\x02(" + text("x") + "lK\x00a(K\x01e0}" + text("w") + usual + "s.",
		"a dictionary of a mark":   "\x80\x02(" + text("w") + usual + "d.",
		"a parameter":              "\x80\x02}" + text("w") + "ctorch._utils\n_rebuild_parameter\n(" + usual + "\x88" + ordered + "tRs.",
		"other values beside it":   "\x80\x02}(" + text("step") + "G\x00\x00\x00\x00\x00\x00\x00\x00" + text("none") + "N" + text("pair") + "K\x01K\x02\x86" + text("three") + "NNN\x87" + text("zero") + "\x8a\x00" + text("w") + usual + "u.",
		"what is taken back":       "\x80\x02(K\x01K\x021}" + text("w") + usual + "s.",
	} {
		ts, err := Parse("x.bin", zipOf(t, pickle, map[string][]byte{"data/0": blob.Encode(nil, blob.F32, []float32{1, 2, 3, 4})}))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(ts) != 1 || ts[0].Name != "w" || fmt.Sprint(ts[0].Floats()) != "[2 3 4]" {
			t.Errorf("%s: read %+v", name, ts)
		}
	}
}

// What is broken is told for what it is.
func TestBrokenPickles(t *testing.T) {
	usual := tensorOf("K\x04", "K\x01", "K\x03\x85", "K\x01\x85")
	dict := func(value string) string { return "\x80\x02}" + text("w") + value + "s." }
	data := map[string][]byte{"data/0": make([]byte, 16)}
	for pickle, part := range map[string]string{
		"\x80\x09.":                        "protocol is newer",
		"\x80\x02N.":                       "no dictionary of tensors",
		"\x80\x02}.":                       "no tensors by name",
		dict("Iseven\n"):                   "a number in it is none",
		dict("\x8a\x09123456789"):          "a number in it is too large",
		dict("gx\n"):                       "memo index in it is no number",
		dict("K\x01K\x01a"):                "appends to what is no list",
		"\x80\x02K\x05K\x01K\x02s.":        "no dictionary",
		"\x80\x02}(" + text("w") + "u.":    "a key in it has no value",
		"\x80\x02(" + text("w") + "d.":     "a key in it has no value",
		dict("K\x01K\x01\x93"):             "names something by what is no text",
		dict("K\x01Q"):                     "no storage",
		dict("(" + text("storage") + "tQ"): "no storage",
		dict("K\x01)R"):                    "cannot be called",
		dict("(VcN\x85tR"):                 "middle",
		"\x80\x02a.":                       "empty stack",
		"\x80\x02e.":                       "no mark",
		"\x80\x02\x85.":                    "empty stack",
		"\x80\x02b.":                       "empty stack",
		"\x80\x02Nq\x00b.":                 "empty stack",
		"\x80\x02q\x00.":                   "empty stack",
		dict("\xff"):                       "not allowed",
		dict("ctorch._utils\n_rebuild_parameter\n)R"):          "a parameter in it has no tensor",
		dict("ctorch._utils\n_rebuild_parameter\n(Nt" + "R"):   "a parameter in it has no tensor",
		dict("ccollections\nOrderedDict\n(NtR"):                "made of what is no list",
		dict("ccollections\nOrderedDict\n(]K\x01atR"):          "made of what are no pairs",
		dict(rebuild + "(tR"):                                  "lacks its shape",
		dict(rebuild + "(NNNNtR"):                              "impossible shape",
		dict(tensorOf("K\x04", "K\x00", "N", "K\x01\x85")):     "impossible shape",
		dict(tensorOf("K\x04", "K\x00", "N\x85", "K\x01\x85")): "impossible shape",
		dict(tensorOf("K\x04", "K\x00", "("+strings.Repeat("K\x01", 9)+"t", "("+strings.Repeat("K\x01", 9)+"t")): "impossible shape",
		dict(usual) + "x": "",
		"\x80\x02}(" + text("a") + usual + text("b") + tensorOf("K\x03", "K\x00", "K\x03\x85", "K\x01\x85") + "u.":                                               "described in two ways",
		dict(tensorOf("K\x03", "K\x00", "K\x03\x85", "K\x01\x85")):                                                                                               "16 bytes long in place of 12",
		dict(rebuild + "(" + storageID("7", "K\x04") + "K\x00K\x03\x85K\x01\x85\x89" + ordered + "tR"):                                                           `entry "data/7" is missing`,
		dict(rebuild + "((" + text("storage") + "ctorch\nFloatStorage\n" + text("0") + text("cpu") + "K\x04K\x01tQK\x00K\x03\x85K\x01\x85\x89" + ordered + "tR"): "view of another one",
		dict(rebuild + "((" + text("storage") + "ccollections\nOrderedDict\n" + text("0") + text("cpu") + "K\x04tQK\x00K\x03\x85K\x01\x85\x89" + ordered + "tR"): "storage of no known type",
	} {
		_, err := Parse("x.bin", zipOf(t, pickle, data))
		switch {
		case part == "":
			if err != nil { // what follows the end is none of its business
				t.Errorf("%q: %v", pickle, err)
			}
		case fault.Code(err) != fault.CodeCorrupt || !strings.Contains(err.Error(), part):
			t.Errorf("%q: %v, want %q", pickle, err, part)
		}
	}
}

// Damage to the archive around the pickle is told, too; so is a machine of
// another byte order.
func TestBrokenArchives(t *testing.T) {
	pickle := "\x80\x02}" + text("w") + tensorOf("K\x04", "K\x00", "K\x04\x85", "K\x01\x85") + "s."
	good := zipOf(t, pickle, map[string][]byte{"data/0": {1: 7, 15: 0}})
	flipped := bytes.Clone(good)
	flipped[bytes.Index(flipped, []byte("a/data/0"))+len("a/data/0")+1] ^= 1
	var squeezed bytes.Buffer
	z := zip.NewWriter(&squeezed)
	w, _ := z.Create("a/data.pkl")
	io.WriteString(w, pickle)
	z.Close()
	const magic = "\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
	for _, c := range []struct{ file, part string }{
		{"", "no file of torch.save"},
		{string(good[:len(good)-30]), "zip archive is broken"},
		{string(flipped), `entry "data/0" is damaged (checksum)`},
		{squeezed.String(), "compressed"},
		{string(zipOf(t, pickle, map[string][]byte{"data/0": make([]byte, 16), "byteorder": []byte("big")})), `byte order "big"`},
		{"\x80\x02\x8a\x01\x07.\x80\x02M\xe9\x03.", "no file of torch.save"},
		{magic + "\x80\x02}" + text("little_endian") + "\x89s.", "another byte order"},
		{magic + "\x80\x02}." + pickle + "\x80\x02N.", "list of its storages"},
		{magic + "\x80\x02}." + pickle + "\x80\x02]" + text("5") + "a.", "which no tensor has"},
		{magic + "\x80\x02}." + pickle + "\x80\x02]" + text("0") + "a.\x04", "cut short"},
		{magic + "\x80\x02}." + pickle + "\x80\x02]" + text("0") + "a.\x04" + strings.Repeat("\x00", 7+16+3), "3 bytes after the last storage"},
	} {
		_, err := Parse("x.bin", []byte(c.file))
		if fault.Code(err) != fault.CodeCorrupt || !strings.Contains(err.Error(), c.part) {
			t.Errorf("%.60q: %v, want %q", c.file, err, c.part)
		}
	}
	legacy := magic + "\x80\x02}." + pickle + "\x80\x02]" + text("0") + "a.\x04" + strings.Repeat("\x00", 7) + string(blob.Encode(nil, blob.F32, []float32{1, 2, 3, 4}))
	if ts, err := Parse("x.bin", []byte(legacy)); err != nil || fmt.Sprint(ts[0].Floats()) != "[1 2 3 4]" {
		t.Errorf("the old format: %+v, %v", ts, err)
	}
}

// failingWriter takes so many bytes.
type failingWriter struct{ left int }

var errFull = errors.New("full")

func (f *failingWriter) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errFull
	}
	return len(b), nil
}

// A disk that fills up at any byte is an error, and so is data of another length
// than was said.
func TestWriteFails(t *testing.T) {
	storages := func(size int) []Storage {
		return []Storage{{DType: blob.F32, Size: size, Tensors: []Named{{"a", []int{size / 4}}},
			Write: func(w io.Writer) error { return blob.WriteFloats(w, blob.F32, []float32{1, 2}) }}}
	}
	var whole bytes.Buffer
	if err := Write(&whole, storages(8)); err != nil {
		t.Fatal(err)
	}
	for n := range whole.Len() {
		if err := Write(&failingWriter{n}, storages(8)); !errors.Is(err, errFull) {
			t.Fatalf("after %d of %d bytes: %v", n, whole.Len(), err)
		}
	}
	if err := Write(io.Discard, storages(12)); err == nil || !strings.Contains(err.Error(), "8 bytes in place of 12") {
		t.Errorf("%v", err)
	}
}
