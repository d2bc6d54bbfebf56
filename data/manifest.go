package data

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"promptgen/internal/fault"
)

// The files of a set's folder, shards apart.
const (
	manifestName = "manifest.json"
	vocabName    = "vocab.txt"
	userDictName = "user_dict.txt"
)

const (
	manifestFormat  = "promptgen tokens"
	manifestVersion = 1
	maxManifest     = 16 << 20 // bytes; a set of 10^12 tokens has some 10 MB
)

// Manifest is manifest.json: what a set of shards holds and how it was made.
// Its last field is a checksum of all that stands before it.
type Manifest struct {
	Format    string `json:"format"`
	Version   int    `json:"version"`
	VocabHash string `json:"vocab_hash"` // tokenizer.Vocab.Hash
	VocabSize int    `json:"vocab_size"`
	Level     string `json:"level"`
	LowerCase bool   `json:"lower_case"`
	Compat    bool   `json:"compat_book"` // tokenized as the original does
	MinLength int    `json:"min_length"`
	Dropped   int64  `json:"dropped_documents"` // for being no longer than MinLength

	// SHA-256 of the files that lie beside, by name.
	Files map[string]string `json:"files"`

	Train Split `json:"train"`
	Val   Split `json:"val"`

	Checksum string `json:"checksum,omitempty"` // SHA-256 of the manifest without this field
}

// Split is one of a set's two streams.
type Split struct {
	Stats
	Shards []ShardInfo `json:"shards"`
}

// ShardInfo is a shard's entry in the manifest.
type ShardInfo struct {
	Name       string `json:"name"`
	Tokens     int64  `json:"tokens"`
	TokenBytes int    `json:"token_bytes"`
	Checksum   uint32 `json:"checksum"` // CRC-32C of its header and its blocks' checksums
}

// encode is the manifest's one and only form in bytes, its checksum included.
func (m Manifest) encode() ([]byte, error) {
	m.Checksum = ""
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	m.Checksum = hex.EncodeToString(sum[:])
	if b, err = json.MarshalIndent(m, "", "  "); err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// decodeManifest reads a manifest and believes nothing of it: any byte that
// encode would not have written there is a fault.
func decodeManifest(b []byte) (*Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("not a manifest (%v)", err)
	}
	if m.Format != manifestFormat {
		return nil, fmt.Errorf("not a manifest of token shards")
	}
	if m.Version != manifestVersion {
		return nil, fmt.Errorf("a manifest of version %d, and this program reads version %d", m.Version, manifestVersion)
	}
	again, err := m.encode()
	if err != nil || !bytes.Equal(b, again) {
		return nil, fmt.Errorf("changed since it was written (checksum)")
	}
	return &m, m.check()
}

// check holds a manifest to what the rest of the package relies on.
func (m *Manifest) check() error {
	if m.VocabSize < 1 || m.VocabSize > 1<<31-1 {
		return fmt.Errorf("a vocabulary of %d tokens", m.VocabSize)
	}
	for _, s := range []Split{m.Train, m.Val} {
		var sum int64
		for _, sh := range s.Shards {
			if sh.Name != filepath.Base(sh.Name) || sh.Name == "." || sh.Tokens < 1 || sh.Tokens > maxShard {
				return fmt.Errorf("an impossible shard %q of %d tokens", sh.Name, sh.Tokens)
			}
			sum += sh.Tokens
		}
		if sum != s.Tokens {
			return fmt.Errorf("shards of %d tokens in all where %d are counted", sum, s.Tokens)
		}
	}
	for name := range m.Files {
		if name != filepath.Base(name) || name == "." {
			return fmt.Errorf("an impossible file name %q", name)
		}
	}
	return nil
}

// readManifest reads dir's manifest. A folder that holds none is told apart: it
// was never tokenized into (fault.Usage).
func readManifest(dir string) (*Manifest, error) {
	path := filepath.Join(dir, manifestName)
	info, err := os.Stat(dir)
	switch {
	case os.IsNotExist(err):
		return nil, fault.Usage("%s: no such folder; make it with promptgen tokenize", dir)
	case err != nil:
		return nil, fault.Usage("%s: cannot be read (%v)", dir, err)
	case !info.IsDir():
		return nil, fault.Usage("%s: is a file; name the folder that promptgen tokenize wrote", dir)
	}
	if _, err := os.Stat(path); os.IsNotExist(err) {
		return nil, fault.Usage("%s: holds no %s; name a folder that promptgen tokenize wrote", dir, manifestName)
	}
	return ReadManifest(path)
}

// ReadManifest reads a manifest.json and checks it against itself. The shards
// that it names are not looked at.
func ReadManifest(path string) (*Manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err == nil && len(b) > maxManifest {
		err = fmt.Errorf("longer than a manifest can be")
	}
	var m *Manifest
	if err == nil {
		m, err = decodeManifest(b)
	}
	if err != nil {
		return nil, fault.Corrupt("%s: %v; tokenize the corpus again, or copy the folder again", path, err)
	}
	return m, nil
}

// fileHash is the SHA-256 of a file, in hexadecimal.
func fileHash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
