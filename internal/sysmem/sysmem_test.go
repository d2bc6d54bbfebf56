package sysmem

import (
	"os"
	"path/filepath"
	"testing"
)

// The least of the limits that bind the process counts, whichever version of
// control groups sets it and however far above.
func TestFindUnder(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"nothing known": {nil, 0},
		"free memory":   {map[string]string{"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   4 kB\n"}, 4096},
		"v1": {map[string]string{
			"proc/meminfo":     "MemAvailable: 4000000 kB\n",
			"proc/self/cgroup": "4:memory:/a/b\n0::/\n",
			"sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "9223372036854771712\n",
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes":   "1000000\n",
			"sys/fs/cgroup/memory/a/memory.usage_in_bytes":   "300000\n",
			"sys/fs/cgroup/memory/a/memory.stat":             "cache 5\ntotal_inactive_file 100000\n",
		}, 800000},
		"v2": {map[string]string{
			"proc/self/cgroup":               "0::/x\n",
			"sys/fs/cgroup/x/memory.max":     "5000\n",
			"sys/fs/cgroup/x/memory.current": "1000\n",
			"sys/fs/cgroup/x/memory.stat":    "inactive_file 0\n",
			"sys/fs/cgroup/memory.max":       "max\n",
		}, 4000},
		"v2 in a container, its path unknown": {map[string]string{
			"proc/self/cgroup":         "0::/../host\n",
			"sys/fs/cgroup/memory.max": "7000\n",
		}, 7000},
		"over the limit": {map[string]string{ // which is not the same as none
			"proc/self/cgroup":             "0::/\n",
			"sys/fs/cgroup/memory.max":     "10\n",
			"sys/fs/cgroup/memory.current": "20\n",
		}, 1},
		"at the limit": {map[string]string{
			"proc/self/cgroup":             "0::/\n",
			"sys/fs/cgroup/memory.max":     "10\n",
			"sys/fs/cgroup/memory.current": "10\n",
		}, 1},
	} {
		root := t.TempDir()
		for file, text := range c.files {
			at := filepath.Join(root, filepath.FromSlash(file))
			if err := os.MkdirAll(filepath.Dir(at), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(at, []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if got := findUnder(root); got.Bytes != c.want {
			t.Errorf("%s: %+v, want %d", name, got, c.want)
		}
	}
}
