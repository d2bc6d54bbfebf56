//go:build !nompi && (linux || darwin) && !android && !ios && (amd64 || arm64)

package mpi

import (
	"fmt"
	"strings"

	"github.com/ebitengine/purego"
)

// Built says whether this binary can load an MPI library at all.
const Built = true

// load opens the first library that is there and finds its functions.
func (w *World) load(names []string) error {
	var lib uintptr
	var err error
	for _, name := range names {
		// Open MPI's components look for its symbols among the global ones.
		if lib, err = purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_GLOBAL); err == nil {
			break
		}
	}
	if lib == 0 {
		return fmt.Errorf("no MPI library can be loaded (%s): %w; install Open MPI or MPICH, or name the library in PROMPTGEN_MPI_LIB",
			strings.Join(names, ", "), err)
	}
	for name, fn := range w.fn.names() {
		if *fn, err = purego.Dlsym(lib, name); err != nil {
			return fmt.Errorf("the MPI library lacks %s (MPI 3 or later is needed): %w", name, err)
		}
	}
	w.abi = mpich
	if world, err := purego.Dlsym(lib, "ompi_mpi_comm_world"); err == nil {
		w.abi = abi{world: world, inPlace: openMPIInPlace}
		for name, at := range map[string]*uintptr{"ompi_mpi_byte": &w.abi.byteType, "ompi_mpi_errors_return": &w.abi.errorsReturn} {
			if *at, err = purego.Dlsym(lib, name); err != nil {
				return fmt.Errorf("the MPI library lacks %s: %w", name, err)
			}
		}
	}
	return nil
}

// call calls a function of the library. The arguments that are addresses stay
// where they are until it returns: their callers hold what they point to.
//
//go:uintptrescapes
func call(fn uintptr, args ...uintptr) int32 {
	rc, _, _ := purego.SyscallN(fn, args...)
	return int32(rc)
}
