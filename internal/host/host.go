// Package host tells what this program was built of and what machine it runs
// on, for those who read a result later.
package host

import (
	"runtime"
	"runtime/debug"
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
