//go:build unix

package main

import (
	"os"
	"syscall"

	"promptgen/train/dist"
)

// launcherSignals also ask a rank of a job to stop: mpirun passes SIGUSR1 on to
// the ranks and leaves them the time they need, while it ends them soon after a
// SIGTERM of its own; Slurm's --signal sends whichever it is told.
func launcherSignals() []os.Signal {
	if dist.Launched() {
		return []os.Signal{syscall.SIGUSR1}
	}
	return nil
}
