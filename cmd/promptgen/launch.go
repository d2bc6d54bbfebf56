package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"promptgen/train/launch"
)

func (a *app) launchCommand() *cli.Command {
	return &cli.Command{
		Name:      "launch",
		Usage:     "run a training on several machines with mpirun, and again when one fails",
		ArgsUsage: "-- train …",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "np", Value: 1, Usage: "`N` ranks (processes) in all"},
			&cli.StringFlag{Name: "hostfile", Usage: "`FILE` with a line \"host slots=N\" for each machine (default: this machine, or the batch system's)"},
			&cli.IntFlag{Name: "max-restarts", Value: 3, Usage: "start again from the last checkpoint at most `N` times, with the hosts that answer"},
			&cli.StringFlag{Name: "mpirun", Value: "mpirun", Usage: "Open MPI's or MPICH's mpirun"},
		},
		Action: func(c *cli.Context) error {
			program, err := os.Executable()
			if err != nil {
				return fmt.Errorf("finding this program's file: %w", err)
			}
			return launch.Run(c.Context, launch.Options{
				Ranks: c.Int("np"), Hostfile: c.String("hostfile"), MaxRestarts: c.Int("max-restarts"),
				Mpirun: c.String("mpirun"), Program: program, Args: trainingArgs(c),
				Stdout: a.out, Stderr: a.err, Log: func(line string) { a.console.Log.Info(line) },
			})
		},
	}
}

// trainingArgs is the command line of the ranks. The flags that every command has
// are meant for them; those behind train come later and count.
func trainingArgs(c *cli.Context) []string {
	args := c.Args().Slice()
	var common []string
	for _, f := range commonFlags() {
		if name := f.Names()[0]; c.IsSet(name) {
			common = append(common, fmt.Sprintf("--%s=%v", name, c.Value(name)))
		}
	}
	return slices.Insert(args, min(1, len(args)), common...)
}
