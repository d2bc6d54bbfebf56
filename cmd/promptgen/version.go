package main

import (
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
