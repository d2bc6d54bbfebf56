package data

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"runtime"
	"strings"
	"sync"
	"unicode/utf8"

	"promptgen/tokenizer"
)

// batchBytes is the text that one core tokenizes at a time. Where a batch ends
// depends on the corpus alone, so that whatever ends with a batch (a shard) is
// the same however many cores there are.
const batchBytes = 128 << 10

// batch is a stretch of the corpus on its way: documents in, ids out.
type batch struct {
	docs []Document
	err  error // of the reader, behind docs
	done chan struct{}

	ids     []int32 // of the documents kept, framed, one after the other
	ends    []int   // ids[ends[i-1]:ends[i]] are of docs[i]: none if it was dropped
	val     []bool  // docs[i] is held out
	stats   []Stats // of docs[i]
	unknown map[string]int64
}

// encoder tokenizes batches. It is shared by the cores.
type encoder struct {
	tok         *tokenizer.Tokenizer
	minLength   int
	valFraction float64
	compat      bool
}

// encode fills in what b's documents become.
func (e *encoder) encode(b *batch) {
	b.ids = make([]int32, 0, batchBytes/3+64)
	for _, d := range b.docs {
		begin := len(b.ids)
		stats := Stats{Chars: int64(utf8.RuneCountInString(d.Text))}
		if kept := stats.Chars > int64(e.minLength) || e.minLength == 0 && !e.compat; kept {
			b.ids = e.appendFramed(b.ids, d.Text, b.countUnknown)
			stats.Docs = 1
			stats.Tokens = int64(len(b.ids) - begin)
			stats.Unk = countID(b.ids[begin:], e.tok.Vocab().Special().UNK)
		}
		b.ends = append(b.ends, len(b.ids))
		b.stats = append(b.stats, stats)
		b.val = append(b.val, e.valFraction > 0 && heldOut(d.Text, e.valFraction))
	}
}

// longestSource is where a source of [UNK] is cut, in bytes, before it is
// counted: words of a hundred letters and more exist.
const longestSource = 48

// countUnknown counts a piece of text that became [UNK].
func (b *batch) countUnknown(text string) {
	if b.unknown == nil {
		b.unknown = map[string]int64{}
	}
	if len(text) > longestSource {
		text = text[:runeStart(text, longestSource)] + "…"
	}
	if _, seen := b.unknown[text]; !seen {
		text = strings.Clone(text) // a part of a document would keep all of it in memory
	}
	b.unknown[text]++
}

// appendFramed appends [MASK] ids [CLS], with [SEP] for each line feed inside,
// and tells what becomes [UNK].
func (e *encoder) appendFramed(dst []int32, text string, unknown func(string)) []int32 {
	special := e.tok.Vocab().Special()
	dst = append(dst, special.MASK)
	if e.compat {
		dst = e.tok.AppendEncodeTold(dst, strings.ReplaceAll(text, "\n", " [SEP] "), unknown)
		return append(dst, special.CLS)
	}
	for first := true; ; first = false {
		line, rest, more := strings.Cut(text, "\n")
		if !first {
			dst = append(dst, special.SEP)
		}
		dst = e.tok.AppendEncodeTold(dst, line, unknown)
		if text = rest; !more {
			return append(dst, special.CLS)
		}
	}
}

func countID(ids []int32, id int32) (n int64) {
	for _, x := range ids {
		if x == id {
			n++
		}
	}
	return n
}

// heldOut draws by the document's text: the same text always falls on the same
// side, wherever it stands and whatever stands around it, so that no document
// that is trained on is validated on.
func heldOut(text string, fraction float64) bool {
	sum := sha256.Sum256([]byte(text))
	return float64(binary.LittleEndian.Uint64(sum[:])>>11)/(1<<53) < fraction
}

// run reads docs, encodes them on that many cores, and gives the batches to each
// in the corpus's order. Not more than a few batches are under way.
func (e *encoder) run(ctx context.Context, docs iter.Seq2[Document, error], threads int, each func(*batch) error) error {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	work := make(chan *batch)
	order := make(chan *batch, 2*threads) // its capacity is what may be under way
	wg.Go(func() { readBatches(ctx, docs, order, work) })
	for range threads {
		wg.Go(func() {
			for b := range work {
				e.encode(b)
				close(b.done)
			}
		})
	}
	for b := range order {
		select {
		case <-b.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if b.err != nil {
			return b.err
		}
		if err := each(b); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// readBatches gathers documents and sends every batch both ways: to its place in
// the order, and to whoever has time for it.
func readBatches(ctx context.Context, docs iter.Seq2[Document, error], order, work chan<- *batch) {
	defer close(order)
	defer close(work)
	b, size := &batch{done: make(chan struct{})}, 0
	send := func() bool {
		for _, to := range []chan<- *batch{order, work} {
			select {
			case to <- b:
			case <-ctx.Done():
				return false
			}
		}
		b, size = &batch{done: make(chan struct{})}, 0
		return true
	}
	for d, err := range docs {
		if err != nil {
			b.docs, b.err = nil, err // what was read before belongs to a run that fails
			send()
			return
		}
		b.docs = append(b.docs, d)
		if size += len(d.Text) + 16; size >= batchBytes && !send() {
			return
		}
	}
	if len(b.docs) > 0 {
		send()
	}
}
