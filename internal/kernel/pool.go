package kernel

import (
	"runtime"
	"sync/atomic"
	"time"
)

// task is a piece of work that falls into independent parts, numbered from 0.
type task interface {
	part(w *worker, i int)
}

// pool runs the parts of a task on the calling goroutine and on helpers that
// live as long as the pool.
//
// Parts are handed out one at a time, so that a slow core does less of them. Each
// worker begins with a share of its own, consecutive parts, and goes on with what
// is left of the others': the parts of one operation after another have the same
// rows, which then are in the caches of the core that computes on.
// A helper joins a task if it comes while parts are left, and the caller waits
// only for those that joined: a helper whose core is taken by another process
// costs nothing but its help. Helpers wait for the next task spinning, for a
// bounded time, and then park.
type pool struct {
	workers []*worker // [0] is the caller's
	spin    time.Duration

	state  atomic.Uint64 // epoch<<32 | open<<31 | helpers that joined
	shares []poolShare   // of the workers; ends are written while nobody is joined
	task   task

	parked  []atomic.Bool
	wake    []chan struct{}
	waiting atomic.Bool // the caller parked until the last helper leaves
	left    chan struct{}
	closing atomic.Bool
	failed  atomic.Pointer[any] // what a helper panicked with
}

// poolShare is the parts that a worker begins with. Each has a cache line for
// itself, and the one beside it, which processors fetch along.
type poolShare struct {
	next atomic.Int64 // the part to hand out next
	end  int64
	_    [112]byte
}

const (
	poolOpen  = 1 << 31
	poolCount = poolOpen - 1
)

func newPool(threads int, spin time.Duration) *pool {
	p := &pool{
		workers: make([]*worker, threads),
		shares:  make([]poolShare, threads),
		spin:    spin,
		parked:  make([]atomic.Bool, threads),
		wake:    make([]chan struct{}, threads),
		left:    make(chan struct{}, 1),
	}
	for i := range p.workers {
		p.workers[i] = &worker{id: i}
		if i > 0 {
			p.wake[i] = make(chan struct{}, 1)
			go p.help(i)
		}
	}
	return p
}

// run does all n parts of t and returns when they are done.
func (p *pool) run(n int, t task) {
	p.runShares(n, func(w int) int { return w * n / len(p.workers) }, t)
}

// runShares is run where worker w's share begins with part first(w).
func (p *pool) runShares(n int, first func(w int) int, t task) {
	if len(p.workers) == 1 || n <= 1 {
		for i := range n {
			t.part(p.workers[0], i)
		}
		return
	}
	p.task = t
	for w := range p.shares {
		s := &p.shares[w]
		s.next.Store(int64(first(w)))
		s.end = int64(n)
		if w > 0 {
			p.shares[w-1].end = s.next.Load()
		}
	}
	epoch := p.state.Load()>>32 + 1
	p.state.Store(epoch<<32 | poolOpen)
	p.wakeHelpers(min(n, len(p.workers)) - 1)
	defer p.finish() // a part that panics must not leave helpers at work
	p.work(p.workers[0])
}

// finish ends a task: no helper joins any more, and those that did have left. A
// panic of theirs goes on in the caller, which may recover from it.
func (p *pool) finish() {
	if s := p.state.And(^uint64(poolOpen)); s&poolCount != 0 {
		p.awaitHelpers()
	}
	p.task = nil
	if f := p.failed.Swap(nil); f != nil {
		panic(*f)
	}
}

// assist is work for a helper.
func (p *pool) assist(w *worker) {
	defer func() {
		if f := recover(); f != nil {
			failure := f // f itself would be allocated each time
			p.failed.Store(&failure)
		}
	}()
	p.work(w)
}

// work does parts until none is left, first those of w's share.
func (p *pool) work(w *worker) {
	for k := range p.shares {
		s := &p.shares[(w.id+k)%len(p.shares)]
		for s.next.Load() < s.end {
			if i := s.next.Add(1) - 1; i < s.end {
				p.task.part(w, int(i))
			}
		}
	}
}

// wakeHelpers wakes up to n parked helpers; spinning ones see the new state.
func (p *pool) wakeHelpers(n int) {
	for i := 1; i < len(p.workers) && n > 0; i++ {
		if p.parked[i].CompareAndSwap(true, false) {
			p.wake[i] <- struct{}{}
		}
		n--
	}
}

// awaitHelpers returns once the helpers that joined have left.
func (p *pool) awaitHelpers() {
	gone := func() bool { return p.state.Load()&poolCount == 0 }
	if spinUntil(p.spin, gone) {
		return
	}
	for !gone() {
		p.waiting.Store(true)
		if gone() && p.waiting.CompareAndSwap(true, false) {
			return
		}
		<-p.left // possibly from a helper of the task before, hence the loop
	}
}

// help is the life of helper i.
func (p *pool) help(i int) {
	last := uint64(0) // the epoch it helped in
	news := func() bool {
		s := p.state.Load()
		return s&poolOpen != 0 && s>>32 != last || p.closing.Load()
	}
	for !p.closing.Load() {
		if !spinUntil(p.spin, news) {
			p.park(i, news)
			continue
		}
		s := p.state.Load()
		if s&poolOpen == 0 || s>>32 == last || !p.state.CompareAndSwap(s, s+1) {
			continue
		}
		last = s >> 32
		p.assist(p.workers[i])
		if s := p.state.Add(^uint64(0)); s&(poolOpen|poolCount) == 0 && p.waiting.CompareAndSwap(true, false) {
			p.left <- struct{}{}
		}
	}
}

// park blocks helper i until it is woken, unless there is news already.
func (p *pool) park(i int, news func() bool) {
	p.parked[i].Store(true)
	if news() && p.parked[i].CompareAndSwap(true, false) {
		return
	}
	<-p.wake[i]
}

// close ends the helpers. The pool must not be running a task.
func (p *pool) close() {
	if p.closing.Swap(true) {
		return
	}
	p.wakeHelpers(len(p.workers))
}

// spinUntil polls ok for at most limit, letting other goroutines run now and
// then, and returns whether it came true.
func spinUntil(limit time.Duration, ok func() bool) bool {
	if ok() {
		return true
	}
	if limit <= 0 {
		return false
	}
	const polls = 256 // between looks at the clock
	for start := time.Now(); ; {
		for range polls {
			if ok() {
				return true
			}
		}
		if time.Since(start) > limit {
			return false
		}
		runtime.Gosched()
	}
}
