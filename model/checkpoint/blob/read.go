package blob

import (
	"io"
	"os"
)

// readFile is what mapFile does where nothing can be mapped; there is nothing to
// unmap then.
func readFile(f *os.File, size int64) ([]byte, func() error, error) {
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, nil, err
	}
	return b, nil, nil
}
