package gguf

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"promptgen/model/checkpoint/blob"
)

// Part is one tensor to be written, row by row.
type Part struct {
	Name  string
	DType blob.DType
	Shape []int // row-major
	// Row writes row i into dst, which has the length of the last dimension.
	Row func(dst []float32, i int)
}

func (t Part) size() int {
	n, _ := blob.Numel(t.Shape)
	size, _ := t.DType.ByteLen(n)
	return size
}

// Pair is one key with its value: uint32, float32, bool, string, []string or
// []int32.
type Pair struct {
	Key   string
	Value any
}

// Write writes a file.
func Write(w io.Writer, pairs []Pair, parts []Part) error {
	b := []byte(Magic)
	le := binary.LittleEndian
	b = le.AppendUint32(b, version)
	b = le.AppendUint64(b, uint64(len(parts)))
	b = le.AppendUint64(b, uint64(len(pairs)))
	for _, p := range pairs {
		var err error
		if b, err = appendValue(appendString(b, p.Key), p.Value); err != nil {
			return fmt.Errorf("%s: %w", p.Key, err)
		}
	}
	off := 0
	for _, t := range parts {
		b = le.AppendUint32(appendString(b, t.Name), uint32(len(t.Shape)))
		for i := len(t.Shape) - 1; i >= 0; i-- {
			b = le.AppendUint64(b, uint64(t.Shape[i]))
		}
		b = le.AppendUint32(b, typeNumbers[t.DType])
		b = le.AppendUint64(b, uint64(off))
		off += padded(t.size())
	}
	b = append(b, make([]byte, padded(len(b))-len(b))...)
	if _, err := w.Write(b); err != nil {
		return err
	}
	buf := bufio.NewWriterSize(w, 1<<18)
	for _, t := range parts {
		if err := t.write(buf); err != nil {
			return err
		}
	}
	return buf.Flush()
}

// write converts a tensor row by row.
func (t Part) write(w io.Writer) error {
	width := t.Shape[len(t.Shape)-1]
	n, _ := blob.Numel(t.Shape)
	row := make([]float32, width)
	var b []byte
	for i := range n / width {
		t.Row(row, i)
		b = blob.Encode(b[:0], t.DType, row)
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	size := t.size()
	_, err := w.Write(make([]byte, padded(size)-size))
	return err
}

func padded(n int) int { return (n + alignment - 1) / alignment * alignment }

func appendString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...)
}

func appendValue(b []byte, v any) ([]byte, error) {
	le := binary.LittleEndian
	switch v := v.(type) {
	case uint32:
		return le.AppendUint32(le.AppendUint32(b, typeU32), v), nil
	case float32:
		return le.AppendUint32(le.AppendUint32(b, typeF32), math.Float32bits(v)), nil
	case bool:
		n := byte(0)
		if v {
			n = 1
		}
		return append(le.AppendUint32(b, typeBool), n), nil
	case string:
		return appendString(le.AppendUint32(b, typeString), v), nil
	case []string:
		b = le.AppendUint64(le.AppendUint32(le.AppendUint32(b, typeArray), typeString), uint64(len(v)))
		for _, s := range v {
			b = appendString(b, s)
		}
		return b, nil
	case []int32:
		b = le.AppendUint64(le.AppendUint32(le.AppendUint32(b, typeArray), typeI32), uint64(len(v)))
		for _, n := range v {
			b = le.AppendUint32(b, uint32(n))
		}
		return b, nil
	}
	return nil, fmt.Errorf("GGUF has no type for a %T", v)
}
