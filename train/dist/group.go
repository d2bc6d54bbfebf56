package dist

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"promptgen/internal/fault"
	"promptgen/internal/mpi"
)

// Mode says whether to train together with other processes.
type Mode string

// The modes.
const (
	Auto Mode = "auto" // if a launcher started this process as one of several
	Off  Mode = "off"
	MPI  Mode = "mpi" // or fail
)

// DefaultTimeout is how long a rank waits for the others where Options says
// nothing.
const DefaultTimeout = 2 * time.Minute

// Options of joining a job.
type Options struct {
	Mode    Mode   // empty: Auto
	Library string // the MPI library's file; empty: the one that suits the launcher
	// Timeout is how long the others may keep this rank waiting before it gives
	// up; or three times the longest that it has computed between two exchanges,
	// if that is more.
	Timeout time.Duration
}

// Group is the ranks of a job. Its methods must be called by all ranks in the
// same order, and by one goroutine of each; Reducer.Final alone may come from
// another.
type Group struct {
	rank, size int
	host       string
	library    string

	calls   chan func(*mpi.World) // to the one goroutine that calls MPI
	timeout time.Duration
	longest time.Duration // that this rank computed between two exchanges
	since   time.Time     // since when it does
}

// launched is what a launcher says in the environment.
type launched struct {
	by   string // the variable
	size int    // 0: it does not say
	rank string
}

// launcher finds out whether an MPI launcher started this process. Slurm's own
// variables do not count: they also stand in a batch script.
func launcher(env func(string) string) (launched, bool) {
	for _, v := range []struct{ rank, size string }{
		{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
		{"PMI_RANK", "PMI_SIZE"},
		{"PMIX_RANK", "SLURM_STEP_NUM_TASKS"},
	} {
		if rank := env(v.rank); rank != "" {
			size, _ := strconv.Atoi(env(v.size)) // 0 where it is not said
			return launched{by: v.rank, size: size, rank: rank}, true
		}
	}
	return launched{}, false
}

// Launched says whether an MPI launcher started this process.
func Launched() bool {
	_, ok := launcher(os.Getenv)
	return ok
}

// Follower says whether a launcher started this process as another than rank 0.
func Follower() bool {
	l, ok := launcher(os.Getenv)
	return ok && l.rank != "0"
}

// LocalRanks is the number of the job's processes on this machine, as far as the
// launcher tells; 1 without a launcher.
func LocalRanks() int {
	if !Launched() {
		return 1
	}
	for _, name := range []string{"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"} {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n > 0 {
			return n
		}
	}
	return 1
}

// longWait is the least that a rank waits while another may be writing a
// checkpoint to a slow disk.
const longWait = 30 * time.Minute

// Join joins the job that a launcher has started this process in; it returns
// nil if there is none, or none is wanted.
func Join(o Options) (*Group, error) {
	l, ok := launcher(os.Getenv)
	switch o.Mode {
	case Off:
		return nil, nil
	case MPI:
		if !ok {
			return nil, fault.Usage("dist mpi: no MPI launcher started this process (none of OMPI_COMM_WORLD_RANK, PMI_RANK, PMIX_RANK is set); use promptgen launch, mpirun, or srun --mpi=pmix")
		}
	case Auto, "":
		if !ok || l.size == 1 && !mpi.Built {
			return nil, nil
		}
	default:
		return nil, fault.Usage("dist %q is not known: use auto, off or mpi", o.Mode)
	}
	g := &Group{calls: make(chan func(*mpi.World), 1), timeout: o.Timeout}
	if g.timeout <= 0 {
		g.timeout = DefaultTimeout
	}
	if err := g.open(o.Library, l); err != nil {
		return nil, err
	}
	if g.host, _ = os.Hostname(); g.host == "" {
		g.host = "unknown host"
	}
	g.since = time.Now()
	return g, nil
}

// open starts the goroutine that makes every MPI call.
func (g *Group) open(library string, l launched) error {
	opened := make(chan error)
	go func() {
		runtime.LockOSThread() // until it ends: MPI knows threads, not goroutines
		w, err := mpi.Open(library)
		if err == nil {
			g.rank, g.size, g.library = w.Rank, w.Size, w.Library
		}
		opened <- err
		if err != nil {
			return
		}
		for f := range g.calls {
			f(w)
		}
	}()
	// Starting may hang as any other call may.
	select {
	case err := <-opened:
		if err != nil {
			return fault.Usage("joining the job of %s: %w", l.by, err)
		}
	case <-time.After(max(g.timeout, DefaultTimeout)):
		return fault.With(fault.CodeWatchdog, fmt.Errorf("rank %s: MPI_Init did not return; is every host of the job reachable?", l.rank))
	}
	if l.size != 0 && l.size != g.size {
		return fault.Usage("the launcher (%s) started %d processes, but the MPI library (%s) sees %d: it is not the launcher's; name the right one in PROMPTGEN_MPI_LIB",
			l.by, l.size, g.library, g.size)
	}
	return nil
}

// Rank is this process's number, from 0.
func (g *Group) Rank() int {
	if g == nil {
		return 0
	}
	return g.rank
}

// Size is the number of ranks.
func (g *Group) Size() int {
	if g == nil {
		return 1
	}
	return g.size
}

// Lead says whether this is the rank that writes files and talks to the user.
func (g *Group) Lead() bool { return g.Rank() == 0 }

// String describes the job.
func (g *Group) String() string {
	if g == nil {
		return "one process"
	}
	return fmt.Sprintf("%d ranks (%s)", g.size, g.library)
}

// Leave ends the job in good order; it waits for all ranks. A rank that has
// failed alone must not call it: its exit is what tells the launcher.
func (g *Group) Leave() error {
	if g == nil {
		return nil
	}
	err := g.do(longWait, "leaving the job", func(w *mpi.World) error { return w.Close() })
	close(g.calls)
	return err
}

// do has the MPI goroutine run f and waits for it, at most as long as the
// watchdog allows.
func (g *Group) do(least time.Duration, what string, f func(*mpi.World) error) error {
	done := make(chan error, 1)
	select {
	case g.calls <- func(w *mpi.World) { done <- f(w) }:
	default:
		return errors.New("dist: an exchange is still under way") // a programming error
	}
	return g.await(least, what, done)
}

// await is the watchdog: it waits for an exchange as long as the others may
// take. What hangs cannot be ended; the process has to.
func (g *Group) await(least time.Duration, what string, done <-chan error) error {
	start := time.Now()
	g.longest = max(g.longest, start.Sub(g.since))
	defer func() { g.since = time.Now() }()
	limit := max(g.timeout, least, 3*g.longest)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("rank %d (%s): %s: %w", g.rank, g.host, what, err)
		}
		return nil
	case <-timer.C:
		return fault.With(fault.CodeWatchdog, fmt.Errorf("rank %d (%s): waited %v for the other ranks (%s): one of them hangs, or the network is gone; the same command goes on from the last checkpoint",
			g.rank, g.host, limit.Round(time.Second), what))
	}
}

// Gather gives every rank the bytes of all, by rank.
func (g *Group) Gather(mine []byte) ([][]byte, error) { return g.gather(0, "gathering", mine) }

func (g *Group) gather(least time.Duration, what string, mine []byte) ([][]byte, error) {
	if g == nil {
		return [][]byte{mine}, nil
	}
	all := make([][]byte, g.size)
	err := g.do(least, what, func(w *mpi.World) error {
		lengths := make([]byte, 8*g.size)
		binary.LittleEndian.PutUint64(lengths[8*g.rank:], uint64(len(mine)))
		parts := evenly(g.size, 8)
		if err := w.Allgatherv(unsafe.Pointer(&lengths[0]), parts); err != nil {
			return err
		}
		total := 0
		for r := range g.size {
			n := int(binary.LittleEndian.Uint64(lengths[8*r:]))
			parts.N[r], parts.At[r] = int32(n), int32(total)
			total += n
		}
		buf := make([]byte, total+1) // never empty: it must have an address
		copy(buf[parts.At[g.rank]:], mine)
		if err := w.Allgatherv(unsafe.Pointer(&buf[0]), parts); err != nil {
			return err
		}
		for r := range all {
			all[r] = buf[parts.At[r]:][:parts.N[r]]
		}
		return nil
	})
	return all, err
}

func evenly(size, n int) mpi.Counts {
	c := mpi.Counts{N: make([]int32, size), At: make([]int32, size)}
	for r := range size {
		c.N[r], c.At[r] = int32(n), int32(r*n)
	}
	return c
}

// Floats gives every rank the numbers of all, by rank. All give as many.
func (g *Group) Floats(mine ...float64) ([][]float64, error) {
	b := make([]byte, 0, 8*len(mine))
	for _, v := range mine {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	all, err := g.gather(0, "comparing figures", b)
	if err != nil {
		return nil, err
	}
	out := make([][]float64, len(all))
	for r, b := range all {
		for ; len(b) >= 8; b = b[8:] {
			out[r] = append(out[r], math.Float64frombits(binary.LittleEndian.Uint64(b)))
		}
		if len(out[r]) != len(mine) {
			return nil, fmt.Errorf("rank %d gave %d figures, this one %d: they do different things", r, len(out[r]), len(mine))
		}
	}
	return out, nil
}

// Broadcast gives rank 0's numbers to all.
func (g *Group) Broadcast(data []float32) error {
	if g.Size() == 1 || len(data) == 0 {
		return nil
	}
	return g.do(longWait, "passing on weights", func(w *mpi.World) error {
		for len(data) > 0 {
			part := data[:min(len(data), BucketLen)]
			if err := w.Bcast(unsafe.Pointer(&part[0]), 4*len(part), 0); err != nil {
				return err
			}
			data = data[len(part):]
		}
		return nil
	})
}
