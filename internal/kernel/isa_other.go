//go:build !amd64

package kernel

// available lists the instruction sets of this machine, the best first.
func available() []*isa { return []*isa{goISA()} }
