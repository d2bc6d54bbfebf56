package main

import (
	"cmp"
	"strings"

	"github.com/urfave/cli/v2"

	"promptgen/cmd/promptgen/ui"
	"promptgen/internal/host"
)

func (a *app) versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "say what this program was built of",
		Action: func(c *cli.Context) error {
			b := host.ReadProgram()
			if c.Bool("json") {
				return a.console.JSON(b)
			}
			return a.console.Facts(
				ui.Fact{Name: "promptgen", Value: b.Version},
				ui.Fact{Name: "revision", Value: revision(b)},
				ui.Fact{Name: "go", Value: b.Go + " " + b.Platform},
				ui.Fact{Name: "gorgonia", Value: b.Gorgonia},
			)
		},
	}
}

// revision is which source the program was built of; a build without version
// control (-buildvcs=false, an archive of the source) does not know.
func revision(b host.Program) string {
	text := b.Revision
	if b.Modified {
		text += " (modified)"
	}
	return cmp.Or(strings.TrimSpace(text+" "+b.Time), "unknown")
}
