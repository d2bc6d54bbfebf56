package decode

import (
	"unsafe"

	"promptgen/internal/kernel"
)

// Unit computes on the threads of a kernel.CPU. One caller uses it at a time.
type Unit struct {
	cpu *kernel.CPU
	k   *kernels
	per []scratch // of each thread
}

// scratch is the memory of one thread.
type scratch struct {
	tile   []float32 // a tile at the ragged edge of C
	scores []float32 // attention: strip of scores
	out    []float32 // and of sums over values
	q, p   Operand   // queries, probabilities

	wide   []byte   // panels: steps before they are squeezed, or expanded
	missed []uint64 // and the upper bytes without a code
}

// room is n bytes for steps of a panel.
func (s *scratch) room(n int) []byte {
	if len(s.wide) < n {
		s.wide = aligned(n)
	}
	return s.wide[:n]
}

// New makes a Unit of cpu's instruction set.
func New(cpu *kernel.CPU) *Unit {
	return &Unit{cpu: cpu, k: findKernels(cpu.ISA()), per: make([]scratch, cpu.Threads())}
}

// CPU is what the Unit computes on.
func (u *Unit) CPU() *kernel.CPU { return u.cpu }

// few is the number of rows that one thread prepares faster than it could share
// them out.
const few = 3

// EachRow runs f for rows [0, n), on all threads where it pays.
func (u *Unit) EachRow(n int, f func(r int)) {
	if n <= few {
		for r := range n {
			f(r)
		}
		return
	}
	step := max(1, n/(8*u.cpu.Threads()))
	u.cpu.Each((n+step-1)/step, func(_, part int) {
		for r := part * step; r < min((part+1)*step, n); r++ {
			f(r)
		}
	})
}

// grow returns n elements of buf, made larger if need be. Their contents are
// unspecified.
func grow[T any](buf *[]T, n int) []T {
	if len(*buf) < n {
		*buf = make([]T, n)
	}
	return (*buf)[:n]
}

func roundUp(n, m int) int { return (n + m - 1) / m * m }

// lineBytes is a cache line.
const lineBytes = 64

// aligned is n bytes that begin with a cache line.
func aligned(n int) []byte {
	b := make([]byte, n+lineBytes)
	off := -int(uintptr(unsafe.Pointer(&b[0]))) & (lineBytes - 1)
	return b[off : off+n : off+n]
}
