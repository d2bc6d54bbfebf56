package torchfile

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"

	"promptgen/model/checkpoint/blob"
)

// Storage is one block of bytes to be written, with the tensors that lie in it,
// all of them from its beginning. Write is called twice, once for the checksum,
// and produces Size bytes.
type Storage struct {
	DType   blob.DType // F32, F16 or BF16
	Size    int
	Write   func(io.Writer) error
	Tensors []Named
}

// Named is a tensor's name and shape.
type Named struct {
	Name  string
	Shape []int
}

// classes are PyTorch's names for storages.
var classes = map[blob.DType]string{blob.F32: "FloatStorage", blob.F16: "HalfStorage", blob.BF16: "BFloat16Storage"}

// folder is the name that the archive's entries begin with.
const folder = "pytorch_model/"

// align is where the bytes of an entry begin, as PyTorch does it: a multiple of
// this, so that they can be used where they lie.
const align = 64

// Write writes the zip format of PyTorch 1.6 and later, a dictionary of tensors
// that torch.load takes with weights_only=True.
func Write(w io.Writer, storages []Storage) error {
	a := &archive{count: countingWriter{w: w}}
	a.zip = zip.NewWriter(&a.count)
	if err := a.bytes("data.pkl", program(storages)); err != nil {
		return err
	}
	if err := a.bytes("byteorder", []byte("little")); err != nil {
		return err
	}
	for i, s := range storages {
		if err := a.entry("data/"+strconv.Itoa(i), s.Size, s.Write); err != nil {
			return err
		}
	}
	if err := a.bytes("version", []byte("3\n")); err != nil {
		return err
	}
	return a.zip.Close()
}

// archive writes aligned, uncompressed entries.
type archive struct {
	count countingWriter
	zip   *zip.Writer
}

func (a *archive) bytes(name string, b []byte) error {
	return a.entry(name, len(b), func(w io.Writer) error { _, err := w.Write(b); return err })
}

func (a *archive) entry(name string, size int, fill func(io.Writer) error) error {
	sum := crc32.NewIEEE()
	if err := fill(sum); err != nil {
		return err
	}
	if err := a.zip.Flush(); err != nil {
		return err
	}
	// A local header is 30 bytes, the name and the extra field, whose own
	// header is 4; "FB" is PyTorch's mark for padding.
	const local, extra = 30, 4
	at := a.count.n + local + int64(len(folder)+len(name)) + extra
	pad := int((align - at%align) % align)
	field := binary.LittleEndian.AppendUint16([]byte("FB"), uint16(pad))
	h := &zip.FileHeader{
		Name: folder + name, Method: zip.Store, CRC32: sum.Sum32(),
		CompressedSize64: uint64(size), UncompressedSize64: uint64(size),
		Extra: append(field, bytes.Repeat([]byte("Z"), pad)...),
	}
	e, err := a.zip.CreateRaw(h)
	if err != nil {
		return err
	}
	out := countingWriter{w: e}
	if err := fill(&out); err != nil {
		return err
	}
	if out.n != int64(size) {
		return fmt.Errorf("%s: wrote %d bytes in place of %d", name, out.n, size)
	}
	return nil
}

// countingWriter knows how much went through it.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// program is the pickle of the dictionary, in protocol 2 as PyTorch writes it
// (without a memo: nothing here is large enough to be worth one).
func program(storages []Storage) []byte {
	b := []byte{0x80, 2}
	b = append(b, "ccollections\nOrderedDict\n)R("...)
	for i, s := range storages {
		width, _ := s.DType.ByteLen(1)
		for _, t := range s.Tensors {
			b = appendText(b, t.Name)
			b = append(b, "ctorch._utils\n_rebuild_tensor_v2\n(("...)
			b = appendText(b, "storage")
			b = append(b, "ctorch\n"+classes[s.DType]+"\n"...)
			b = appendText(b, strconv.Itoa(i))
			b = appendText(b, "cpu")
			b = appendInt(b, s.Size/width)
			b = append(b, "tQ"...) // the persistent id of the storage
			b = appendInt(b, 0)
			b = appendShape(b, t.Shape)
			b = appendShape(b, strides(t.Shape))
			b = append(b, 0x89)                               // requires_grad: False
			b = append(b, "ccollections\nOrderedDict\n)R"...) // no hooks
			b = append(b, "tR"...)
		}
	}
	return append(b, "u."...)
}

func appendText(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(append(b, 'X'), uint32(len(s))), s...)
}

// appendInt writes an integer: four bytes where they suffice, else LONG1.
func appendInt(b []byte, n int) []byte {
	if int(int32(n)) == n {
		return binary.LittleEndian.AppendUint32(append(b, 'J'), uint32(n))
	}
	return binary.LittleEndian.AppendUint64(append(b, 0x8a, 8), uint64(n))
}

func appendShape(b []byte, dims []int) []byte {
	b = append(b, '(')
	for _, d := range dims {
		b = appendInt(b, d)
	}
	return append(b, 't')
}

// strides are those of a row-major tensor.
func strides(shape []int) []int {
	s := make([]int, len(shape))
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		s[i] = n
		n *= shape[i]
	}
	return s
}
