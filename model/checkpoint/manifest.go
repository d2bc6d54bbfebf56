package checkpoint

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"promptgen/internal/fault"
	"promptgen/model/checkpoint/blob"
	"promptgen/model/checkpoint/safetensors"
)

// manifestName is the file that lists a folder's other files. It is written
// last, so that a folder that has one was once complete.
const manifestName = "manifest.json"

// maxJSON bounds every JSON file of a model folder but tokenizer.json, which is
// written and never read.
const maxJSON = 8 << 20

// fileSum is what the manifest says of one file. The checksum is CRC-32C, which
// processors compute as fast as memory is read: it is there to find damage, and a
// training waits while it is computed.
type fileSum struct {
	Size   int64  `json:"size"`
	CRC32C string `json:"crc32c"` // eight hex digits
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// manifest writes the files of a new folder and notes what it wrote.
type manifest struct {
	dir   string
	files map[string]fileSum
}

func newManifest(dir string) *manifest { return &manifest{dir, map[string]fileSum{}} }

// write creates the file name with what fill writes.
func (m *manifest) write(name string, fill func(io.Writer) error) error {
	f, err := os.OpenFile(filepath.Join(m.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	sum := &summer{w: f}
	buf := bufio.NewWriterSize(sum, 1<<18)
	if err := fill(buf); err != nil {
		f.Close()
		return err
	}
	if err := buf.Flush(); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	m.files[name] = fileSum{sum.n, sum.String()}
	return nil
}

func (m *manifest) writeBytes(name string, b []byte) error {
	return m.write(name, func(w io.Writer) error { _, err := w.Write(b); return err })
}

func (m *manifest) writeJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return m.writeBytes(name, append(b, '\n'))
}

// close writes the manifest itself.
func (m *manifest) close() error {
	return m.writeJSON(manifestName, map[string]any{"files": m.files})
}

// checkManifest compares every file of dir with the manifest in it.
func checkManifest(dir string) error {
	var m struct {
		Files map[string]fileSum `json:"files"`
	}
	if err := readJSON(filepath.Join(dir, manifestName), &m); err != nil {
		return err
	}
	return checkSums(dir, m.Files)
}

// checkSums compares files with their sums: first all sizes, which costs
// nothing, then all contents.
func checkSums(dir string, files map[string]fileSum) error {
	names := slices.Sorted(maps.Keys(files))
	for _, name := range names {
		if !filepath.IsLocal(name) || filepath.Base(name) != name {
			return fault.Corrupt("%s: names the file %s, which is not in the folder", dir, blob.Clip(name))
		}
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || !info.Mode().IsRegular() {
			return fault.Corrupt("%s: is missing %s; the folder is not whole", dir, name)
		}
		if info.Size() != files[name].Size {
			return fault.Corrupt("%s: %d bytes long, and the folder's list says %d; it is not whole", filepath.Join(dir, name), info.Size(), files[name].Size)
		}
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		sum, err := sumFile(path)
		if err != nil {
			return err
		}
		if sum != files[name].CRC32C {
			return fault.Corrupt("%s: its contents are not those that were written (checksum); it is damaged", path)
		}
	}
	return nil
}

// sumFile is the checksum of a file.
func sumFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", blob.OpenError(path, err)
	}
	defer f.Close()
	sum := &summer{w: io.Discard}
	if _, err := io.CopyBuffer(sum, struct{ io.Reader }{f}, make([]byte, 1<<18)); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return sum.String(), nil
}

// summer counts and sums what goes through it.
type summer struct {
	w   io.Writer
	crc uint32
	n   int64
}

func (s *summer) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	s.crc = crc32.Update(s.crc, castagnoli, b[:n])
	s.n += int64(n)
	return n, err
}

func (s *summer) String() string { return fmt.Sprintf("%08x", s.crc) }

// checkPart refuses what is no file where a folder has to have one. Whatever is
// wrong with a part of a folder is damage of the folder (5): that it is missing,
// too. The one exception is a part that may not be read, which is a fault of
// usage (2) as with every other file: it may be whole, and whoever owns it can
// allow it.
func checkPart(path string) error {
	info, err := os.Stat(path)
	switch {
	case os.IsNotExist(err):
		return fault.Corrupt("%s: is missing; the folder is not whole", path)
	case err != nil:
		return blob.OpenError(path, err)
	case info.IsDir():
		return fault.Corrupt("%s: is a folder, and a file belongs there; copy the file again", path)
	case !info.Mode().IsRegular():
		return fault.Corrupt("%s: is a device or a pipe, and a file belongs there; copy the file again", path)
	}
	return nil
}

// openPart opens a file that a folder has to have.
func openPart(path string) (*blob.File, error) {
	if err := checkPart(path); err != nil {
		return nil, err
	}
	return blob.Open(path)
}

// byteOrderMark opens the text files of some editors, JSON among them.
const byteOrderMark = "\ufeff"

// readJSON reads a JSON file that a folder has to have: a broken one, or one that
// is too long, is fault.Corrupt.
func readJSON(path string, v any) error {
	if err := checkPart(path); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return blob.OpenError(path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxJSON+1))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(b) > maxJSON {
		return fault.Corrupt("%s: is longer than %d bytes, which no such file is", path, maxJSON)
	}
	if err := json.Unmarshal(bytes.TrimPrefix(b, []byte(byteOrderMark)), v); err != nil {
		return fault.Corrupt("%s: is broken JSON (%v); copy it again", path, err)
	}
	return nil
}

// writeParts writes a safetensors file; "pt" is what transformers wants to read
// in its metadata.
func (m *manifest) writeParts(name string, parts []safetensors.Part) error {
	return m.write(name, func(w io.Writer) error {
		return safetensors.Write(w, parts, map[string]string{"format": "pt"})
	})
}
