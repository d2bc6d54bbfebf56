package data

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"promptgen/internal/atomicdir"
	"promptgen/internal/fault"
	"promptgen/tokenizer"
)

// Set is a tokenized corpus: a stream to train on and, where some documents were
// held out, one to validate on, with all that is needed to read text as they do.
type Set struct {
	Manifest Manifest
	Train    *Tokens
	Val      *Tokens // of no tokens where nothing was held out

	vocabPath string
	userDict  string // path; "" without
}

// OpenSet opens the folder that Tokenize wrote. It reads the manifest and the
// frame of every shard, a few kilobytes each, however many tokens there are. A
// folder that is not there or holds no set is fault.Usage; one whose parts do not
// fit together is fault.Corrupt and names the file.
func OpenSet(dir string) (_ *Set, err error) {
	if err := atomicdir.Recover(dir); err != nil {
		return nil, err
	}
	m, err := readManifest(dir)
	if err != nil {
		return nil, err
	}
	s := &Set{Manifest: *m, vocabPath: filepath.Join(dir, vocabName)}
	if _, ok := m.Files[userDictName]; ok {
		s.userDict = filepath.Join(dir, userDictName)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Files)) {
		path := filepath.Join(dir, name)
		if sum, err := fileHash(path); errors.Is(err, fs.ErrPermission) {
			return nil, unreadable(path, err) // it may be whole
		} else if err != nil {
			return nil, fault.Corrupt("%s: the manifest names it, and it cannot be read (%v); tokenize the corpus again", path, err)
		} else if sum != m.Files[name] {
			return nil, fault.Corrupt("%s: changed since the corpus was tokenized with it (checksum); tokenize the corpus again", path)
		}
	}
	if s.Train, err = openSplit(dir, m.Train, m.VocabSize); err != nil {
		return nil, err
	}
	if s.Val, err = openSplit(dir, m.Val, m.VocabSize); err != nil {
		s.Train.Close()
		return nil, err
	}
	return s, nil
}

func openSplit(dir string, split Split, vocabSize int) (*Tokens, error) {
	var parts []part
	for _, info := range split.Shards {
		sh, err := openShard(filepath.Join(dir, info.Name), info)
		if err != nil {
			newTokens(parts, Stats{}, 0).Close()
			return nil, err
		}
		parts = append(parts, sh)
	}
	return newTokens(parts, split.Stats, vocabSize), nil
}

// VocabHash is the hash of the vocabulary that the ids count in.
func (s *Set) VocabHash() string { return s.Manifest.VocabHash }

// VocabSize is the number of its tokens.
func (s *Set) VocabSize() int { return s.Manifest.VocabSize }

// Vocab reads the vocabulary that the set's ids count in.
func (s *Set) Vocab() (*tokenizer.Vocab, error) {
	v, err := tokenizer.ReadVocab(s.vocabPath)
	if err != nil {
		return nil, err
	}
	if v.Hash() != s.Manifest.VocabHash {
		return nil, fault.Corrupt("%s: not the vocabulary that the corpus was tokenized with (hash); tokenize the corpus again", s.vocabPath)
	}
	return v, nil
}

// UserDictPath is the user dictionary that lies beside, or "".
func (s *Set) UserDictPath() string { return s.userDict }

// Verify checks every block of every shard that was not used yet.
func (s *Set) Verify(ctx context.Context) error {
	for _, t := range []*Tokens{s.Train, s.Val} {
		for _, p := range t.parts {
			sh, ok := p.(*shard)
			if !ok {
				continue // was read whole
			}
			if err := sh.verifyAll(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close closes the shards of both streams.
func (s *Set) Close() error { return errors.Join(s.Train.Close(), s.Val.Close()) }

// InMemory is how many bytes of tokens lie in memory: those of the original's
// text files, which have no other form.
func (s *Set) InMemory() (bytes int64) {
	for _, t := range []*Tokens{s.Train, s.Val} {
		for _, p := range t.parts {
			switch m := p.(type) {
			case memory[uint16]:
				bytes += 2 * m.len()
			case memory[int32]:
				bytes += 4 * m.len()
			}
		}
	}
	return bytes
}
