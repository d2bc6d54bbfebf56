package blob

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"promptgen/internal/fault"

	"pgregory.net/rapid"
)

// A quantized block is off by no more than its format allows: half a step and the
// rounding of its fp16 scale, and for q4_0 a whole step at the end without a -8.
func TestQuantizedBlocksAreClose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.SliceOfN(rapid.Float32Range(-100, 100), qBlock, qBlock).Draw(t, "x")
		var amax float64
		for _, v := range x {
			amax = max(amax, math.Abs(float64(v)))
		}
		for d, steps := range map[DType]float64{Q8_0: 127 * 1.7, Q4_0: 8 * 0.97} {
			b := Encode(nil, d, x)
			if n, _ := d.ByteLen(qBlock); n != len(b) {
				t.Fatalf("%s: %d bytes, want %d", d, len(b), n)
			}
			got := make([]float32, qBlock)
			Decode(got, d, b)
			for i := range x {
				if e := math.Abs(float64(got[i] - x[i])); e > amax/steps+1e-6 {
					t.Fatalf("%s: element %d is %v, became %v (largest %v)", d, i, x[i], got[i], amax)
				}
			}
		}
	})
}

// Writing to a mapping changes memory, never the file.
func TestMappedFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	want := Encode(nil, F32, []float32{1, 2, 3})
	if err := os.WriteFile(path, want, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	v, ok := View(Tensor{DType: F32, Shape: []int{3}, Bytes: f.Bytes})
	if ok {
		v[1] = 9
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); string(got) != string(want) {
		t.Error("the file changed")
	}
	if _, err := Open(path + "x"); fault.Code(err) != fault.CodeUsage {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := Open(t.TempDir()); fault.Code(err) != fault.CodeUsage {
		t.Errorf("a folder for a file: %v", err)
	}
}
