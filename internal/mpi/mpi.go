// Package mpi calls an MPI library that is found when the program runs: Open
// MPI, or one with MPICH's binary interface (MPICH, Intel MPI, MVAPICH). It
// needs no C compiler, and one binary serves both.
//
//	runtime.LockOSThread()
//	w, err := mpi.Open("")   // loads the library and joins the job
//	w.Alltoallv(...)
//	w.Close()
//
// Open and all methods of a World must be called on the same thread
// (MPI_THREAD_FUNNELED). A call that waits for other ranks polls and sleeps in
// between: a rank that waits leaves its core to those that compute.
//
// Built with the tag nompi, or for a system whose libraries cannot be loaded
// this way, Open fails and everything else of the program works.
package mpi

import (
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"
)

// World is a job's ranks, seen from one of them.
type World struct {
	Rank, Size int
	Library    string // what the library says it is, one line

	abi abi
	fn  functions

	// What calls write to, kept here so that it does not move.
	request uint64 // MPI_Request: a pointer or an int
	flag    int32
	status  [16]uint64 // MPI_Status: at most 128 bytes in any library
	text    [8192]byte // MPI_MAX_LIBRARY_VERSION_STRING of MPICH; Open MPI's is smaller
	length  int32
}

// abi are the constants of a library's mpi.h.
type abi struct {
	world, byteType, errorsReturn, inPlace uintptr
}

// mpich are MPICH's constants: integers that never change (the MPICH ABI
// initiative). Open MPI's are addresses of objects in the library.
var mpich = abi{world: 0x44000000, byteType: 0x4c00010d, errorsReturn: 0x54000001, inPlace: ^uintptr(0)}

const openMPIInPlace = 1

// functions are the addresses of those that are used.
type functions struct {
	initThread, finalize, rank, size, version, errorString, setErrhandler uintptr
	ialltoallv, iallgatherv, ibcast, test                                 uintptr
}

// names pairs the functions with their symbols.
func (f *functions) names() map[string]*uintptr {
	return map[string]*uintptr{
		"MPI_Init_thread": &f.initThread, "MPI_Finalize": &f.finalize,
		"MPI_Comm_rank": &f.rank, "MPI_Comm_size": &f.size,
		"MPI_Get_library_version": &f.version, "MPI_Error_string": &f.errorString,
		"MPI_Comm_set_errhandler": &f.setErrhandler,
		"MPI_Ialltoallv":          &f.ialltoallv, "MPI_Iallgatherv": &f.iallgatherv,
		"MPI_Ibcast": &f.ibcast, "MPI_Test": &f.test,
	}
}

const threadFunneled = 1 // MPI_THREAD_FUNNELED

// libraries are the names to try, by the launcher's kind.
func libraries() []string {
	open := []string{"libmpi.so.40", "libmpi.so.80", "libmpi.40.dylib"}
	others := []string{"libmpich.so.12", "libmpi.so.12", "libmpi.12.dylib"}
	last := []string{"libmpi.so", "libmpich.so", "libmpi.dylib"}
	if os.Getenv("OMPI_COMM_WORLD_RANK") == "" && os.Getenv("PMI_RANK") != "" {
		open, others = others, open
	}
	return append(append(open, others...), last...)
}

// Open loads the library (the file name given; empty: the one that suits the
// launcher) and joins the job.
func Open(library string) (*World, error) {
	names := libraries()
	if library != "" {
		names = []string{library}
	}
	w := &World{}
	if err := w.load(names); err != nil {
		return nil, err
	}
	// Go's runtime needs its own handlers for the signals that Open MPI would
	// take (a nil dereference would end the process without a word).
	if _, set := os.LookupEnv("OMPI_MCA_opal_signal"); !set {
		if err := os.Setenv("OMPI_MCA_opal_signal", ""); err != nil {
			return nil, err
		}
	}
	if err := w.check("MPI_Init_thread", call(w.fn.initThread, 0, 0, threadFunneled, address(&w.flag))); err != nil {
		return nil, err
	}
	return w, w.learn()
}

// learn asks who and where we are.
func (w *World) learn() error {
	if err := w.check("MPI_Comm_set_errhandler", call(w.fn.setErrhandler, w.abi.world, w.abi.errorsReturn)); err != nil {
		return err
	}
	if err := w.check("MPI_Comm_rank", call(w.fn.rank, w.abi.world, address(&w.flag))); err != nil {
		return err
	}
	w.Rank = int(w.flag)
	if err := w.check("MPI_Comm_size", call(w.fn.size, w.abi.world, address(&w.flag))); err != nil {
		return err
	}
	w.Size = int(w.flag)
	if call(w.fn.version, address(&w.text[0]), address(&w.length)) == 0 {
		w.Library = firstLine(w.text[:w.length])
	}
	return nil
}

// Close leaves the job (MPI_Finalize). It waits for the other ranks to do so.
func (w *World) Close() error { return w.check("MPI_Finalize", call(w.fn.finalize)) }

// Counts say how many bytes go to or come from each rank, and where in the
// buffer they begin.
type Counts struct{ N, At []int32 }

// Alltoallv sends to each rank its part of send, and receives into recv what
// the ranks send to this one.
func (w *World) Alltoallv(send unsafe.Pointer, sends Counts, recv unsafe.Pointer, recvs Counts) error {
	defer keep(send, recv, sends, recvs)
	return w.complete("MPI_Ialltoallv", call(w.fn.ialltoallv,
		uintptr(send), address(&sends.N[0]), address(&sends.At[0]), w.abi.byteType,
		uintptr(recv), address(&recvs.N[0]), address(&recvs.At[0]), w.abi.byteType,
		w.abi.world, address(&w.request)))
}

// Allgatherv gives every rank's part of buf to all; this rank's is in its place.
func (w *World) Allgatherv(buf unsafe.Pointer, parts Counts) error {
	defer keep(buf, parts)
	return w.complete("MPI_Iallgatherv", call(w.fn.iallgatherv,
		w.abi.inPlace, 0, w.abi.byteType,
		uintptr(buf), address(&parts.N[0]), address(&parts.At[0]), w.abi.byteType,
		w.abi.world, address(&w.request)))
}

// Bcast gives n bytes of root's to all.
func (w *World) Bcast(buf unsafe.Pointer, n, root int) error {
	defer keep(buf)
	return w.complete("MPI_Ibcast", call(w.fn.ibcast,
		uintptr(buf), uintptr(n), w.abi.byteType, uintptr(root), w.abi.world, address(&w.request)))
}

// How a waiting rank polls: at first at once again, as ranks mostly arrive
// together and large messages move on at each poll; then with pauses.
const (
	eagerPolls = 200
	pause      = 50 * time.Microsecond
	longPause  = 500 * time.Microsecond
	longAfter  = 1000 // polls
)

// complete waits for the request that a call has begun.
func (w *World) complete(name string, rc int32) error {
	if err := w.check(name, rc); err != nil {
		return err
	}
	for polls := 0; ; polls++ {
		if err := w.check("MPI_Test after "+name, call(w.fn.test, address(&w.request), address(&w.flag), address(&w.status[0]))); err != nil {
			return err
		}
		switch {
		case w.flag != 0:
			return nil
		case polls > longAfter:
			time.Sleep(longPause)
		case polls > eagerPolls:
			time.Sleep(pause)
		}
	}
}

// check turns a return code into an error.
func (w *World) check(name string, rc int32) error {
	if rc == 0 {
		return nil
	}
	if call(w.fn.errorString, uintptr(rc), address(&w.text[0]), address(&w.length)) == 0 {
		return fmt.Errorf("%s: %s", name, firstLine(w.text[:w.length]))
	}
	return fmt.Errorf("%s: code %d", name, rc)
}

func firstLine(b []byte) string {
	for i, c := range b {
		if c == 0 || c == '\n' || c == '\r' {
			return string(b[:i])
		}
	}
	return string(b)
}

// keep holds what the library works on until the caller returns.
func keep(all ...any) { runtime.KeepAlive(all) }

// address is where a library finds v, which must lie in memory that does not
// move: part of a World, or of a slice on the heap.
func address[T any](v *T) uintptr { return uintptr(unsafe.Pointer(v)) }
