//go:build !linux

package kernel

// adviseHuge does nothing where huge pages are not asked for.
func adviseHuge([]float32) {}
