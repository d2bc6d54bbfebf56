// Package sysmem tells how much memory this process may use: what its control
// groups (Linux, version 1 and 2) leave and what the machine has free.
package sysmem

import (
	"math"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// Usable is how much memory may still be used, and what says so.
type Usable struct {
	Bytes int64  `json:"bytes"` // 0: the system does not tell
	From  string `json:"from"`
}

// Find asks the system.
func Find() Usable { return findUnder("/") }

// findUnder is Find with another root of the file system, for tests. The least
// of all limits counts; a group's limit binds those below it as well. Where
// nothing is left it is a byte, for none would mean that there is no limit.
func findUnder(root string) Usable {
	best := Usable{math.MaxInt64, ""}
	consider := func(bytes int64, from string) {
		if from != "" && bytes < best.Bytes {
			best = Usable{max(1, bytes), from}
		}
	}
	if n, ok := field(read(root, "proc/meminfo"), "MemAvailable:"); ok {
		consider(n<<10, "free memory")
	}
	for _, line := range strings.Split(read(root, "proc/self/cgroup"), "\n") {
		parts := strings.SplitN(line, ":", 3)
		if len(parts) != 3 {
			continue
		}
		if parts[0] == "0" && parts[1] == "" {
			for _, mount := range []string{"sys/fs/cgroup", "sys/fs/cgroup/unified"} {
				walk(root, mount, parts[2], v2, consider)
			}
		}
		for _, controller := range strings.Split(parts[1], ",") {
			if controller == "memory" {
				walk(root, "sys/fs/cgroup/memory", parts[2], v1, consider)
			}
		}
	}
	if best.From == "" {
		return Usable{}
	}
	return best
}

// version is where one version of control groups keeps its numbers.
type version struct {
	name, limit, usage, cache string
}

var (
	v1 = version{"cgroup v1", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}
	v2 = version{"cgroup v2", "memory.max", "memory.current", "inactive_file"}
)

// unlimited is what version 1 says where there is no limit, nearly: it rounds
// the largest number down to a page.
const unlimited = math.MaxInt64 >> 1

// walk looks at a group and all above it. In a container the group's own path
// may not be there while the mount's root is the group.
func walk(root, mount, group string, v version, consider func(int64, string)) {
	for dir := path.Clean("/" + group); ; dir = path.Dir(dir) {
		at := path.Join(mount, dir)
		limit, ok := number(read(root, path.Join(at, v.limit)))
		if ok && limit < unlimited {
			used, _ := number(read(root, path.Join(at, v.usage)))
			cache, _ := field(read(root, path.Join(at, "memory.stat")), v.cache)
			consider(limit-max(0, used-cache), v.name+" "+path.Join(dir, v.limit))
		}
		if dir == "/" {
			return
		}
	}
}

func read(root, name string) string {
	b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		return ""
	}
	return string(b)
}

func number(s string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	return n, err == nil && n >= 0
}

// field is the number behind a name at the start of a line.
func field(text, name string) (int64, bool) {
	for _, line := range strings.Split(text, "\n") {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == name {
			return number(f[1])
		}
	}
	return 0, false
}
