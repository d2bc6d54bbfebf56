// Package fault gives errors the exit code they end the program with.
//
// A package that knows why something cannot go on says so where it happens:
//
//	return fault.Corrupt("%s: %d bytes after the last tensor; copy the file again", path, n)
//
// and cmd/promptgen turns the outermost code into the process's exit status
// (the table is part of the contract of the commands). Errors without a code
// are ordinary failures (1).
package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Exit codes of the program.
const (
	CodeDone        = 0   // finished
	CodeFailed      = 1   // failed while running
	CodeUsage       = 2   // wrong usage or configuration, a missing file included
	CodeData        = 3   // the data cannot serve
	CodeMemory      = 4   // does not fit the memory allowed
	CodeCorrupt     = 5   // a file is corrupt, of another kind, or does not belong to the others
	CodeWatchdog    = 75  // stopped by the watchdog of a distributed run
	CodeInterrupted = 130 // interrupted, after saving
)

// coded is an error that knows its exit code.
type coded struct {
	code int
	err  error
}

func (e *coded) Error() string { return e.err.Error() }
func (e *coded) Unwrap() error { return e.err }

// With gives err the exit code; a nil err stays nil. The outermost code counts.
func With(code int, err error) error {
	if err == nil {
		return nil
	}
	return &coded{code, err}
}

// Usage is a fault of flags, configuration or a file that is not there (2).
func Usage(format string, args ...any) error { return With(CodeUsage, fmt.Errorf(format, args...)) }

// Data says that the data cannot serve (3).
func Data(format string, args ...any) error { return With(CodeData, fmt.Errorf(format, args...)) }

// Corrupt says that a file is damaged, of another kind, or belongs to others (5).
func Corrupt(format string, args ...any) error { return With(CodeCorrupt, fmt.Errorf(format, args...)) }

// Reason is a system's error without the names it failed for, which the message
// about it says in the user's own words.
func Reason(err error) error {
	switch e := err.(type) {
	case *fs.PathError:
		return e.Err
	case *os.LinkError:
		return e.Err
	}
	return err
}

// Code is the exit code of err: its outermost code, 130 for a cancelled
// context, 1 for an error without a code, 0 for nil.
func Code(err error) int {
	var c *coded
	switch {
	case err == nil:
		return CodeDone
	case errors.As(err, &c):
		return c.code
	case errors.Is(err, context.Canceled):
		return CodeInterrupted
	}
	return CodeFailed
}

// List collects the faults of one thing that is checked whole.
type List []string

// Addf adds a fault.
func (l *List) Addf(format string, args ...any) { *l = append(*l, fmt.Sprintf(format, args...)) }

// Err is nil without faults, else one line that names what and lists them all (2).
func (l List) Err(what string) error {
	if len(l) == 0 {
		return nil
	}
	return Usage("%s: %s", what, strings.Join(l, "; "))
}
