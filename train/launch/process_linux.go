package launch

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// detach keeps the terminal's Ctrl-C from mpirun, which would leave its ranks a
// second to save, and has mpirun end if this process does.
func detach(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// stayOnThread keeps the goroutine on its thread, whose end would be taken for
// that of the process (Pdeathsig).
func stayOnThread() (unlock func()) {
	runtime.LockOSThread()
	return runtime.UnlockOSThread
}

// askToStop sends the signal that mpirun passes on to all ranks.
func askToStop(p *os.Process) error { return p.Signal(syscall.SIGUSR1) }
