// Package host tells what this program was built of and what machine it runs
// on, for those who read a result later.
package host

import (
	"os"
	"runtime"
	"runtime/debug"
	"strings"
)

// Program is what this binary was built of.
type Program struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of the source, as git names it
	Time     string `json:"time,omitempty"`     // of the revision
	Modified bool   `json:"modified"`           // the source differed from the revision
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Gorgonia string `json:"gorgonia"`
}

// ReadProgram asks the binary itself.
func ReadProgram() Program {
	b := Program{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	for _, d := range info.Deps {
		if d.Path == "gorgonia.org/gorgonia" {
			b.Gorgonia = d.Version
		}
	}
	return b
}

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
	return Machine{CPU: CPUName(), OS: osName()}
}

// CPUName is the processor's name, or its architecture where nothing tells it.
func CPUName() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// osName is the system's own name for itself, with its kernel's.
func osName() string {
	name := runtime.GOOS
	if b, err := os.ReadFile("/etc/os-release"); err == nil {
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
				name = strings.Trim(strings.TrimSpace(v), `"`)
			}
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		name += ", kernel " + strings.TrimSpace(string(b))
	}
	return name
}
