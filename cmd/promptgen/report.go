package main

import (
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"promptgen/cmd/promptgen/ui"
	"promptgen/internal/fault"
	"promptgen/train/report"
	"promptgen/train/runlog"
)

func (a *app) reportCommand() *cli.Command {
	return &cli.Command{
		Name:      "report",
		Usage:     "make the report of a training again, or of several side by side",
		ArgsUsage: "DIR…",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "`FILE` to write (default: report.html in DIR; of several: comparison.html)"},
		},
		Action: func(c *cli.Context) error {
			dirs := c.Args().Slice()
			if len(dirs) == 0 {
				return fault.Usage("report: name the output folder of a training, or of several")
			}
			var runs []*report.Run
			var sources []string
			for _, dir := range dirs {
				run, err := report.Read(filepath.Clean(dir))
				if err != nil {
					return err
				}
				runs = append(runs, run)
				sources = append(sources, filepath.Join(dir, runlog.RunName), filepath.Join(dir, runlog.MetricsName))
			}
			out := c.String("out")
			switch {
			case out != "":
			case len(dirs) == 1:
				out = filepath.Join(dirs[0], report.Name)
			default:
				out = "comparison.html"
			}
			if path := sameFile(out, sources); path != "" {
				return fault.Usage("report: %s is %s, which the report is made from; choose another name for --out", out, path)
			}
			if err := report.MayReplace(out); err != nil {
				return fault.With(fault.Code(err), fmt.Errorf("report: --out %w", err))
			}
			if err := report.WriteFile(c.Context, out, runs...); err != nil {
				return err
			}
			if c.Bool("json") {
				return a.console.JSON(map[string]any{"report": out, "runs": len(runs)})
			}
			return a.console.Facts(ui.Fact{Name: "report", Value: out})
		},
	}
}
