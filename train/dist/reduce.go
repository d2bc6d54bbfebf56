package dist

import (
	"errors"
	"time"
	"unsafe"

	"promptgen/internal/mpi"
)

// BucketLen is the number of elements that are exchanged together: 16 MiB, which
// is large enough for the network's full speed and small enough to stay in the
// cache between two ranks of a machine.
const BucketLen = 1 << 22

// Reducer adds up the gradients of all ranks.
//
//	r.Begin(shards, parts)
//	… the backward pass of the last shard calls r.Final(from) …
//	r.Final(0)
//	waited, err := r.Wait()
type Reducer struct {
	g      *Group
	add    func(dst, x []float32)
	home   []float32 // receives the sums
	bucket int

	shards int
	parts  []Part // of this rank, over all elements
	next   int    // buckets from the end that were handed over
	queue  chan int
	done   chan error

	recv         []float32
	slices       []mpi.Counts // in bytes: sends of a bucket, receives, the gathered slices
	mine, theirs []Part
}

// NewReducer makes a reducer whose sums go to home. add adds its second
// argument to its first and may run beside the rest of the program. bucket is
// BucketLen but in tests.
func (g *Group) NewReducer(home []float32, bucket int, add func(dst, x []float32)) *Reducer {
	return &Reducer{
		g: g, add: add, home: home, bucket: bucket,
		slices: []mpi.Counts{evenly(g.size, 0), evenly(g.size, 0), evenly(g.size, 0)},
	}
}

func (r *Reducer) buckets() int { return (len(r.home) + r.bucket - 1) / r.bucket }

// Begin starts the exchange of a step of so many shards. parts are the sums of
// this rank's shards (Share), in the order of the shards and over all elements,
// the first of them in home; none if it has no shard. They may be added to until
// Final says otherwise.
func (r *Reducer) Begin(shards int, parts []Part) error {
	r.shards, r.parts, r.next = shards, parts, 0
	r.queue, r.done = make(chan int, r.buckets()), make(chan error, 1)
	queue, done := r.queue, r.done
	select {
	case r.g.calls <- func(w *mpi.World) { done <- r.serve(w, queue) }:
		return nil
	default:
		return errors.New("dist: an exchange is still under way") // a programming error
	}
}

// Final says that the parts' elements from this one on change no more: the
// buckets that lie there are exchanged.
func (r *Reducer) Final(from int) {
	for r.next < r.buckets() {
		b := r.buckets() - 1 - r.next
		if b*r.bucket < from {
			return
		}
		r.queue <- b
		r.next++
	}
	if r.queue != nil {
		close(r.queue)
		r.queue = nil
	}
}

// Wait returns when home holds the sum of all shards, everywhere the same bits,
// and says how long that took after the last Final.
func (r *Reducer) Wait() (time.Duration, error) {
	start := time.Now()
	err := r.g.await(0, "adding up gradients", r.done)
	return time.Since(start), err
}

// serve exchanges the buckets as they come. All ranks hand them over in the
// same order, from the last to the first.
func (r *Reducer) serve(w *mpi.World, queue <-chan int) error {
	for b := range queue {
		lo := b * r.bucket
		if err := r.exchange(w, lo, min(lo+r.bucket, len(r.home))); err != nil {
			return err
		}
	}
	return nil
}

// exchange adds up the elements [lo, hi) of all ranks' parts.
func (r *Reducer) exchange(w *mpi.World, lo, hi int) error {
	r.foldMine(lo, hi)
	first, end := Share(hi-lo, r.g.rank, r.g.size)
	slice := r.home[lo:hi][first:end]
	if err := r.collect(w, lo, hi, end-first); err != nil {
		return err
	}
	if len(slice) > 0 {
		if sum := Fold(r.shards, Root(r.shards), r.theirs, slice, r.add); !isSame(sum, slice) {
			copy(slice, sum)
		}
	}
	sums := r.slices[2]
	for rank := range r.g.size {
		a, b := Share(hi-lo, rank, r.g.size)
		sums.At[rank], sums.N[rank] = int32(4*a), int32(4*(b-a))
	}
	return w.Allgatherv(unsafe.Pointer(&r.home[lo]), sums)
}

// foldMine adds this rank's parts up as far as its shards go.
func (r *Reducer) foldMine(lo, hi int) {
	first, end := Share(r.shards, r.g.rank, r.g.size)
	left := make([]Part, len(r.parts))
	for i, p := range r.parts {
		left[i] = Part{p.Node, p.Sum[lo:hi]}
	}
	r.mine = FoldCover(r.shards, first, end, left, r.add)
}

// collect gets this rank's slice, of n elements, of all parts of all ranks, in
// the order of their shards.
func (r *Reducer) collect(w *mpi.World, lo, hi, n int) error {
	size := r.g.size
	covers, most, total := make([][]Node, size), 0, 0
	for rank := range size {
		a, b := Share(r.shards, rank, size)
		covers[rank] = Cover(r.shards, a, b)
		most, total = max(most, len(covers[rank])), total+len(covers[rank])
	}
	if need := total * n; len(r.recv) < need {
		r.recv = make([]float32, need)
	}
	r.theirs = r.theirs[:0]
	at := make([]int, size) // of each rank's first part in recv, in parts
	for rank, cover := range covers {
		at[rank] = len(r.theirs)
		for i, v := range cover {
			sum := r.recv[len(r.theirs)*n:][:n]
			if rank == r.g.rank {
				a, b := Share(hi-lo, rank, size)
				sum = r.mine[i].Sum[a:b]
			}
			r.theirs = append(r.theirs, Part{v, sum})
		}
	}
	for i := range most { // one call for the first part of every rank, one for the second …
		if err := r.pass(w, i, hi-lo, n, covers, at); err != nil {
			return err
		}
	}
	return nil
}

// pass sends the slices of this rank's part i to their ranks, and receives
// theirs. What stays with this rank is not moved.
func (r *Reducer) pass(w *mpi.World, i, bucket, n int, covers [][]Node, at []int) error {
	sends, recvs := r.slices[0], r.slices[1]
	var from unsafe.Pointer
	if i < len(r.mine) {
		from = unsafe.Pointer(&r.mine[i].Sum[0])
	}
	for rank := range r.g.size {
		sends.N[rank], sends.At[rank], recvs.N[rank], recvs.At[rank] = 0, 0, 0, 0
		if rank == r.g.rank {
			continue
		}
		if a, b := Share(bucket, rank, r.g.size); from != nil {
			sends.At[rank], sends.N[rank] = int32(4*a), int32(4*(b-a))
		}
		if i < len(covers[rank]) {
			recvs.At[rank], recvs.N[rank] = int32(4*n*(at[rank]+i)), int32(4*n)
		}
	}
	var to unsafe.Pointer
	if len(r.recv) > 0 {
		to = unsafe.Pointer(&r.recv[0])
	}
	return w.Alltoallv(from, sends, to, recvs)
}
