//go:build !unix

package blob

import "os"

func mapFile(f *os.File, size int64) ([]byte, func() error, error) { return readFile(f, size) }

func dropPages([]byte, int, int) {}
