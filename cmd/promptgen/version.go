package main

import (
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"

	"promptgen/cmd/promptgen/ui"
)

// buildFacts are what this binary was built of.
type buildFacts struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of the source, as git names it
	Time     string `json:"time,omitempty"`     // of the revision
	Modified bool   `json:"modified"`           // the source differed from the revision
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Gorgonia string `json:"gorgonia"`
}

func (a *app) versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "say what this program was built of",
		Action: func(c *cli.Context) error {
			b := readBuild()
			if c.Bool("json") {
				return a.console.JSON(b)
			}
			revision := b.Revision
			if b.Modified {
				revision += " (modified)"
			}
			return a.console.Facts(
				ui.Fact{Name: "promptgen", Value: b.Version},
				ui.Fact{Name: "revision", Value: strings.TrimSpace(revision + " " + b.Time)},
				ui.Fact{Name: "go", Value: b.Go + " " + b.Platform},
				ui.Fact{Name: "gorgonia", Value: b.Gorgonia},
			)
		},
	}
}

func readBuild() buildFacts {
	b := buildFacts{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
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
