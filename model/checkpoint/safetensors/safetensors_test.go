package safetensors

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/model/checkpoint/blob"

	"pgregory.net/rapid"
)

// fileOf is a file with any header and so many bytes behind it.
func fileOf(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

// What Write writes Parse reads: names, types, shapes, bytes, in order.
func TestWriteParse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 6).Draw(t, "tensors")
		var parts []Part
		var want []string
		for i := range n {
			shape := rapid.SliceOfN(rapid.IntRange(0, 5), 0, 3).Draw(t, "shape")
			size, _ := blob.Numel(shape)
			data := rapid.SliceOfN(rapid.Float32(), size, size).Draw(t, "data")
			d := rapid.SampledFrom([]blob.DType{blob.F32, blob.F16, blob.BF16}).Draw(t, "dtype")
			name := fmt.Sprint(i) + rapid.String().Draw(t, "name")
			parts = append(parts, Floats(name, shape, data, d))
			want = append(want, fmt.Sprint([]rune(name), d, shape, blob.Encode([]byte{}, d, data)))
		}
		var b bytes.Buffer
		if err := Write(&b, parts, map[string]string{"format": "pt"}); err != nil {
			t.Fatal(err)
		}
		f, err := Parse("x", b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, x := range f.Tensors {
			got = append(got, fmt.Sprint([]rune(x.Name), x.DType, x.Shape, x.Bytes))
		}
		if f.Metadata["format"] != "pt" || strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Fatalf("wrote\n%s\nread\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
		}
	})
}

// Every way in which a header can lie is refused, and the file is named.
func TestHostileHeaders(t *testing.T) {
	f32 := func(shape string, lo, hi int) string {
		return fmt.Sprintf(`{"dtype":"F32","shape":%s,"data_offsets":[%d,%d]}`, shape, lo, hi)
	}
	for name, b := range map[string][]byte{
		"empty":             {},
		"length 2^63":       binary.LittleEndian.AppendUint64(nil, 1<<63),
		"length 2^64-1":     append(bytes.Repeat([]byte{255}, 8), "{}"...),
		"length beyond":     append(binary.LittleEndian.AppendUint64(nil, 3), "{}"...),
		"no object":         fileOf(`[]`, 0),
		"cut":               fileOf(`{"a":`+f32("[1]", 0, 4), 4),
		"text behind":       fileOf(`{} x`, 0),
		"not the size":      fileOf(`{"a":`+f32("[2]", 0, 4)+`}`, 4),
		"beyond the end":    fileOf(`{"a":`+f32("[2]", 0, 8)+`}`, 4),
		"bytes left":        fileOf(`{"a":`+f32("[1]", 0, 4)+`}`, 8),
		"a gap":             fileOf(`{"a":`+f32("[1]", 0, 4)+`,"b":`+f32("[1]", 8, 12)+`}`, 12),
		"overlap":           fileOf(`{"a":`+f32("[2]", 0, 8)+`,"b":`+f32("[2]", 4, 12)+`}`, 12),
		"same place":        fileOf(`{"a":`+f32("[1]", 0, 4)+`,"b":`+f32("[1]", 0, 4)+`}`, 4),
		"backwards":         fileOf(`{"a":`+f32("[1]", 4, 0)+`}`, 4),
		"negative offset":   fileOf(`{"a":`+f32("[1]", -4, 0)+`}`, 4),
		"negative shape":    fileOf(`{"a":`+f32("[-1]", 0, 4)+`}`, 4),
		"shape overflows":   fileOf(`{"a":`+f32("[4294967296,4294967296,4]", 0, 0)+`}`, 0),
		"fractional":        fileOf(`{"a":`+f32("[0.5]", 0, 4)+`}`, 4),
		"nine dimensions":   fileOf(`{"a":`+f32("[1,1,1,1,1,1,1,1,1]", 0, 4)+`}`, 4),
		"name twice":        fileOf(`{"a":`+f32("[1]", 0, 4)+`,"a":`+f32("[1]", 4, 8)+`}`, 8),
		"one offset":        fileOf(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}`, 4),
		"deep":              fileOf(strings.Repeat(`{"a":`, 20000), 0),
		"a type of gguf":    fileOf(`{"a":{"dtype":"Q8_0","shape":[32],"data_offsets":[0,34]}}`, 34),
		"metadata a number": fileOf(`{"__metadata__":3}`, 0),
	} {
		if _, err := Parse("evil.safetensors", b); fault.Code(err) != fault.CodeCorrupt || !strings.Contains(err.Error(), "evil.safetensors") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(fileOf(`{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[1,2],"data_offsets":[8,12]}}`, 12))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Parse("fuzz", b)
		if err != nil {
			if fault.Code(err) != fault.CodeCorrupt {
				t.Fatalf("code %d: %v", fault.Code(err), err)
			}
			return
		}
		for _, x := range file.Tensors {
			if x.DType.IsWeight() {
				x.Floats()
			}
		}
	})
}
