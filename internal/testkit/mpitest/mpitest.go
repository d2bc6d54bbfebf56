// Package mpitest finds the MPI installations that tests start jobs with.
package mpitest

import (
	"os"
	"os/exec"
	"testing"

	"promptgen/internal/mpi"
)

// The installations that tests know.
const (
	OpenMPI = "Open MPI"
	MPICH   = "MPICH"
)

// Run is the beginning of a command line that starts a job: the installation's
// mpirun, and what lets any user start more ranks than there are cores. Without
// the installation the test skips, but fails where PROMPTGEN_TEST_MPI is
// "required", as in CI.
func Run(t testing.TB, flavour string) []string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts jobs of several processes")
	}
	name, args := "mpirun.openmpi", []string{"--allow-run-as-root", "--oversubscribe", "--bind-to", "none"}
	if flavour == MPICH {
		name, args = "mpirun.mpich", nil
	}
	path, err := exec.LookPath(name)
	switch {
	case !mpi.Built:
		t.Skip("built without MPI")
	case err == nil:
	case os.Getenv("PROMPTGEN_TEST_MPI") == "required":
		t.Fatalf("%s is not installed", flavour)
	default:
		t.Skipf("%s is not installed (Debian's openmpi-bin and mpich have them)", flavour)
	}
	return append([]string{path}, args...)
}
