package mpi

import (
	"runtime"
	"strings"
	"testing"
)

// What cannot be loaded, and what is no MPI library, is refused with the reason
// and what to do.
func TestOpenRefuses(t *testing.T) {
	if _, err := Open("/nowhere/libmpi.so"); err == nil || Built && !(strings.Contains(err.Error(), "/nowhere/libmpi.so") && strings.Contains(err.Error(), "PROMPTGEN_MPI_LIB")) {
		t.Errorf("a library that is not there: %v", err)
	}
	if !Built || runtime.GOOS != "linux" {
		return
	}
	if _, err := Open("libc.so.6"); err == nil || !strings.Contains(err.Error(), "lacks MPI_") {
		t.Errorf("another library: %v", err)
	}
}

// What a library says of itself may have several lines, and ends with a zero.
func TestFirstLine(t *testing.T) {
	for text, want := range map[string]string{"MPICH\x00rest": "MPICH", "Open MPI v4\nmore": "Open MPI v4", "a\r\n": "a", "whole": "whole", "": ""} {
		if got := firstLine([]byte(text)); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}
