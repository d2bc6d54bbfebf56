// Package torchfile reads and writes what torch.save makes of a state
// dictionary: pytorch_model.bin.
//
// There are two formats. Since PyTorch 1.6 it is a zip archive: data.pkl, a
// pickled dictionary of tensors, and data/KEY, the bytes of each storage. Before
// that it was five pickles in a row (magic number, protocol, system, dictionary,
// list of keys) and then the storages, each behind its length.
//
// A pickle can name any function of Python's; loading one with Python runs it.
// Here it is read by a machine that knows a few names and runs nothing (see
// pickle.go).
package torchfile

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strings"

	"promptgen/internal/fault"
	"promptgen/model/checkpoint/blob"
)

// maxDirectory bounds what is read of a zip archive to learn its entries.
const maxDirectory = 8 << 20

// notContiguous marks the type of a tensor whose elements do not lie in order
// in its storage; it can be skipped and not be read.
const notContiguous blob.DType = "not contiguous in memory"

// Parse reads the file that b holds; path is for messages. The tensors are
// views of b, in the order of the dictionary; some may share bytes, as tied
// weights do. A file that is not whole, not of the format, or that asks for
// anything but tensors is fault.Corrupt.
func Parse(path string, b []byte) ([]blob.Tensor, error) {
	r := &reader{path: path, b: b, storages: map[string]*storage{}}
	switch {
	case isZip(b):
		return r.zipped()
	case Is(b):
		return r.legacy()
	}
	return nil, r.corrupt("is no file of torch.save")
}

// Is tells by how b begins whether torch.save may have written it: as a zip archive,
// or as a pickle that begins with a long integer, of protocols with frames in one.
func Is(b []byte) bool {
	return isZip(b) || len(b) > 2 && b[0] == 0x80 && (b[2] == 0x8a || b[2] == 0x95)
}

func isZip(b []byte) bool { return bytes.HasPrefix(b, []byte("PK\x03\x04")) }

// reader gathers the storages that a dictionary's tensors refer to.
type reader struct {
	path     string
	b        []byte
	storages map[string]*storage
	data     map[string][]byte // by storage key
}

func (r *reader) corrupt(format string, args ...any) error {
	return fault.Corrupt("%s: %s; copy the file again", r.path, fmt.Sprintf(format, args...))
}

// persistent resolves ("storage", type, key, location, elements, …).
func (r *reader) persistent(id tuple) (*storage, error) {
	if len(id) < 5 || id[0] != "storage" {
		return nil, r.corrupt("refers to something that is no storage")
	}
	class, ok1 := id[1].(global)
	key, ok2 := id[2].(string)
	n, ok3 := id[4].(int64)
	d := allowed[string(class)]
	if !ok1 || !ok2 || !ok3 || d == "" {
		return nil, r.corrupt("refers to a storage of no known type")
	}
	if len(id) > 5 && id[5] != nil {
		return nil, r.corrupt("storage %s is a view of another one, which is not supported", blob.Clip(key))
	}
	if n < 0 || n > int64(len(r.b)) {
		return nil, r.corrupt("storage %s has %d elements, and the file %d bytes", blob.Clip(key), n, len(r.b))
	}
	if s, ok := r.storages[key]; ok {
		if s.dtype != d || s.elems != n {
			return nil, r.corrupt("storage %s is described in two ways", blob.Clip(key))
		}
		return s, nil
	}
	s := &storage{key, d, n}
	r.storages[key] = s
	return s, nil
}

// zipped reads the format of PyTorch 1.6 and later.
func (r *reader) zipped() ([]blob.Tensor, error) {
	z, err := zip.NewReader(&bounded{b: r.b, left: maxDirectory}, int64(len(r.b)))
	if err != nil {
		return nil, r.corrupt("its zip archive is broken (%v)", err)
	}
	entries := make(map[string]*zip.File, len(z.File))
	var folder string
	for _, f := range z.File {
		entries[f.Name] = f
		if dir, ok := strings.CutSuffix(f.Name, "data.pkl"); ok && strings.Count(dir, "/") <= 1 {
			folder = dir
		}
	}
	program, err := r.entry(entries[folder+"data.pkl"], "data.pkl")
	if err != nil {
		return nil, err
	}
	if f := entries[folder+"byteorder"]; f != nil {
		order, err := r.entry(f, "byteorder")
		if err != nil {
			return nil, err
		}
		if string(order) != "little" {
			return nil, r.corrupt("is written in the byte order %s, and only little can be read", blob.Clip(string(order)))
		}
	}
	root, err := newMachine(r.path, program, r.persistent).run()
	if err != nil {
		return nil, err
	}
	r.data = make(map[string][]byte, len(r.storages))
	for key := range r.storages {
		if r.data[key], err = r.entry(entries[folder+"data/"+key], "data/"+key); err != nil {
			return nil, err
		}
	}
	return r.tensors(root)
}

// entry is the bytes of an archive's entry, a view of the file. PyTorch stores
// them as they are.
func (r *reader) entry(f *zip.File, name string) ([]byte, error) {
	if f == nil {
		return nil, r.corrupt("its entry %s is missing", blob.Clip(name))
	}
	if f.Method != zip.Store || f.CompressedSize64 != f.UncompressedSize64 {
		return nil, r.corrupt("its entry %s is compressed, which PyTorch never does", blob.Clip(name))
	}
	off, err := f.DataOffset()
	n := f.UncompressedSize64
	if err != nil || off < 0 || off > int64(len(r.b)) || n > uint64(int64(len(r.b))-off) {
		return nil, r.corrupt("its entry %s lies outside of the file", blob.Clip(name))
	}
	data := r.b[off : off+int64(n) : off+int64(n)]
	if crc32.ChecksumIEEE(data) != f.CRC32 {
		return nil, r.corrupt("its entry %s is damaged (checksum)", blob.Clip(name))
	}
	return data, nil
}

// bounded reads from memory, no more than so many bytes in all.
type bounded struct {
	b    []byte
	left int
}

var errTooLong = errors.New("its directory is too long")

func (r *bounded) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > int64(len(r.b)) {
		return 0, io.EOF
	}
	n := copy(p, r.b[off:])
	if r.left -= n; r.left < 0 {
		return 0, errTooLong
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// legacy reads the format before PyTorch 1.6.
func (r *reader) legacy() ([]blob.Tensor, error) {
	pos := 0
	pickle := func() (any, error) {
		m := newMachine(r.path, r.b[pos:], r.persistent)
		v, err := m.run()
		pos += m.pos
		return v, err
	}
	magic, err := pickle()
	if err != nil {
		return nil, err
	}
	version, err := pickle()
	if err != nil {
		return nil, err
	}
	if magic != (magicNumber{}) || version != int64(1001) {
		return nil, r.corrupt("is no file of torch.save")
	}
	system, err := pickle()
	if err != nil {
		return nil, err
	}
	if d, ok := system.(*dict); !ok || d.get("little_endian") == false {
		return nil, r.corrupt("was written on a machine of another byte order")
	}
	root, err := pickle()
	if err != nil {
		return nil, err
	}
	keys, err := pickle()
	if err != nil {
		return nil, err
	}
	if err := r.legacyData(keys, r.b[pos:]); err != nil {
		return nil, err
	}
	return r.tensors(root)
}

// legacyData cuts the storages out of what follows the pickles.
func (r *reader) legacyData(keys any, rest []byte) error {
	l, ok := keys.(*list)
	if !ok {
		return r.corrupt("lacks the list of its storages")
	}
	r.data = make(map[string][]byte, len(r.storages))
	for _, k := range l.items {
		key, _ := k.(string)
		s := r.storages[key]
		if s == nil || r.data[key] != nil {
			return r.corrupt("lists the storage %s, which no tensor has, or lists it twice", blob.Clip(key))
		}
		size, _ := s.dtype.ByteLen(int(s.elems))
		if len(rest) < 8 || binary.LittleEndian.Uint64(rest) != uint64(s.elems) || size > len(rest)-8 {
			return r.corrupt("storage %s is cut short or of another length than its tensors say", blob.Clip(key))
		}
		r.data[key] = rest[8 : 8+size : 8+size]
		rest = rest[8+size:]
	}
	if len(rest) > 0 {
		return r.corrupt("has %d bytes after the last storage", len(rest))
	}
	return nil
}

// get finds a value by its key; nil where there is none.
func (d *dict) get(key string) any {
	for i, k := range d.keys {
		if k == key {
			return d.values[i]
		}
	}
	return nil
}

// tensors makes the list of a dictionary's tensors.
func (r *reader) tensors(root any) ([]blob.Tensor, error) {
	d, ok := root.(*dict)
	if !ok {
		return nil, r.corrupt("holds no dictionary of tensors; save model.state_dict()")
	}
	var out []blob.Tensor
	for i, k := range d.keys {
		name, ok1 := k.(string)
		t, ok2 := d.values[i].(*tensor)
		if !ok1 || !ok2 {
			continue
		}
		view, err := r.view(name, t)
		if err != nil {
			return nil, err
		}
		out = append(out, view)
	}
	if len(out) == 0 {
		return nil, r.corrupt("holds no tensors by name; save model.state_dict()")
	}
	return out, nil
}

// view cuts a tensor's bytes out of its storage.
func (r *reader) view(name string, t *tensor) (blob.Tensor, error) {
	data := r.data[t.storage.key]
	if size, _ := t.storage.dtype.ByteLen(int(t.storage.elems)); len(data) != size {
		return blob.Tensor{}, r.corrupt("storage %s of tensor %s is %d bytes long in place of %d", blob.Clip(t.storage.key), blob.Clip(name), len(data), size)
	}
	v := blob.Tensor{Name: name, DType: t.storage.dtype, Shape: t.shape}
	n, ok := blob.Numel(t.shape)
	if !ok {
		return v, r.corrupt("tensor %s has the impossible shape %v", blob.Clip(name), t.shape)
	}
	if !t.contiguous() {
		v.DType = notContiguous
		return v, nil
	}
	if t.offset > t.storage.elems || int64(n) > t.storage.elems-t.offset {
		return v, r.corrupt("tensor %s reaches beyond its storage", blob.Clip(name))
	}
	width, _ := t.storage.dtype.ByteLen(1)
	lo, hi := int(t.offset)*width, (int(t.offset)+n)*width
	v.Bytes = data[lo:hi:hi]
	return v, nil
}

// contiguous tells whether the elements lie one after the other, row-major.
func (t *tensor) contiguous() bool {
	step := 1
	for i := len(t.shape) - 1; i >= 0; i-- {
		if t.shape[i] != 1 && t.strides[i] != step && t.shape[i] != 0 {
			return false
		}
		if t.shape[i] > 0 && step > math.MaxInt/t.shape[i] {
			return false
		}
		step *= t.shape[i]
	}
	return true
}
