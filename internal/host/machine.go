package host

import (
	"os"
	"strings"
)

// HugePages is the system's setting for transparent huge pages: always, madvise,
// never, or "not offered".
func HugePages() string {
	b, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	if err != nil {
		return "not offered"
	}
	_, rest, _ := strings.Cut(string(b), "[")
	chosen, _, ok := strings.Cut(rest, "]")
	if !ok {
		return "not offered"
	}
	return chosen
}
