//go:build !linux

package atomicdir

import "errors"

// exchange is Linux's alone; elsewhere the old folder is moved aside.
func exchange(a, b string) error { return errors.ErrUnsupported }
