//go:build nompi || !(linux || darwin) || android || ios || !(amd64 || arm64)

package mpi

import "errors"

// Built says whether this binary can load an MPI library at all.
const Built = false

func (w *World) load([]string) error {
	return errors.New("this binary was built without MPI (tag nompi, or a system where libraries cannot be loaded)")
}

// call is never reached: load fails before.
func call(uintptr, ...uintptr) int32 { return -1 }
