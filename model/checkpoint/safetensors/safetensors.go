// Package safetensors reads and writes the safetensors format: eight bytes with
// the length of a JSON header, the header (name to dtype, shape and the range of
// its bytes), then the tensors' bytes end to end.
//
// The header of a file is foreign text: its length is compared with the file's
// before anything is read, every range with the bytes there are, and the ranges
// with each other.
package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"promptgen/internal/fault"
	"promptgen/model/checkpoint/blob"
)

// Limits of a header: far above every GPT-2 (50,000 tensors fit), far below
// what would hurt.
const (
	maxHeader = 16 << 20
	maxDims   = 8
)

// File is a parsed file. The tensors are in the order of their bytes.
type File struct {
	Tensors  []blob.Tensor
	Metadata map[string]string
}

// Parse reads the file that b holds; path is for messages. The tensors are
// views of b. A file that is not whole or not of the format is fault.Corrupt.
func Parse(path string, b []byte) (*File, error) {
	if len(b) < 8 {
		return nil, fault.Corrupt("%s: %d bytes are no safetensors file; copy it again", path, len(b))
	}
	n := binary.LittleEndian.Uint64(b)
	if n > uint64(len(b)-8) {
		return nil, fault.Corrupt("%s: its header of %d bytes is longer than the file (%d); it is cut short or no safetensors file", path, n, len(b))
	}
	if n > maxHeader {
		return nil, fault.Corrupt("%s: a header of %d bytes is above the limit of %d", path, n, maxHeader)
	}
	p := parser{path: path, data: b[8+n:]}
	if err := p.header(b[8 : 8+n]); err != nil {
		return nil, err
	}
	if err := p.ranges(); err != nil {
		return nil, err
	}
	return &File{p.tensors, p.meta}, nil
}

// parser holds what has been read of a header.
type parser struct {
	path    string
	data    []byte // what follows the header
	tensors []blob.Tensor
	offsets [][2]int
	meta    map[string]string
}

func (p *parser) corrupt(format string, args ...any) error {
	return fault.Corrupt("%s: %s", p.path, fmt.Sprintf(format, args...))
}

// entry is one tensor's line of the header.
type entry struct {
	DType   string `json:"dtype"`
	Shape   []int  `json:"shape"`
	Offsets []int  `json:"data_offsets"`
}

func (p *parser) header(h []byte) error {
	dec := json.NewDecoder(bytes.NewReader(h))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return p.corrupt("its header is no JSON object; it is damaged or no safetensors file")
	}
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		name, ok := tok.(string)
		if err != nil || !ok {
			return p.corrupt("its header is broken JSON at byte %d; copy the file again", dec.InputOffset())
		}
		if seen[name] {
			return p.corrupt("tensor %s occurs twice in the header", blob.Clip(name))
		}
		seen[name] = true
		if name == "__metadata__" {
			err = dec.Decode(&p.meta)
		} else {
			err = p.tensor(dec, name)
		}
		if fault.Code(err) == fault.CodeCorrupt {
			return err
		}
		if err != nil {
			return p.corrupt("the header's entry %s is broken (%v); copy the file again", blob.Clip(name), err)
		}
	}
	if _, err := dec.Token(); err != nil {
		return p.corrupt("its header is broken JSON at byte %d; copy the file again", dec.InputOffset())
	}
	if rest := h[dec.InputOffset():]; len(bytes.TrimSpace(rest)) > 0 {
		return p.corrupt("there is text behind the header's JSON")
	}
	return nil
}

// tensor reads one entry and cuts its bytes out of the data.
func (p *parser) tensor(dec *json.Decoder, name string) error {
	var e entry
	if err := dec.Decode(&e); err != nil {
		return err
	}
	if len(e.Shape) > maxDims {
		return p.corrupt("tensor %s has %d dimensions; %d is the most", blob.Clip(name), len(e.Shape), maxDims)
	}
	if len(e.Offsets) != 2 {
		return p.corrupt("tensor %s has no data_offsets pair", blob.Clip(name))
	}
	lo, hi := e.Offsets[0], e.Offsets[1]
	if lo < 0 || hi < lo || hi > len(p.data) {
		return p.corrupt("tensor %s lies at bytes %d to %d, and there are %d; the file is cut short or damaged", blob.Clip(name), lo, hi, len(p.data))
	}
	n, ok := blob.Numel(e.Shape)
	if !ok {
		return p.corrupt("tensor %s has the impossible shape %v", blob.Clip(name), e.Shape)
	}
	d := blob.DType(e.DType)
	if d.Quantized() {
		return p.corrupt("tensor %s is of type %s, which the format does not have", blob.Clip(name), d)
	}
	if d.Known() { // else it can be skipped, and is refused only where it is needed
		if size, ok := d.ByteLen(n); !ok || size != hi-lo {
			return p.corrupt("tensor %s: %s %v does not take the %d bytes it is given", blob.Clip(name), d, e.Shape, hi-lo)
		}
	}
	p.tensors = append(p.tensors, blob.Tensor{Name: name, DType: d, Shape: e.Shape, Bytes: p.data[lo:hi:hi]})
	p.offsets = append(p.offsets, [2]int{lo, hi})
	return nil
}

// ranges checks that the tensors cover the data end to end, without overlap, as
// the format asks, and puts them into that order.
func (p *parser) ranges() error {
	order := make([]int, len(p.tensors))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(p.offsets[a][0], p.offsets[b][0]), cmp.Compare(p.offsets[a][1], p.offsets[b][1]))
	})
	sorted := make([]blob.Tensor, len(order))
	end := 0
	for k, i := range order {
		sorted[k] = p.tensors[i]
		lo, hi := p.offsets[i][0], p.offsets[i][1]
		switch {
		case lo < end:
			return p.corrupt("tensor %s overlaps another one", blob.Clip(sorted[k].Name))
		case lo > end:
			return p.corrupt("%d bytes before tensor %s belong to none", lo-end, blob.Clip(sorted[k].Name))
		}
		end = hi
	}
	if end != len(p.data) {
		return p.corrupt("%d bytes after the last tensor belong to none; copy the file again", len(p.data)-end)
	}
	p.tensors = sorted
	return nil
}

// Part is one tensor to be written: Write is called once, when its turn comes,
// and must produce exactly Size bytes.
type Part struct {
	Name  string
	DType blob.DType
	Shape []int
	Size  int
	Write func(io.Writer) error
}

// Floats makes a Part of float32 values in the given type; nothing is
// converted before it is written.
func Floats(name string, shape []int, data []float32, d blob.DType) Part {
	size, _ := d.ByteLen(len(data))
	return Part{name, d, shape, size, func(w io.Writer) error { return blob.WriteFloats(w, d, data) }}
}

// Halves makes a Part of values that are bfloat16 already.
func Halves(name string, shape []int, data []uint16) Part {
	return Part{name, blob.BF16, shape, 2 * len(data), func(w io.Writer) error { return blob.WriteHalves(w, data) }}
}

// Write writes a file. The header is padded so that the data begins at a
// multiple of eight bytes, and tensors lie end to end in the given order.
func Write(w io.Writer, parts []Part, metadata map[string]string) error {
	h, err := header(parts, metadata)
	if err != nil {
		return err
	}
	if _, err := w.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(h)))); err != nil {
		return err
	}
	if _, err := w.Write(h); err != nil {
		return err
	}
	for _, p := range parts {
		if err := p.Write(w); err != nil {
			return err
		}
	}
	return nil
}

// header is the JSON in the order of the parts, which a map would lose.
func header(parts []Part, metadata map[string]string) ([]byte, error) {
	var b bytes.Buffer
	put := func(key string, value any) error {
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		k, err := json.Marshal(key)
		if err != nil {
			return err
		}
		v, err := json.Marshal(value)
		b.Write(k)
		b.WriteByte(':')
		b.Write(v)
		return err
	}
	b.WriteByte('{')
	if len(metadata) > 0 {
		if err := put("__metadata__", metadata); err != nil {
			return nil, err
		}
	}
	off := 0
	for _, p := range parts {
		if err := put(p.Name, entry{string(p.DType), p.Shape, []int{off, off + p.Size}}); err != nil {
			return nil, err
		}
		off += p.Size
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	return b.Bytes(), nil
}
