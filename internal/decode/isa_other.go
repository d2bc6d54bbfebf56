//go:build !amd64

package decode

// findKernels returns what goes with an instruction set of package kernel.
func findKernels(string) *kernels { return goKernels() }
