package data

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"promptgen/internal/fault"
	"promptgen/tokenizer"
)

// IsLegacy tells whether dir looks like a folder of the original's token files.
func IsLegacy(dir string) bool {
	_, err := os.Stat(bookPiece(dir, 0))
	return err == nil
}

// OpenLegacy opens a folder of the original's files tokenized_train_N.txt, ids
// with a space behind each, counted in the vocabulary at vocabPath. The ids are
// kept in memory, two bytes each (four with a vocabulary of more than 65536).
// Nothing is held out. The original folds every text to lower case, also where the
// vocabulary has capitals.
func OpenLegacy(dir, vocabPath string) (*Set, error) {
	if vocabPath == "" {
		return nil, fault.Usage("%s: token files of the original need the vocabulary they count in; name it with --vocab", dir)
	}
	v, err := tokenizer.ReadVocab(vocabPath)
	if err != nil {
		return nil, err
	}
	files, err := LegacyFiles(dir)
	if err != nil {
		return nil, err
	}
	var t *Tokens
	if v.Len() <= 1<<16 {
		t, err = readLegacy[uint16](files, v)
	} else {
		t, err = readLegacy[int32](files, v)
	}
	if err != nil {
		return nil, err
	}
	s := &Set{
		Manifest: Manifest{
			Format: "tokenized_train_N.txt", VocabHash: v.Hash(), VocabSize: v.Len(),
			Level: string(tokenizer.LevelWord), LowerCase: true, Compat: true, Train: Split{Stats: t.stats},
		},
		Train: t, Val: newTokens(nil, Stats{}, v.Len()),
		vocabPath: vocabPath,
	}
	return s, nil
}

// legacyNumber is the N of a file called tokenized_train_N.txt.
func legacyNumber(path string) (n int, ok bool) {
	name := filepath.Base(path)
	n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(name, bookPrefix), ".txt"))
	return n, err == nil && name == filepath.Base(bookPiece("", n))
}

// IsLegacyFile tells a token file of the original by its name.
func IsLegacyFile(path string) bool { _, ok := legacyNumber(path); return ok }

// CountLegacy is the number of ids in a token file of the original; one that
// holds anything else is fault.Corrupt.
func CountLegacy(path string) (int, error) {
	ids, err := readIDs[int32](path, math.MaxInt32)
	return len(ids), err
}

// LegacyFiles lists the token files in the order of their numbers, which must
// have no gap.
func LegacyFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fault.Usage("%s: cannot be read as a folder of token files (%v)", dir, err)
	}
	n, last := 0, -1
	for _, e := range entries {
		if number, ok := legacyNumber(e.Name()); ok {
			n++
			last = max(last, number)
		}
	}
	if n == 0 {
		return nil, fault.Usage("%s: holds neither %s nor %s0.txt; make it with promptgen tokenize", dir, manifestName, bookPrefix)
	}
	var files []string
	for i := 0; i <= last; i++ {
		path := bookPiece(dir, i)
		if _, err := os.Stat(path); err != nil {
			return nil, fault.Corrupt("%s: missing, and there are %d files up to %s%d.txt; copy the folder again", path, n, bookPrefix, last)
		}
		files = append(files, path)
	}
	return files, nil
}

func readLegacy[T uint16 | int32](files []string, v *tokenizer.Vocab) (*Tokens, error) {
	var parts []part
	var stats Stats
	special := v.Special()
	for _, path := range files {
		ids, err := readIDs[T](path, v.Len())
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			switch int32(id) {
			case special.CLS:
				stats.Docs++
			case special.UNK:
				stats.Unk++
			}
			if int32(id) != special.MASK && int32(id) != special.CLS {
				stats.Chars += int64(len([]rune(v.Token(int32(id))))) // as near as ids can tell
			}
		}
		if len(ids) > 0 {
			parts = append(parts, memory[T]{path, ids})
			stats.Tokens += int64(len(ids))
		}
	}
	return newTokens(parts, stats, v.Len()), nil
}

// readIDs reads numbers between white space, all below limit.
func readIDs[T uint16 | int32](path string, limit int) ([]T, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer f.Close()
	ids, err := parseIDs[T](f, limit)
	if err != nil {
		return nil, fault.Corrupt("%s: %v", path, err)
	}
	return ids, nil
}

func parseIDs[T uint16 | int32](r io.Reader, limit int) ([]T, error) {
	var ids []T
	s := bufio.NewScanner(r)
	s.Split(bufio.ScanWords)
	for s.Scan() {
		id, err := strconv.ParseUint(string(s.Bytes()), 10, 31)
		if err != nil {
			return nil, fmt.Errorf("number %d is %q and not an id; copy the file again", len(ids)+1, bytes.ToValidUTF8(s.Bytes()[:min(20, len(s.Bytes()))], nil))
		}
		if id >= uint64(limit) {
			return nil, fmt.Errorf("id %d, and the vocabulary has %d tokens; name the vocabulary that the files were made with", id, limit)
		}
		ids = append(ids, T(id))
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("not a file of ids (%v)", err)
	}
	return ids, nil
}
