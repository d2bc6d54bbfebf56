// Package testkit is what several packages' tests share: finding the golden
// folder, and reading the two file formats it is made of. The readers are for
// files that are known to be good; what reads files of unknown origin lives in
// model/checkpoint.
package testkit

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Golden is the folder of reference numbers made with transformers on PyTorch:
// the one that PROMPTGEN_GOLDEN names, else the module's testdata/gpt2_golden.
// Nothing about its sizes may be assumed: they are in its files.
func Golden(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("PROMPTGEN_GOLDEN"); dir != "" {
		return dir
	}
	return filepath.Join(Root(t), "testdata", "gpt2_golden")
}

// Root is the module's folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = up
	}
}

// Array is a tensor of a file: float32 or int32, row-major.
type Array struct {
	Shape  []int
	Floats []float32
	Ints   []int32
}

// ReadNPY reads a NumPy file of little-endian float32 or int32 in C order.
func ReadNPY(t testing.TB, path ...string) Array {
	t.Helper()
	name := filepath.Join(path...)
	b := readFile(t, name)
	if len(b) < 10 || string(b[:6]) != "\x93NUMPY" {
		t.Fatalf("%s: not an npy file", name)
	}
	start := 10 + int(binary.LittleEndian.Uint16(b[8:]))
	header := string(b[10:start])
	var a Array
	_, dims, _ := strings.Cut(header, "'shape': (")
	dims, _, _ = strings.Cut(dims, ")")
	n := 1
	for _, d := range strings.Split(dims, ",") {
		if d = strings.TrimSpace(d); d == "" {
			continue
		}
		v, err := strconv.Atoi(d)
		if err != nil {
			t.Fatalf("%s: shape (%s)", name, dims)
		}
		a.Shape = append(a.Shape, v)
		n *= v
	}
	switch {
	case strings.Contains(header, "True"):
		t.Fatalf("%s: Fortran order", name)
	case strings.Contains(header, "'<f4'"):
		a.Floats = floats(b[start : start+4*n])
	case strings.Contains(header, "'<i4'"):
		for _, f := range floats(b[start : start+4*n]) {
			a.Ints = append(a.Ints, int32(math.Float32bits(f)))
		}
	default:
		t.Fatalf("%s: %s is neither float32 nor int32", name, header)
	}
	return a
}

// ReadSafetensors reads the float32 tensors of a safetensors file.
func ReadSafetensors(t testing.TB, path ...string) map[string]Array {
	t.Helper()
	name := filepath.Join(path...)
	b := readFile(t, name)
	end := 8 + binary.LittleEndian.Uint64(b)
	var header map[string]json.RawMessage
	if err := json.Unmarshal(b[8:end], &header); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	delete(header, "__metadata__")
	all := map[string]Array{}
	for tensor, raw := range header {
		var h struct {
			DType   string `json:"dtype"`
			Shape   []int  `json:"shape"`
			Offsets [2]int `json:"data_offsets"`
		}
		if err := json.Unmarshal(raw, &h); err != nil || h.DType != "F32" {
			t.Fatalf("%s: tensor %s of type %q: %v", name, tensor, h.DType, err)
		}
		data := b[end:]
		all[tensor] = Array{Shape: h.Shape, Floats: floats(data[h.Offsets[0]:h.Offsets[1]])}
	}
	return all
}

// ReadJSON reads a JSON file into v.
func ReadJSON(t testing.TB, v any, path ...string) {
	t.Helper()
	name := filepath.Join(path...)
	if err := json.Unmarshal(readFile(t, name), v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func floats(b []byte) []float32 {
	f := make([]float32, len(b)/4)
	for i := range f {
		f[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return f
}

// RelDiff is the largest difference between got and want, relative to the
// largest element of want; NaN if anything is not a number.
func RelDiff(got, want []float32) float64 {
	largest, diff := 0.0, MaxDiff(got, want)
	for _, w := range want {
		largest = max(largest, math.Abs(float64(w)))
	}
	if diff == 0 {
		return 0
	}
	return diff / largest
}

// MaxDiff is the largest difference between got and want, infinite for slices
// of different lengths.
func MaxDiff(got, want []float32) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	d := 0.0
	for i := range got {
		d = max(d, math.Abs(float64(got[i])-float64(want[i])))
	}
	return d
}
