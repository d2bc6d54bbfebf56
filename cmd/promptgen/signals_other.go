//go:build !unix

package main

import "os"

// launcherSignals are none: there are no MPI launchers here.
func launcherSignals() []os.Signal { return nil }
