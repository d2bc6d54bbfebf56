// Package gguf reads and writes GGUF version 3, the one-file format of
// llama.cpp: a magic number, counts, key-value pairs, the tensors' descriptions,
// padding, and the tensors' bytes, each at a multiple of the alignment. All
// numbers are little-endian. Shapes stand with the fastest dimension first, the
// reverse of everywhere else; here they are row-major again.
package gguf

import (
	"encoding/binary"
	"fmt"
	"math"

	"promptgen/internal/fault"
	"promptgen/model/checkpoint/blob"
)

// Magic is how a file begins.
const Magic = "GGUF"

const (
	version   = 3
	alignment = 32
	maxDims   = 4

	maxTensors = 1 << 17 // far above every GPT-2
	maxValues  = 1 << 14
)

// The types of values.
const (
	typeU8 = iota
	typeI8
	typeU16
	typeI16
	typeU32
	typeI32
	typeF32
	typeBool
	typeString
	typeArray
	typeU64
	typeI64
	typeF64
)

// widths are the bytes of a value of fixed width.
var widths = map[uint32]int{
	typeU8: 1, typeI8: 1, typeBool: 1, typeU16: 2, typeI16: 2,
	typeU32: 4, typeI32: 4, typeF32: 4, typeU64: 8, typeI64: 8, typeF64: 8,
}

// ggml's numbers of the tensor types that we know.
var typeNumbers = map[blob.DType]uint32{blob.F32: 0, blob.F16: 1, blob.Q4_0: 2, blob.Q8_0: 8, blob.BF16: 30}

func typeByNumber(n uint32) blob.DType {
	for d, k := range typeNumbers {
		if k == n {
			return d
		}
	}
	return blob.DType(fmt.Sprintf("ggml type %d", n))
}

// Value is one value of a file: a number as int64 or float64, a bool, a string,
// or an Array.
type Value any

// Array is a list in a file, left as it lies there.
type Array struct {
	elem uint32
	n    int
	raw  []byte
}

// File is a parsed file.
type File struct {
	Values  map[string]Value
	Tensors []blob.Tensor
}

// String is a string value, "" where there is none.
func (f *File) String(key string) string { s, _ := f.Values[key].(string); return s }

// Int is an integer value, def where there is none.
func (f *File) Int(key string, def int64) int64 {
	if n, ok := f.Values[key].(int64); ok {
		return n
	}
	return def
}

// Float is a float value, def where there is none.
func (f *File) Float(key string, def float64) float64 {
	if x, ok := f.Values[key].(float64); ok {
		return x
	}
	return def
}

// Strings is a list of strings, nil where there is none.
func (f *File) Strings(key string) []string {
	a, ok := f.Values[key].(Array)
	if !ok || a.elem != typeString {
		return nil
	}
	out := make([]string, a.n)
	b := a.raw
	for i := range out { // lengths were checked when the list was read
		n := binary.LittleEndian.Uint64(b)
		out[i], b = string(b[8:8+n]), b[8+n:]
	}
	return out
}

// Ints is a list of 32-bit integers, nil where there is none.
func (f *File) Ints(key string) []int32 {
	a, ok := f.Values[key].(Array)
	if !ok || a.elem != typeI32 && a.elem != typeU32 {
		return nil
	}
	out := make([]int32, a.n)
	for i := range out {
		out[i] = int32(binary.LittleEndian.Uint32(a.raw[4*i:]))
	}
	return out
}

// Parse reads the file that b holds; path is for messages. The tensors are
// views of b. A file that is not whole or not of the format is fault.Corrupt.
func Parse(path string, b []byte) (*File, error) {
	p := &parser{path: path, b: b}
	if string(p.next(4)) != Magic {
		return nil, fault.Corrupt("%s: is no GGUF file", path)
	}
	if v := p.u32(); p.err == nil && v != 2 && v != version {
		return nil, fault.Corrupt("%s: is GGUF version %d, and 2 and 3 can be read", path, v)
	}
	nTensors, nValues := p.u64(), p.u64()
	if p.err == nil && (nTensors > maxTensors || nValues > maxValues) {
		return nil, fault.Corrupt("%s: claims %d tensors and %d values, which no model has", path, nTensors, nValues)
	}
	f := &File{Values: map[string]Value{}}
	for range nValues {
		key := p.str()
		v := p.value(p.u32())
		if p.err != nil {
			return nil, p.err
		}
		if _, twice := f.Values[key]; twice {
			return nil, fault.Corrupt("%s: has the key %s twice", path, blob.Clip(key))
		}
		f.Values[key] = v
	}
	var offsets []uint64
	for range nTensors {
		t, off := p.tensorInfo()
		if p.err != nil {
			return nil, p.err
		}
		f.Tensors = append(f.Tensors, t)
		offsets = append(offsets, off)
	}
	if p.err != nil {
		return nil, p.err
	}
	if err := p.cut(f, offsets); err != nil {
		return nil, err
	}
	return f, nil
}

// parser reads forward; the first error stays.
type parser struct {
	path string
	b    []byte
	pos  int
	err  error
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fault.Corrupt("%s: %s; copy the file again", p.path, fmt.Sprintf(format, args...))
	}
}

// zeros stand in for what could not be read.
var zeros [8]byte

// next takes n bytes; after an error they are zeros, 8 at the most.
func (p *parser) next(n int) []byte {
	if p.err != nil || n > len(p.b)-p.pos {
		p.fail("ends in the middle of its header")
		return zeros[:min(n, len(zeros))]
	}
	b := p.b[p.pos : p.pos+n]
	p.pos += n
	return b
}

func (p *parser) u32() uint32 { return binary.LittleEndian.Uint32(p.next(4)) }
func (p *parser) u64() uint64 { return binary.LittleEndian.Uint64(p.next(8)) }

// length reads a length, which cannot be more than what is left of the file.
func (p *parser) length() int {
	n := p.u64()
	if p.err == nil && n > uint64(len(p.b)-p.pos) {
		p.fail("holds a length of %d, more than the file is long", n)
	}
	if p.err != nil {
		return 0
	}
	return int(n)
}

func (p *parser) str() string { return string(p.next(p.length())) }

func (p *parser) value(kind uint32) Value {
	le := binary.LittleEndian
	if w, ok := widths[kind]; ok {
		b := p.next(w)
		switch kind {
		case typeU8:
			return int64(b[0])
		case typeI8:
			return int64(int8(b[0]))
		case typeU16:
			return int64(le.Uint16(b))
		case typeI16:
			return int64(int16(le.Uint16(b)))
		case typeU32:
			return int64(le.Uint32(b))
		case typeI32:
			return int64(int32(le.Uint32(b)))
		case typeU64, typeI64:
			return int64(le.Uint64(b))
		case typeF32:
			return float64(math.Float32frombits(le.Uint32(b)))
		case typeF64:
			return math.Float64frombits(le.Uint64(b))
		}
		return b[0] != 0
	}
	switch kind {
	case typeString:
		return p.str()
	case typeArray:
		return p.array()
	}
	p.fail("holds a value of the unknown type %d", kind)
	return nil
}

// array skips over a list's elements, checking that they are there.
func (p *parser) array() Value {
	elem := p.u32()
	n := p.length() // an element takes a byte at least
	start := p.pos
	w, fixed := widths[elem]
	switch {
	case fixed && n > (len(p.b)-p.pos)/w:
		p.fail("holds a list of %d elements, more than the file is long", n)
	case fixed:
		p.next(n * w)
	case elem == typeString:
		for i := 0; i < n && p.err == nil; i++ {
			p.next(p.length())
		}
	default:
		p.fail("holds a list of the unsupported type %d", elem)
	}
	if p.err != nil {
		return nil
	}
	return Array{elem, n, p.b[start:p.pos]}
}

// tensorInfo reads one tensor's description.
func (p *parser) tensorInfo() (t blob.Tensor, offset uint64) {
	t.Name = p.str()
	dims := p.u32()
	if dims > maxDims {
		p.fail("tensor %s has %d dimensions", blob.Clip(t.Name), dims)
		return t, 0
	}
	t.Shape = make([]int, dims)
	for i := range t.Shape {
		n := p.u64()
		if n > math.MaxInt32 {
			p.fail("tensor %s has a dimension of %d", blob.Clip(t.Name), n)
			return t, 0
		}
		t.Shape[len(t.Shape)-1-i] = int(n)
	}
	t.DType = typeByNumber(p.u32())
	return t, p.u64()
}

// cut gives the tensors their bytes.
func (p *parser) cut(f *File, offsets []uint64) error {
	align := f.Int("general.alignment", alignment)
	if align < 1 || align > 1<<20 || align&(align-1) != 0 {
		return fault.Corrupt("%s: has the impossible alignment %d", p.path, align)
	}
	start := (p.pos + int(align) - 1) &^ (int(align) - 1)
	if start > len(p.b) {
		start = len(p.b)
	}
	data := p.b[start:]
	end, known := 0, true // of the last tensor, where every length is known
	for i := range f.Tensors {
		t := &f.Tensors[i]
		if !t.DType.Known() {
			known = false
			continue
		}
		n, ok := blob.Numel(t.Shape)
		size, ok2 := t.DType.ByteLen(n)
		if l := len(t.Shape); ok && ok2 && l > 0 { // rows, not only the whole, are blocks
			_, ok2 = t.DType.ByteLen(t.Shape[l-1])
		}
		off := offsets[i]
		if !ok || !ok2 || off > uint64(len(data)) || size > len(data)-int(off) {
			return fault.Corrupt("%s: tensor %s does not lie within the file; copy it again", p.path, blob.Clip(t.Name))
		}
		t.Bytes = data[off : int(off)+size : int(off)+size]
		end = max(end, int(off)+size)
	}
	end = (end + int(align) - 1) &^ (int(align) - 1) // the last tensor may be padded as those before it are
	if known && len(data) > end {
		return fault.Corrupt("%s: %d bytes after the last tensor belong to none; copy the file again", p.path, len(data)-end)
	}
	return nil
}
