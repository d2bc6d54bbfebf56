package data

import (
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"time"
)

// Defaults of the estimate of an epoch's steps: those of train.
const (
	defaultNCtx      = 1024
	defaultBatchSize = 8
)

// Report is what came of tokenizing a corpus.
type Report struct {
	Train   Stats `json:"train"`
	Val     Stats `json:"val"`
	Dropped int64 `json:"dropped_documents"` // no longer than the least length asked for
	Bytes   int64 `json:"bytes"`             // of text, decoded

	UnkShare     float64     `json:"unk_share"`
	TokensPerChr float64     `json:"tokens_per_character"`
	Unknown      []UnkSource `json:"unknown"` // the twenty commonest
	Lengths      []LengthBin `json:"lengths"` // of documents, in tokens
	NCtx         int         `json:"n_ctx"`   // that Steps are counted for
	BatchSize    int         `json:"batch_size"`
	Windows      int         `json:"windows"`
	Steps        int         `json:"steps_per_epoch"`
	Elapsed      Duration    `json:"seconds"`
	Out          string      `json:"out"`
}

// Duration is a time.Duration that JSON shows in seconds.
type Duration time.Duration

// MarshalJSON gives seconds.
func (d Duration) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.3f", time.Duration(d).Seconds()), nil
}

// UnkSource is a piece of text that became [UNK], and how often.
type UnkSource struct {
	Text  string `json:"text"`
	Count int64  `json:"count"`
}

// LengthBin counts the documents of From to To tokens.
type LengthBin struct {
	From int   `json:"from"`
	To   int   `json:"to"`
	Docs int64 `json:"documents"`
}

// tally gathers a report while batches come in. It is kept in the journal of an
// interrupted run, so its fields are exported.
type tally struct {
	Train, Val Stats
	Dropped    int64
	Bytes      int64
	Lengths    []int64 // Lengths[i] documents of 2^i to 2^(i+1)-1 tokens
	Unknown    map[string]int64
}

// add counts a batch.
func (t *tally) add(b *batch) {
	for i, d := range b.docs {
		s := b.stats[i]
		t.Bytes += int64(len(d.Text))
		if s.Docs == 0 {
			t.Dropped++
			continue
		}
		if b.val[i] {
			t.Val.add(s)
		} else {
			t.Train.add(s)
		}
		bin := bits.Len64(uint64(s.Tokens)) - 1
		for len(t.Lengths) <= bin {
			t.Lengths = append(t.Lengths, 0)
		}
		t.Lengths[bin]++
	}
	if t.Unknown == nil {
		t.Unknown = map[string]int64{}
	}
	for text, n := range b.unknown {
		t.Unknown[text] += n
	}
	if len(t.Unknown) > 2*keptUnknown {
		t.prune()
	}
}

// keptUnknown is how many different sources of [UNK] are counted on with: a
// corpus in a foreign script would otherwise fill the memory with them.
const keptUnknown = 20000

// prune keeps the commonest sources.
func (t *tally) prune() {
	for _, u := range t.commonest()[keptUnknown:] {
		delete(t.Unknown, u.Text)
	}
}

// commonest lists the sources, the commonest first, equal ones by their text.
func (t *tally) commonest() []UnkSource {
	list := make([]UnkSource, 0, len(t.Unknown))
	for text, n := range t.Unknown {
		list = append(list, UnkSource{text, n})
	}
	slices.SortFunc(list, func(a, b UnkSource) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Text, b.Text))
	})
	return list
}

func (t *tally) clone() tally {
	c := *t
	c.Lengths, c.Unknown = slices.Clone(t.Lengths), maps.Clone(t.Unknown)
	return c
}

// report makes the report.
func (t *tally) report() *Report {
	r := &Report{Train: t.Train, Val: t.Val, Dropped: t.Dropped, Bytes: t.Bytes, NCtx: defaultNCtx, BatchSize: defaultBatchSize}
	all := r.All()
	r.UnkShare = all.UnkShare()
	if all.Chars > 0 {
		r.TokensPerChr = float64(all.Tokens) / float64(all.Chars)
	}
	r.Unknown = t.commonest()
	r.Unknown = r.Unknown[:min(20, len(r.Unknown))]
	for i, n := range t.Lengths {
		if n > 0 || len(r.Lengths) > 0 {
			r.Lengths = append(r.Lengths, LengthBin{1 << i, 1<<(i+1) - 1, n})
		}
	}
	r.Windows = CountWindows(t.Train.Tokens, r.NCtx, 0)
	r.Steps = (r.Windows + r.BatchSize - 1) / r.BatchSize
	return r
}

// All are the counts of both streams together.
func (r *Report) All() Stats {
	s := r.Train
	s.add(r.Val)
	return s
}
