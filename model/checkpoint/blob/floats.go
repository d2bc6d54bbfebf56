package blob

import (
	"encoding/binary"
	"io"
	"math"
	"unsafe"

	"promptgen/internal/half"
)

// littleEndian tells whether this machine stores numbers as the files do.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// Floats are the elements as float32: a view of Bytes where that is possible
// (type F32, bytes aligned, a little-endian machine), else a copy. IsWeight must
// hold for the type and Bytes must have the right length.
func (t Tensor) Floats() []float32 {
	if v, ok := View(t); ok {
		return v
	}
	out := make([]float32, t.Len())
	Decode(out, t.DType, t.Bytes)
	return out
}

// View is the float32 view of a tensor's bytes, where there can be one.
func View(t Tensor) ([]float32, bool) {
	if t.DType != F32 || !littleEndian || len(t.Bytes) < 4 {
		return nil, false
	}
	p := unsafe.Pointer(unsafe.SliceData(t.Bytes))
	if uintptr(p)%4 != 0 {
		return nil, false
	}
	return unsafe.Slice((*float32)(p), len(t.Bytes)/4), true
}

// AsBytes is the other way round: the little-endian bytes of floats, a view of
// them where the machine stores them so.
func AsBytes(f []float32) []byte {
	if len(f) == 0 {
		return nil
	}
	if littleEndian {
		return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(f))), 4*len(f))
	}
	b := make([]byte, 0, 4*len(f))
	for _, v := range f {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

// Decode converts the bytes of a weight type into dst, which has their number
// of elements.
func Decode(dst []float32, d DType, b []byte) {
	le := binary.LittleEndian
	switch d {
	case F32:
		if littleEndian {
			copy(AsBytes(dst), b)
			return
		}
		for i := range dst {
			dst[i] = math.Float32frombits(le.Uint32(b[4*i:]))
		}
	case F16:
		for i := range dst {
			dst[i] = half.FromFP16(le.Uint16(b[2*i:]))
		}
	case BF16:
		for i := range dst {
			dst[i] = half.FromBF16(le.Uint16(b[2*i:]))
		}
	case Q8_0:
		for len(dst) > 0 {
			scale := half.FromFP16(le.Uint16(b))
			for i := range qBlock {
				dst[i] = scale * float32(int8(b[2+i]))
			}
			dst, b = dst[qBlock:], b[2+qBlock:]
		}
	case Q4_0:
		for len(dst) > 0 {
			scale := half.FromFP16(le.Uint16(b))
			for i := range qBlock / 2 {
				dst[i] = scale * float32(int(b[2+i]&15)-8)
				dst[i+qBlock/2] = scale * float32(int(b[2+i]>>4)-8)
			}
			dst, b = dst[qBlock:], b[2+qBlock/2:]
		}
	}
}

// decodeBF16 converts the bytes of a float type into bfloat16.
func decodeBF16(dst []uint16, d DType, b []byte) {
	for i := range dst {
		switch d {
		case BF16:
			dst[i] = binary.LittleEndian.Uint16(b[2*i:])
		case F16:
			dst[i] = half.ToBF16(half.FromFP16(binary.LittleEndian.Uint16(b[2*i:])))
		case F32:
			dst[i] = half.ToBF16(math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:])))
		}
	}
}

// Encode appends floats as a weight type. A quantized type needs a whole number
// of blocks.
func Encode(b []byte, d DType, src []float32) []byte {
	le := binary.LittleEndian
	switch d {
	case F32:
		for _, v := range src {
			b = le.AppendUint32(b, math.Float32bits(v))
		}
	case F16:
		for _, v := range src {
			b = le.AppendUint16(b, half.ToFP16(v))
		}
	case BF16:
		for _, v := range src {
			b = le.AppendUint16(b, half.ToBF16(v))
		}
	case Q8_0:
		for ; len(src) > 0; src = src[qBlock:] {
			b = appendQ8(b, src[:qBlock])
		}
	case Q4_0:
		for ; len(src) > 0; src = src[qBlock:] {
			b = appendQ4(b, src[:qBlock])
		}
	}
	return b
}

// appendQ8 writes one q8_0 block: scale = max|x|/127, each element the nearest
// multiple of it (ggml's quantize_row_q8_0).
func appendQ8(b []byte, x []float32) []byte {
	var amax float32
	for _, v := range x {
		amax = max(amax, float32(math.Abs(float64(v))))
	}
	scale := amax / 127
	b = binary.LittleEndian.AppendUint16(b, half.ToFP16(scale))
	inv := float32(0)
	if scale > 0 {
		inv = 1 / scale
	}
	for _, v := range x {
		b = append(b, byte(int8(math.Round(float64(v*inv)))))
	}
	return b
}

// appendQ4 writes one q4_0 block: the element furthest from 0 becomes -8
// exactly, so scale = that/-8; nibbles hold q+8, the block's first half in the
// low ones (ggml's quantize_row_q4_0).
func appendQ4(b []byte, x []float32) []byte {
	var far float32
	for _, v := range x {
		if math.Abs(float64(v)) > math.Abs(float64(far)) {
			far = v
		}
	}
	scale := far / -8
	b = binary.LittleEndian.AppendUint16(b, half.ToFP16(scale))
	inv := float32(0)
	if scale != 0 {
		inv = 1 / scale
	}
	// Rounded before the addition: fused, it would be another nibble than where
	// weights are quantized as they are loaded.
	nibble := func(v float32) byte { return byte(max(0, min(15, int(float32(v*inv)+8.5)))) }
	for i := range qBlock / 2 {
		b = append(b, nibble(x[i])|nibble(x[i+qBlock/2])<<4)
	}
	return b
}

// WriteFloats writes floats as a weight type, a piece at a time: there is never
// a converted copy of the whole.
func WriteFloats(w io.Writer, d DType, f []float32) error {
	const piece = 1 << 16 // elements; a whole number of blocks
	if d == F32 && littleEndian {
		_, err := w.Write(AsBytes(f))
		return err
	}
	var buf []byte
	for len(f) > 0 {
		n := min(piece, len(f))
		buf = Encode(buf[:0], d, f[:n])
		if _, err := w.Write(buf); err != nil {
			return err
		}
		f = f[n:]
	}
	return nil
}

// WriteHalves writes 16-bit values as they are.
func WriteHalves(w io.Writer, h []uint16) error {
	const piece = 1 << 16
	var buf []byte
	for len(h) > 0 {
		n := min(piece, len(h))
		buf = buf[:0]
		for _, v := range h[:n] {
			buf = binary.LittleEndian.AppendUint16(buf, v)
		}
		if _, err := w.Write(buf); err != nil {
			return err
		}
		h = h[n:]
	}
	return nil
}
