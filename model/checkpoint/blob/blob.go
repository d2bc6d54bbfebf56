// Package blob is what every file of weights comes down to: named tensors,
// each a shape, an element type and the bytes as they lie in the file.
//
// The readers (safetensors, torchfile, gguf) return []Tensor whose bytes are
// views of one mapped File, checked against its length; nothing has been
// converted or copied yet. Floats does that, and copies nothing where the bytes
// already are the float32 that we compute with.
package blob

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// DType is the element type of a tensor in a file, by the name that
// safetensors gives it.
type DType string

// The types that hold weights. A file may hold others (a mask of bytes): they
// can be listed and skipped, but not turned into weights.
const (
	F32  DType = "F32"
	F16  DType = "F16"
	BF16 DType = "BF16"
	Q8_0 DType = "Q8_0" // blocks of 32: an fp16 scale, 32 signed bytes
	Q4_0 DType = "Q4_0" // blocks of 32: an fp16 scale, 16 bytes of two nibbles each
	F64  DType = "F64"
	I64  DType = "I64"
	I32  DType = "I32"
	I16  DType = "I16"
	I8   DType = "I8"
	U8   DType = "U8"
	Bool DType = "BOOL"
)

// qBlock is the number of elements in one block of a quantized type.
const qBlock = 32

// layout is how many elements one unit of a type holds, and its bytes.
type layout struct{ elems, bytes int }

var layouts = map[DType]layout{
	F64: {1, 8}, I64: {1, 8}, F32: {1, 4}, I32: {1, 4},
	F16: {1, 2}, BF16: {1, 2}, I16: {1, 2},
	I8: {1, 1}, U8: {1, 1}, Bool: {1, 1},
	Q8_0: {qBlock, 2 + qBlock}, Q4_0: {qBlock, 2 + qBlock/2},
}

// Known tells whether the sizes of a type are known.
func (d DType) Known() bool { _, ok := layouts[d]; return ok }

// Quantized tells whether elements of the type come in blocks.
func (d DType) Quantized() bool { return layouts[d].elems > 1 }

// IsWeight tells whether Floats can convert the type.
func (d DType) IsWeight() bool {
	switch d {
	case F32, F16, BF16, Q8_0, Q4_0:
		return true
	}
	return false
}

// ByteLen is the number of bytes of n elements; ok is false when the type is
// not known, n is no whole number of blocks, or the result does not fit.
func (d DType) ByteLen(n int) (size int, ok bool) {
	l, known := layouts[d]
	if !known || n < 0 || n%l.elems != 0 {
		return 0, false
	}
	hi, lo := bits.Mul64(uint64(n/l.elems), uint64(l.bytes))
	if hi != 0 || lo > math.MaxInt {
		return 0, false
	}
	return int(lo), true
}

// Named gives the type that this project's commands call fp32, fp16, bf16,
// q8_0 or q4_0.
func Named(name string) (DType, bool) {
	switch strings.ToLower(name) {
	case "fp32":
		return F32, true
	case "fp16":
		return F16, true
	case "bf16":
		return BF16, true
	case "q8_0":
		return Q8_0, true
	case "q4_0":
		return Q4_0, true
	}
	return "", false
}

// Name is the type as this project's commands call it.
func (d DType) Name() string {
	switch d {
	case F32:
		return "fp32"
	case F16:
		return "fp16"
	}
	return strings.ToLower(string(d))
}

// Tensor is one tensor of a file.
type Tensor struct {
	Name  string
	DType DType
	Shape []int  // row-major
	Bytes []byte // little-endian, exactly what shape and type ask for
}

// Len is the number of elements.
func (t Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Numel multiplies a shape with a check: ok is false when a dimension is
// negative or the product does not fit.
func Numel(shape []int) (n int, ok bool) {
	n = 1
	for _, d := range shape {
		if d < 0 {
			return 0, false
		}
		hi, lo := bits.Mul64(uint64(n), uint64(d))
		if hi != 0 || lo > math.MaxInt {
			return 0, false
		}
		n = int(lo)
	}
	return n, true
}

// SameShape tells whether two shapes are equal.
func SameShape(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// Clip shortens a name out of a foreign file for an error message.
func Clip(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return fmt.Sprintf("%q", s)
}
