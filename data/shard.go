package data

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"promptgen/internal/fault"
)

// A shard file holds a stretch of a split's tokens (all numbers little-endian):
//
//	offset 0   8 bytes   "PGTOKENS"
//	       8   uint32    version of the format, 1
//	      12   uint32    bytes a token, 2 or 4
//	      16   uint64    number of tokens, n
//	      24   uint32    tokens a block, b
//	      28   uint32    0
//	      32   n tokens
//	       .   ⌈n/b⌉ × uint32: CRC-32C of each block of b tokens
//	       .   uint32    CRC-32C of the header and of the blocks' checksums
//
// Opening a shard reads its header and its end, a few kilobytes, and the last
// checksum, which the manifest repeats, vouches for both. The tokens themselves
// are checked block by block, when a block is first read.
const (
	shardMagic   = "PGTOKENS"
	shardVersion = 1
	headerBytes  = 32
	blockTokens  = 1 << 17 // 256 KiB of uint16
	maxShard     = 1 << 31 // tokens; nothing written here comes near it
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// shardHeader is the decoded header.
type shardHeader struct {
	tokenBytes int
	tokens     int64
	block      int64 // tokens a block
}

func (h shardHeader) blocks() int64 { return (h.tokens + h.block - 1) / h.block }

// size is the length of the whole file in bytes.
func (h shardHeader) size() int64 {
	return headerBytes + h.tokens*int64(h.tokenBytes) + 4*h.blocks() + 4
}

func (h shardHeader) encode() []byte {
	b := make([]byte, 0, headerBytes)
	b = append(b, shardMagic...)
	b = binary.LittleEndian.AppendUint32(b, shardVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(h.tokenBytes))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.tokens))
	b = binary.LittleEndian.AppendUint32(b, uint32(h.block))
	return binary.LittleEndian.AppendUint32(b, 0)
}

// decodeHeader reads a header and holds every number in it to its limits, so
// that what is computed from them cannot overflow.
func decodeHeader(b []byte) (shardHeader, error) {
	var h shardHeader
	if len(b) < headerBytes || string(b[:8]) != shardMagic {
		return h, errors.New("not a token shard")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != shardVersion {
		return h, fmt.Errorf("a token shard of version %d, and this program reads version %d", v, shardVersion)
	}
	tokens := binary.LittleEndian.Uint64(b[16:])
	h.tokenBytes = int(binary.LittleEndian.Uint32(b[12:]))
	h.block = int64(binary.LittleEndian.Uint32(b[24:]))
	if h.tokenBytes != 2 && h.tokenBytes != 4 || tokens > maxShard || h.block < 1 || h.block > 1<<24 || binary.LittleEndian.Uint32(b[28:]) != 0 {
		return h, errors.New("a header with impossible numbers")
	}
	h.tokens = int64(tokens)
	return h, nil
}

// shard is a shard file open for reading, with pread: windows are read at random
// places, by several goroutines, and a mapping would turn a disk's error or a
// file cut short into a signal that ends the program.
type shard struct {
	shardHeader
	f        *os.File
	path     string
	sums     []uint32        // CRC-32C of each block
	verified []atomic.Uint32 // one bit a block
}

// openShard opens the shard at path and checks its frame. want is its entry in
// the manifest.
func openShard(path string, want ShardInfo) (*shard, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, unreadable(path, err) // it may be whole
	}
	if err != nil {
		return nil, fault.Corrupt("%s: the manifest names it, and it cannot be opened (%v); tokenize the corpus again", path, errors.Unwrap(err))
	}
	s, got, err := readFrame(f)
	switch {
	case err != nil:
	case got.Tokens != want.Tokens || got.TokenBytes != want.TokenBytes:
		err = fmt.Errorf("%d tokens of %d bytes where the manifest says %d of %d", got.Tokens, got.TokenBytes, want.Tokens, want.TokenBytes)
	case got.Checksum != want.Checksum:
		err = errors.New("its checksum is not that of the manifest")
	}
	if err != nil {
		f.Close()
		return nil, damagedShard(path, err)
	}
	return s, nil
}

func damagedShard(path string, err error) error {
	return fault.Corrupt("%s: %v; tokenize the corpus again, or copy the folder again", path, err)
}

// InspectShard checks all of the shard at path by its own checksums, and is what
// a manifest would say of it.
func InspectShard(ctx context.Context, path string) (ShardInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return ShardInfo{}, unreadable(path, err)
	}
	defer f.Close()
	s, info, err := readFrame(f)
	if err != nil {
		return info, damagedShard(path, err)
	}
	return info, s.verifyAll(ctx)
}

// IsShard tells a shard by the beginning of its file.
func IsShard(head []byte) bool { return bytes.HasPrefix(head, []byte(shardMagic)) }

// readFrame reads the header and the checksums of a shard, and holds them to each
// other and to the file's length.
func readFrame(f *os.File) (*shard, ShardInfo, error) {
	var got ShardInfo
	info, err := f.Stat()
	if err != nil {
		return nil, got, err
	}
	head := make([]byte, headerBytes)
	if _, err := f.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, got, err
	}
	h, err := decodeHeader(head)
	if err != nil {
		return nil, got, err
	}
	if info.Size() != h.size() {
		return nil, got, fmt.Errorf("%d bytes long where its header asks for %d", info.Size(), h.size())
	}
	foot := make([]byte, 4*h.blocks()+4)
	if _, err := f.ReadAt(foot, headerBytes+h.tokens*int64(h.tokenBytes)); err != nil {
		return nil, got, err
	}
	got = ShardInfo{filepath.Base(f.Name()), h.tokens, h.tokenBytes, frameSum(head, foot[:len(foot)-4])}
	if got.Checksum != binary.LittleEndian.Uint32(foot[len(foot)-4:]) {
		return nil, got, errors.New("its header or its end is damaged (checksum)")
	}
	s := &shard{shardHeader: h, f: f, path: f.Name(), sums: make([]uint32, h.blocks())}
	for i := range s.sums {
		s.sums[i] = binary.LittleEndian.Uint32(foot[4*i:])
	}
	s.verified = make([]atomic.Uint32, (len(s.sums)+31)/32)
	return s, got, nil
}

// frameSum is the checksum of a shard's header and of its blocks' checksums.
func frameSum(header, sums []byte) uint32 {
	return crc32.Update(crc32.Checksum(header, castagnoli), castagnoli, sums)
}

func (s *shard) len() int64   { return s.tokens }
func (s *shard) name() string { return s.path }
func (s *shard) close() error { return s.f.Close() }

func (s *shard) read(dst []int32, off int64) error {
	if len(dst) == 0 {
		return nil
	}
	for b := off / s.block; b <= (off+int64(len(dst))-1)/s.block; b++ {
		if err := s.verify(b); err != nil {
			return err
		}
	}
	buf := make([]byte, len(dst)*s.tokenBytes)
	if err := s.readBytes(buf, off); err != nil {
		return err
	}
	decodeTokens(dst, buf, s.tokenBytes)
	return nil
}

// verifyAll checks every block that was not used yet.
func (s *shard) verifyAll(ctx context.Context) error {
	for b := range s.blocks() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.verify(b); err != nil {
			return err
		}
	}
	return nil
}

// verify checks block b against its checksum, the first time.
func (s *shard) verify(b int64) error {
	bit := uint32(1) << (b % 32)
	if s.verified[b/32].Load()&bit != 0 {
		return nil
	}
	n := min(s.block, s.tokens-b*s.block)
	buf := make([]byte, n*int64(s.tokenBytes))
	if err := s.readBytes(buf, b*s.block); err != nil {
		return err
	}
	if crc32.Checksum(buf, castagnoli) != s.sums[b] {
		return fault.Corrupt("%s: tokens %d to %d are damaged (checksum); tokenize the corpus again, or copy the folder again", s.path, b*s.block, b*s.block+n)
	}
	s.verified[b/32].Or(bit)
	return nil
}

// readBytes fills buf with the tokens' bytes from token off on.
func (s *shard) readBytes(buf []byte, off int64) error {
	if _, err := s.f.ReadAt(buf, headerBytes+off*int64(s.tokenBytes)); err != nil {
		return fault.Corrupt("%s: reading token %d: %v; copy the folder again", s.path, off, err)
	}
	return nil
}

func decodeTokens(dst []int32, b []byte, tokenBytes int) {
	if tokenBytes == 2 {
		for i := range dst {
			dst[i] = int32(binary.LittleEndian.Uint16(b[2*i:]))
		}
		return
	}
	for i := range dst {
		dst[i] = int32(binary.LittleEndian.Uint32(b[4*i:]))
	}
}

// shardWriter writes a shard token by token. The number of tokens is known only
// at the end, and the header is written then.
type shardWriter struct {
	f       *os.File
	w       *bufio.Writer
	header  shardHeader
	crc     hash.Hash32
	sums    []byte
	scratch []byte
}

func createShard(path string, tokenBytes int) (*shardWriter, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	w := &shardWriter{f: f, w: bufio.NewWriterSize(f, 1<<18), crc: crc32.New(castagnoli)}
	w.header = shardHeader{tokenBytes: tokenBytes, block: blockTokens}
	_, err = w.w.Write(make([]byte, headerBytes))
	return w, err
}

// write appends ids.
func (w *shardWriter) write(ids []int32) error {
	for len(ids) > 0 {
		n := min(int64(len(ids)), w.header.block-w.header.tokens%w.header.block)
		w.scratch = w.scratch[:0]
		for _, id := range ids[:n] {
			if w.header.tokenBytes == 2 {
				w.scratch = binary.LittleEndian.AppendUint16(w.scratch, uint16(id))
			} else {
				w.scratch = binary.LittleEndian.AppendUint32(w.scratch, uint32(id))
			}
		}
		w.crc.Write(w.scratch)
		if _, err := w.w.Write(w.scratch); err != nil {
			return err
		}
		w.header.tokens += n
		ids = ids[n:]
		if w.header.tokens%w.header.block == 0 {
			w.endBlock()
		}
	}
	return nil
}

func (w *shardWriter) endBlock() {
	w.sums = binary.LittleEndian.AppendUint32(w.sums, w.crc.Sum32())
	w.crc.Reset()
}

// finish writes the checksums and the header, syncs and closes the file, and
// returns its entry for the manifest.
func (w *shardWriter) finish() (ShardInfo, error) {
	if w.header.tokens%w.header.block != 0 {
		w.endBlock()
	}
	head := w.header.encode()
	sum := frameSum(head, w.sums)
	_, err := w.w.Write(binary.LittleEndian.AppendUint32(w.sums, sum))
	if err == nil {
		err = w.w.Flush()
	}
	if err == nil {
		_, err = w.f.WriteAt(head, 0)
	}
	if err == nil {
		err = w.f.Sync()
	}
	info := ShardInfo{Name: filepath.Base(w.f.Name()), Tokens: w.header.tokens, TokenBytes: w.header.tokenBytes, Checksum: sum}
	return info, errors.Join(err, w.f.Close())
}

// abandon closes a shard that will not be finished.
func (w *shardWriter) abandon() { w.f.Close() }
