package host

import (
	"os"
	"runtime"
	"strings"
)

// Machine is what a program runs on.
type Machine struct {
	CPU     string `json:"cpu"`
	ISA     string `json:"isa"`     // of the kernels
	Threads int    `json:"threads"` // that computed
	OS      string `json:"os"`
}

// ReadMachine names the processor and the system; ISA and Threads are the
// caller's to say.
func ReadMachine() Machine {
	return Machine{CPU: cpuName(read("/proc/cpuinfo")), OS: osName(read("/etc/os-release"), read("/proc/sys/kernel/osrelease"))}
}

// HugePages is the system's setting for transparent huge pages: always, madvise,
// never, or "not offered".
func HugePages() string { return chosen(read("/sys/kernel/mm/transparent_hugepage/enabled")) }

// read is a file that tells about the system, empty where there is none.
func read(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

// cpuName is the processor's name in Linux's cpuinfo, or the architecture where
// nothing tells it.
func cpuName(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		key, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// osName is the system's own name for itself, with its kernel's.
func osName(release, kernel string) string {
	name := runtime.GOOS
	for line := range strings.Lines(release) {
		if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			name = strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	if kernel = strings.TrimSpace(kernel); kernel != "" {
		name += ", kernel " + kernel
	}
	return name
}

// chosen is the word in brackets, with which the kernel marks a setting.
func chosen(setting string) string {
	_, rest, _ := strings.Cut(setting, "[")
	word, _, ok := strings.Cut(rest, "]")
	if !ok {
		return "not offered"
	}
	return word
}
