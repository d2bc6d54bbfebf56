package fault

import (
	"fmt"
	"runtime/debug"
	"strings"
)

// Panicked is the error that stands for a panic p, with the place of the statement
// that panicked. It is for the deferred function that recovered from it.
func Panicked(p any) error {
	return fmt.Errorf("internal error: %v (%s); please report it", p, whereItPanicked())
}

// whereItPanicked is the file and line of the statement that panicked: the
// frame after runtime.gopanic in the stack.
func whereItPanicked() string {
	lines := strings.Split(string(debug.Stack()), "\n")
	for i, l := range lines {
		if !strings.HasPrefix(l, "panic(") {
			continue
		}
		for _, at := range lines[i+2:] {
			if place, isPlace := strings.CutPrefix(at, "\t"); isPlace && !strings.Contains(place, "/runtime/") {
				place, _, _ = strings.Cut(place, " +0x")
				return place[strings.LastIndex(place, "/")+1:]
			}
		}
	}
	return "place unknown"
}
