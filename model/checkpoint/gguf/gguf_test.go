package gguf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/model/checkpoint/blob"
)

// sample is a small file with every type of value and tensor that Write knows.
func sample(t testing.TB) []byte {
	t.Helper()
	row := func(dst []float32, i int) {
		for k := range dst {
			dst[k] = float32(i*100 + k)
		}
	}
	var b bytes.Buffer
	err := Write(&b, []Pair{
		{"general.architecture", "gpt2"}, {"n", uint32(7)}, {"x", float32(0.5)}, {"yes", true},
		{"words", []string{"", "高血压"}}, {"ids", []int32{-1, 5}},
	}, []Part{
		{"a", blob.F32, []int{3, 5}, row}, {"b", blob.Q8_0, []int{2, 64}, row},
		{"c", blob.Q4_0, []int{32}, row}, {"d", blob.BF16, []int{2, 2}, row}, {"e", blob.F16, []int{1, 3}, row},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What Write writes Parse reads, every tensor at a multiple of the alignment.
func TestWriteParse(t *testing.T) {
	b := sample(t)
	f, err := Parse("x.gguf", b)
	if err != nil {
		t.Fatal(err)
	}
	if f.String("general.architecture") != "gpt2" || f.Int("n", 0) != 7 || f.Float("x", 0) != 0.5 || f.Values["yes"] != true ||
		fmt.Sprintf("%q", f.Strings("words")) != `["" "高血压"]` || fmt.Sprint(f.Ints("ids")) != "[-1 5]" {
		t.Errorf("values %v", f.Values)
	}
	for i, want := range []string{"a F32 [3 5]", "b Q8_0 [2 64]", "c Q4_0 [32]", "d BF16 [2 2]", "e F16 [1 3]"} {
		x := f.Tensors[i]
		if got := fmt.Sprint(x.Name, " ", x.DType, " ", x.Shape); got != want {
			t.Errorf("tensor %s, want %s", got, want)
		}
		if at := bytes.Index(b, x.Bytes); i == 0 && at%alignment != 0 {
			t.Errorf("%s lies at byte %d", x.Name, at)
		}
	}
	if got := f.Tensors[0].Floats(); got[0] != 0 || got[6] != 101 || got[14] != 204 {
		t.Errorf("a = %v", got)
	}
}

// Cut anywhere, a file is refused; so are lengths out of proportion.
func TestHostileFiles(t *testing.T) {
	b := sample(t)
	for n := range len(b) - 32 {
		if _, err := Parse("cut.gguf", b[:n]); fault.Code(err) != fault.CodeCorrupt || !strings.Contains(err.Error(), "cut.gguf") {
			t.Fatalf("the first %d of %d bytes: %v", n, len(b), err)
		}
	}
	head := func(tensors, values uint64, rest string) []byte {
		h := binary.LittleEndian.AppendUint32([]byte(Magic), version)
		h = binary.LittleEndian.AppendUint64(h, tensors)
		return append(binary.LittleEndian.AppendUint64(h, values), rest...)
	}
	huge, one := strings.Repeat("\xff", 8), "\x01\x00\x00\x00\x00\x00\x00\x00"
	for name, b := range map[string][]byte{
		"counts":           head(1<<63, 1<<63, ""),
		"key of 2^64":      head(0, 1, huge),
		"list of 2^64":     head(0, 1, one+"k\x09\x00\x00\x00\x00\x00\x00\x00"+huge),
		"list of lists":    head(0, 1, one+"k\x09\x00\x00\x00\x09\x00\x00\x00"+one+one),
		"unknown value":    head(0, 1, one+"k\x63\x00\x00\x00"),
		"many dimensions":  head(1, 0, one+"t\xff\xff\xff\xff"),
		"a huge dimension": head(1, 0, one+"t\x01\x00\x00\x00"+huge+huge),
		"version 1":        append([]byte(Magic), 1, 0, 0, 0),
	} {
		if _, err := Parse("evil.gguf", b); fault.Code(err) != fault.CodeCorrupt {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What lies behind the last tensor is no part of the file: it was written over
// another one, or copied wrongly. Padding up to the alignment may be there or not.
func TestBytesBehindTheTensors(t *testing.T) {
	b := sample(t)
	f, err := Parse("x.gguf", b)
	if err != nil {
		t.Fatal(err)
	}
	last := f.Tensors[len(f.Tensors)-1]
	unpadded := b[:bytes.Index(b, last.Bytes)+len(last.Bytes)]
	if len(unpadded) == len(b) {
		t.Fatal("the sample has no padding at its end")
	}
	if _, err := Parse("x.gguf", unpadded); err != nil {
		t.Error(err)
	}
	_, err = Parse("long.gguf", append(bytes.Clone(b), 0))
	if fault.Code(err) != fault.CodeCorrupt || !strings.Contains(err.Error(), "long.gguf: 1 bytes after the last tensor") {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Parse("fuzz.gguf", b)
		if err != nil {
			if fault.Code(err) != fault.CodeCorrupt {
				t.Fatalf("code %d: %v", fault.Code(err), err)
			}
			return
		}
		for k := range file.Values {
			file.Strings(k)
			file.Ints(k)
		}
		for _, x := range file.Tensors {
			if x.DType.IsWeight() && x.Bytes != nil {
				x.Floats()
			}
		}
	})
}
