//go:build linux && amd64

// Package tracee runs a program under the eyes of a test, system call by system
// call: the test sees each call that changes files just before it is made, and
// may end the program there, or let the call fail. What a save leaves behind
// between any two of its calls can be looked at so, in the program as it is.
package tracee

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// Call is a system call that is about to change a file.
type Call struct {
	N    int    // from 1
	Name string // write, openat, rename, …
	Path string // the file written to, where the call names an open one
}

// Verdict is what becomes of a call: Pass, Kill, or the error it is to fail with.
type Verdict syscall.Errno

// Pass lets a call be made; Kill ends the program before it is.
const (
	Pass Verdict = 0
	Kill Verdict = 1 << 20
)

// The calls that change files, and which of them take an open file.
var (
	names = map[uint64]string{
		syscall.SYS_WRITE: "write", syscall.SYS_PWRITE64: "pwrite", syscall.SYS_WRITEV: "writev",
		syscall.SYS_FTRUNCATE: "ftruncate", syscall.SYS_FSYNC: "fsync", syscall.SYS_FDATASYNC: "fdatasync",
		syscall.SYS_OPENAT: "openat", syscall.SYS_MKDIRAT: "mkdirat", syscall.SYS_MKDIR: "mkdir",
		syscall.SYS_RENAME: "rename", syscall.SYS_RENAMEAT: "renameat", 316: "renameat2",
		syscall.SYS_UNLINK: "unlink", syscall.SYS_UNLINKAT: "unlinkat", syscall.SYS_RMDIR: "rmdir",
	}
	onOpenFile = map[string]bool{"write": true, "pwrite": true, "writev": true, "ftruncate": true, "fsync": true, "fdatasync": true}
)

const (
	exitKill     = 0x100000   // PTRACE_O_EXITKILL
	waitAll      = 0x40000000 // __WALL
	waitNoThread = 0x20000000 // __WNOTHREAD
	syscallTrap  = syscall.SIGTRAP | 0x80
)

// Run runs the program to its end, asking see about every call that changes a
// file. It returns how the program ended; an error means that it could not be
// watched at all.
func Run(path string, args []string, attr *os.ProcAttr, see func(Call) Verdict) (syscall.WaitStatus, error) {
	runtime.LockOSThread() // the kernel wants all of this from one thread
	defer runtime.UnlockOSThread()
	a := *attr
	a.Sys = &syscall.SysProcAttr{Ptrace: true}
	p, err := os.StartProcess(path, append([]string{path}, args...), &a)
	if err != nil {
		return 0, err
	}
	pid := p.Pid
	defer p.Release()
	t := tracer{pid: pid, see: see, inside: map[int]bool{}, fail: map[int]syscall.Errno{}}
	var ws syscall.WaitStatus
	if _, err := wait(pid, &ws); err != nil {
		return 0, err
	}
	options := syscall.PTRACE_O_TRACESYSGOOD | syscall.PTRACE_O_TRACECLONE | exitKill
	if err := syscall.PtraceSetOptions(pid, options); err != nil {
		return 0, fmt.Errorf("tracing: %w", err)
	}
	t.known(pid)
	if err := syscall.PtraceSyscall(pid, 0); err != nil {
		return 0, fmt.Errorf("tracing: %w", err)
	}
	for {
		tid, err := wait(-1, &ws)
		if err != nil {
			return 0, fmt.Errorf("tracing: %w", err)
		}
		if !ws.Stopped() {
			if tid == pid {
				return ws, nil
			}
			continue
		}
		if err := t.stopped(tid, ws); err != nil && !errors.Is(err, syscall.ESRCH) {
			return 0, fmt.Errorf("tracing: %w", err)
		}
	}
}

func wait(pid int, ws *syscall.WaitStatus) (int, error) {
	for {
		tid, err := syscall.Wait4(pid, ws, waitAll|waitNoThread, nil)
		if !errors.Is(err, syscall.EINTR) {
			return tid, err
		}
	}
}

// tracer is a run under way.
type tracer struct {
	pid    int
	n      int
	see    func(Call) Verdict
	inside map[int]bool          // a thread is in a call: its next stop is the call's end
	fail   map[int]syscall.Errno // what the call that a thread is in is to return
}

// known notes a thread, and tells whether it is new.
func (t *tracer) known(tid int) (isNew bool) {
	_, ok := t.inside[tid]
	if !ok {
		t.inside[tid] = false
	}
	return !ok
}

// stopped deals with a stop of one thread and lets it go on.
func (t *tracer) stopped(tid int, ws syscall.WaitStatus) error {
	isNew := t.known(tid)
	sig := ws.StopSignal()
	switch {
	case sig == syscallTrap:
		if err := t.call(tid); err != nil {
			return err
		}
		sig = 0
	case sig == syscall.SIGTRAP && ws.TrapCause() > 0, sig == syscall.SIGSTOP && isNew:
		sig = 0 // an event of the tracing itself
	}
	return syscall.PtraceSyscall(tid, int(sig))
}

// call deals with the begin or the end of a system call.
func (t *tracer) call(tid int) error {
	t.inside[tid] = !t.inside[tid]
	var regs syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(tid, &regs); err != nil {
		return err
	}
	if !t.inside[tid] {
		if errno, ok := t.fail[tid]; ok {
			delete(t.fail, tid)
			regs.Rax = -uint64(errno)
			return syscall.PtraceSetRegs(tid, &regs)
		}
		return nil
	}
	c, ok := t.about(&regs)
	if !ok {
		return nil
	}
	t.n++
	c.N = t.n
	switch v := t.see(c); v {
	case Pass:
		return nil
	case Kill:
		return syscall.Kill(t.pid, syscall.SIGKILL)
	default:
		t.fail[tid] = syscall.Errno(v)
		regs.Orig_rax = ^uint64(0) // no such call: nothing happens
		return syscall.PtraceSetRegs(tid, &regs)
	}
}

// about describes a call that changes a file of the file system.
func (t *tracer) about(regs *syscall.PtraceRegs) (Call, bool) {
	name, ok := names[regs.Orig_rax]
	if !ok {
		return Call{}, false
	}
	c := Call{Name: name}
	if name == "openat" {
		return c, regs.Rdx&(syscall.O_CREAT|syscall.O_TRUNC) != 0
	}
	if onOpenFile[name] {
		if regs.Rdi <= 2 {
			return c, false
		}
		path, err := os.Readlink(filepath.Join("/proc", fmt.Sprint(t.pid), "fd", fmt.Sprint(regs.Rdi)))
		c.Path = path
		return c, err == nil && strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "/dev/")
	}
	return c, true
}
