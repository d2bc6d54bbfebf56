//go:build !linux

package launch

import (
	"os"
	"os/exec"
)

func detach(*exec.Cmd) {}

func stayOnThread() (unlock func()) { return func() {} }

func askToStop(p *os.Process) error { return p.Signal(os.Interrupt) }
