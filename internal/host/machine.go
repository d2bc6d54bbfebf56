package host

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Memory is what a process here may use.
type Memory struct {
	Total  int64  `json:"total_bytes"`
	Usable int64  `json:"usable_bytes"` // 0: the system does not tell
	Limit  string `json:"limited_by"`
}

// ReadMemory asks the system, and the control groups (version 2) that this
// process is in.
func ReadMemory() Memory {
	m := Memory{Limit: "what is free"}
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return m
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch {
		case err != nil:
		case name == "MemTotal":
			m.Total = kb << 10
		case name == "MemAvailable":
			m.Usable = kb << 10
		}
	}
	self, _ := os.ReadFile("/proc/self/cgroup")
	_, group, _ := strings.Cut(strings.TrimSpace(string(self)), "0::")
	for dir := filepath.Join("/sys/fs/cgroup", group); strings.HasPrefix(dir, "/sys/fs/cgroup"); dir = filepath.Dir(dir) {
		limit, ok := readNumber(filepath.Join(dir, "memory.max"))
		used, _ := readNumber(filepath.Join(dir, "memory.current"))
		if left := limit - used; ok && left < m.Usable {
			m.Usable, m.Limit = max(left, 0), "control group "+filepath.Base(dir)
		}
	}
	return m
}

func readNumber(path string) (int64, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil
}

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
