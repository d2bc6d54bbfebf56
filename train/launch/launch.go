// Package launch runs a training on several machines by way of mpirun, and
// starts it again, from its last checkpoint, when a machine or a process dies.
package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"promptgen/internal/fault"
)

// Options of a launched run.
type Options struct {
	Ranks       int    // processes in all
	Hostfile    string // lines "host slots=N"; empty: this machine, or the allocation of the batch system
	MaxRestarts int
	Mpirun      string   // empty: mpirun
	Program     string   // this program's file, at the same place on every host
	Args        []string // its arguments: train …

	Stdout, Stderr io.Writer
	Log            func(string) // receives a line for each event
}

// flavour is a kind of mpirun.
type flavour struct {
	args func(ranks int, hostfile string) []string
	line func(h host) string // of a hostfile
	env  []string
}

// Open MPI's daemons learn of a dead link or machine only by keepalives: this
// many seconds of silence, then probes so many seconds apart.
const keepaliveTime, keepaliveInterval, keepaliveProbes = 3, 2, 3

var openMPI = flavour{
	args: func(ranks int, hostfile string) []string {
		args := []string{"-np", strconv.Itoa(ranks), "--bind-to", "none"}
		for name, value := range map[string]int{
			"oob_tcp_keepalive_time": keepaliveTime, "oob_tcp_keepalive_intvl": keepaliveInterval, "oob_tcp_keepalive_probes": keepaliveProbes,
		} {
			args = append(args, "--mca", name, strconv.Itoa(value))
		}
		for _, kv := range os.Environ() { // other hosts get what is named
			if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "PROMPTGEN_") {
				args = append(args, "-x", name)
			}
		}
		if hostfile != "" {
			return append(args, "--hostfile", hostfile)
		}
		return append(args, "--oversubscribe") // this machine alone: as many as asked for
	},
	line: func(h host) string { return fmt.Sprintf("%s slots=%d", h.name, h.slots) },
	env:  []string{"OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"}, // containers run as root
}

var hydra = flavour{
	args: func(ranks int, hostfile string) []string {
		args := []string{"-n", strconv.Itoa(ranks), "-bind-to", "none"}
		if hostfile != "" {
			args = append(args, "-f", hostfile)
		}
		return args
	},
	line: func(h host) string { return fmt.Sprintf("%s:%d", h.name, h.slots) },
}

// Check lists every fault of the options.
func (o Options) Check() error {
	var l fault.List
	if o.Ranks < 1 || o.Ranks > 1<<16 {
		l.Addf("--np must be at least 1, not %d", o.Ranks)
	}
	if o.MaxRestarts < 0 {
		l.Addf("--max-restarts must not be negative, not %d", o.MaxRestarts)
	}
	if len(o.Args) == 0 || o.Args[0] != "train" {
		l.Addf("what to launch is missing: launch --np N -- train …")
	}
	return l.Err("launch")
}

// pauseBeforeRestart lets a network settle, and remote daemons end.
const pauseBeforeRestart = 2 * time.Second

// Run launches the training and returns when it is done, or when it failed for
// a reason that a restart cannot mend, or too often. A cancelled ctx has all
// ranks stop after their step and rank 0 save (130).
func Run(ctx context.Context, o Options) error {
	if err := o.Check(); err != nil {
		return err
	}
	if o.Mpirun == "" {
		o.Mpirun = "mpirun"
	}
	kind, err := identify(ctx, o.Mpirun)
	if err != nil {
		return err
	}
	var hosts []host
	if o.Hostfile != "" {
		if hosts, err = readHosts(o.Hostfile); err != nil {
			return err
		}
		if have := slotsOf(hosts); have < o.Ranks {
			return fault.Usage("%s has %d slots, --np asks for %d ranks", o.Hostfile, have, o.Ranks)
		}
	}
	for restarts := 0; ; restarts++ {
		left, ranks := hosts, o.Ranks
		if restarts > 0 && hosts != nil {
			left = reachable(ctx, hosts, o.Log)
			ranks = min(ranks, slotsOf(left))
		}
		if ranks == 0 {
			return fault.With(fault.CodeFailed, fmt.Errorf("none of the hosts in %s answers", o.Hostfile))
		}
		if restarts > 0 {
			o.Log(fmt.Sprintf("restart %d of %d, from the last checkpoint, with %d ranks", restarts, o.MaxRestarts, ranks))
		}
		code, err := runOnce(ctx, o, kind, ranks, left)
		switch {
		case err != nil:
			return err
		case code == fault.CodeDone:
			return nil
		case ctx.Err() != nil:
			return errInterrupted
		case !mendable(code):
			return fault.With(code, fmt.Errorf("the training ended with exit code %d, which starting it again would not change", code))
		case restarts == o.MaxRestarts:
			return fault.With(code, fmt.Errorf("the job ended with exit code %d (%s) and was started again %d times; the same command goes on from the last checkpoint", code, meaning(code), restarts))
		}
		o.Log(fmt.Sprintf("the job ended with exit code %d (%s)", code, meaning(code)))
		select {
		case <-ctx.Done():
			return errInterrupted
		case <-time.After(pauseBeforeRestart):
		}
	}
}

var errInterrupted = fault.With(fault.CodeInterrupted, errors.New("interrupted; the same command goes on from the last state"))

// mendable says whether the reason for an exit code may be gone the next time.
func mendable(code int) bool {
	switch code {
	case fault.CodeUsage, fault.CodeData, fault.CodeMemory, fault.CodeCorrupt, fault.CodeInterrupted:
		return false
	}
	return true
}

func meaning(code int) string {
	switch {
	case code == fault.CodeWatchdog:
		return "a rank hung"
	case code > 128 && code < 128+65:
		return "a rank was ended by signal " + strconv.Itoa(code-128)
	}
	return "a rank failed, or a host was lost"
}

// identify tells the kind of an mpirun.
func identify(ctx context.Context, mpirun string) (flavour, error) {
	out, err := exec.CommandContext(ctx, mpirun, "--version").CombinedOutput()
	switch {
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist):
		return flavour{}, fault.Usage("%s is not there: install Open MPI (openmpi-bin) or MPICH on every host, or say where it is with --mpirun", mpirun)
	case err != nil:
		return flavour{}, fault.Usage("%s --version: %w", mpirun, err)
	case bytes.Contains(out, []byte("HYDRA")):
		return hydra, nil
	case bytes.Contains(out, []byte("Open MPI")) || bytes.Contains(out, []byte("OpenRTE")):
		return openMPI, nil
	}
	return flavour{}, fault.Usage("%s is neither Open MPI's nor MPICH's", mpirun)
}

// runOnce runs the job once and returns its exit code.
func runOnce(ctx context.Context, o Options, kind flavour, ranks int, hosts []host) (int, error) {
	hostfile, remove, err := writeHosts(hosts, kind.line)
	if err != nil {
		return 0, err
	}
	defer remove()
	args := append(kind.args(ranks, hostfile), o.Program)
	cmd := exec.Command(o.Mpirun, append(args, o.Args...)...)
	cmd.Env = append(os.Environ(), kind.env...)
	cmd.Stdout, cmd.Stderr = o.Stdout, o.Stderr
	detach(cmd)
	return runToEnd(ctx, cmd)
}

// runToEnd waits for mpirun. An interrupt is passed on as the signal that the
// ranks save at; it is they who end the job.
func runToEnd(ctx context.Context, cmd *exec.Cmd) (int, error) {
	ended := make(chan error, 1)
	started := make(chan error)
	go func() {
		unlock := stayOnThread()
		defer unlock()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return 0, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		if serr := askToStop(cmd.Process); serr != nil && !errors.Is(serr, os.ErrProcessDone) {
			return 0, fmt.Errorf("asking the job to stop: %w", serr)
		}
		err = <-ended
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &exit):
		return 0, fmt.Errorf("%s: %w", cmd.Path, err)
	case exit.ExitCode() < 0: // mpirun itself was ended by a signal
		return fault.CodeFailed, nil
	}
	return exit.ExitCode(), nil
}
