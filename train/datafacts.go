package train

import (
	"context"
	"fmt"

	"promptgen/data"
	"promptgen/train/runlog"
)

// The documents of a long stream are compared up to here: some seconds' work.
const maxCompared = 1 << 30

// learnFacts counts what the data is like, and tells what makes its figures
// worth less than they seem.
func (t *trainer) learnFacts(ctx context.Context) error {
	m := t.set.Manifest
	f := runlog.DataFacts{
		Folder: t.o.Data, Hash: t.hash, VocabHash: t.set.VocabHash(), VocabSize: t.set.VocabSize(), Level: m.Level,
		Documents: t.set.Train.Docs(), Tokens: t.set.Train.Len(), UnkShare: t.set.Train.Stats().UnkShare(),
	}
	if t.set.Val != nil && t.set.Val.Len() > 0 {
		f.ValDocuments, f.ValTokens, f.ValUnkShare = t.set.Val.Docs(), t.set.Val.Len(), t.set.Val.Stats().UnkShare()
		var err error
		if f.SharedDocuments, f.ValDocuments, err = sharedDocuments(ctx, t.set, t.vocab.Special().CLS); err != nil {
			return err
		}
	}
	if f.SharedDocuments > 0 {
		t.obs.Notice(fmt.Sprintf("%d of %d validation documents are training documents as well: the validation loss says less than it seems; remove the duplicates and tokenize again",
			f.SharedDocuments, f.ValDocuments))
	}
	t.facts = f
	return nil
}

// sharedDocuments counts the documents of the held-out part that also are in
// the training part, token by token, and all of them. Documents end with the
// token end.
func sharedDocuments(ctx context.Context, s *data.Set, end int32) (shared, all int64, err error) {
	held := map[uint64]int64{}
	err = eachDocument(ctx, s.Val, end, func(hash uint64) {
		held[hash]++
		all++
	})
	if err != nil {
		return 0, 0, err
	}
	err = eachDocument(ctx, s.Train, end, func(hash uint64) {
		if n, ok := held[hash]; ok {
			shared += n
			delete(held, hash)
		}
	})
	return shared, all, err
}

// eachDocument calls f with a hash (FNV-1a over tokens) of each document.
func eachDocument(ctx context.Context, tokens *data.Tokens, end int32, f func(hash uint64)) error {
	const offset, prime = 14695981039346656037, 1099511628211
	buf := make([]int32, 1<<16)
	hash, length := uint64(offset), 0
	limit := min(tokens.Len(), maxCompared)
	for at := int64(0); at < limit; at += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := buf[:min(int64(len(buf)), limit-at)]
		if err := tokens.ReadAt(part, at); err != nil {
			return err
		}
		for _, id := range part {
			hash = (hash ^ uint64(id)) * prime
			if length++; id == end {
				f(hash ^ uint64(length)<<40)
				hash, length = offset, 0
			}
		}
	}
	return nil
}
