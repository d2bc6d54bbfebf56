package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"promptgen/internal/fault"
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
			o := launch.Options{
				Ranks: c.Int("np"), Hostfile: c.String("hostfile"), MaxRestarts: c.Int("max-restarts"),
				Mpirun: c.String("mpirun"), Program: program, Args: trainingArgs(c),
				Stdout: a.out, Stderr: a.err, Log: func(line string) { a.console.Log.Info(line) },
			}
			if err := o.Check(); err != nil {
				return err
			}
			if err := a.checkTraining(c.Context, o); err != nil {
				return err
			}
			return launch.Run(c.Context, o)
		},
	}
}

// checkTraining reads the ranks' command line as they will: what is wrong with it
// is one line here, and a dozen from mpirun once every rank has ended with it. The
// files that it names are those of other hosts where there is a list of these.
func (a *app) checkTraining(ctx context.Context, o launch.Options) error {
	rank := newApp(streams{a.in, io.Discard, io.Discard}, nil)
	rank.env = a.env
	cmd, err := rank.command("train")
	if err != nil {
		return err
	}
	cmd.Action = func(c *cli.Context) error {
		if o.Hostfile != "" {
			return nil
		}
		t, err := rank.trainOptions(c)
		if err != nil {
			return err
		}
		return t.Validate()
	}
	if err := rank.run(ctx, o.Args); fault.Code(err) == fault.CodeUsage {
		return err
	}
	return nil // whatever else is wrong shows where it runs
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
