package tokenizer

import (
	"context"
	"iter"
	"strings"
	"sync"
	"unicode/utf8"
)

// batch is some documents in a row.
type batch struct {
	first int64 // number of the first document
	texts []string
}

// batchBytes of documents are handed to a worker at once: enough that handing
// over costs nothing, little enough that memory does not matter.
const batchBytes = 256 << 10

// count counts the words of docs on o.Threads workers. Each keeps its own
// counts; they are put together at the end, in an order that does not matter,
// because sums and the earliest place do not depend on it.
func count(ctx context.Context, docs iter.Seq2[string, error], o BuildOptions) (*counts, int64, error) {
	work := make(chan batch)
	parts := make([]*counts, o.Threads)
	var workers sync.WaitGroup
	for i := range parts {
		parts[i] = newCounts()
		workers.Go(func() {
			c := newCounter(parts[i], o)
			for b := range work {
				for j, text := range b.texts {
					c.document(b.first+int64(j), text)
				}
			}
		})
	}
	documents, err := deal(ctx, docs, work)
	close(work)
	workers.Wait()
	if err != nil {
		return nil, 0, err
	}
	all := parts[0]
	for _, part := range parts[1:] {
		all.merge(part)
	}
	return all, documents, nil
}

// deal sends docs to work in batches and returns their number.
func deal(ctx context.Context, docs iter.Seq2[string, error], work chan<- batch) (int64, error) {
	var b batch
	bytes, documents := 0, int64(0)
	send := func() error {
		select {
		case work <- b:
			b, bytes = batch{first: documents}, 0
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for text, err := range docs {
		if err != nil {
			return documents, err
		}
		b.texts = append(b.texts, text)
		documents++
		if bytes += len(text); bytes >= batchBytes {
			if err := send(); err != nil {
				return documents, err
			}
		}
		if err := ctx.Err(); err != nil {
			return documents, err
		}
	}
	return documents, send()
}

// counter is one worker: it cuts documents as a tokenizer will and counts.
type counter struct {
	*counts
	pre    pretokenizer
	compat bool
	at     place
	buf    []string
}

func newCounter(c *counts, o BuildOptions) *counter {
	return &counter{counts: c, pre: newPretokenizer(o.Level, false, o.Compat, o.Segmenter), compat: o.Compat}
}

func (c *counter) document(number int64, text string) {
	c.at = place{doc: number}
	if c.compat {
		c.original(text)
		return
	}
	c.pre.each(text, &c.buf, func(words []string) {
		for _, w := range words {
			c.word(w)
		}
	}, func(string) {})
}

// longestWord is the number of characters beyond which a run of letters or
// digits is no word worth a token (Base64, say); its characters still count.
const longestWord = 50

func (c *counter) word(w string) {
	if !c.compat && len(w) > longestWord && utf8.RuneCountInString(w) > longestWord {
		c.addChars(w, 1)
		return
	}
	c.add(w, c.at)
	c.at.word++
}

// dropped are the characters that the original's counting (Keras' Tokenizer)
// turns into spaces; the apostrophe is not among them.
const dropped = "!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n "

// original counts as the original does: the text as it stands is segmented,
// lower-cased, and split at ASCII punctuation.
func (c *counter) original(text string) {
	for _, w := range c.pre.seg.AppendWords(nil, text) {
		for w = lower(w); w != ""; {
			i := strings.IndexAny(w, dropped)
			if i < 0 {
				c.word(w)
				break
			}
			if i > 0 {
				c.word(w[:i])
			}
			w = w[i+1:]
		}
	}
}
