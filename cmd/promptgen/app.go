package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"promptgen/cmd/promptgen/ui"
	"promptgen/internal/fault"
	"promptgen/internal/nearest"
	"promptgen/train/dist"
)

// app is one run of the program.
type app struct {
	streams
	env      environment
	console  *ui.Console // set before a command runs
	text     *keeping    // out, for text that is printed piece by piece
	commands []*cli.Command
	typed    string // the command line, as a shell would take it again
}

// keeping writes until something fails, and keeps that.
type keeping struct {
	io.Writer
	err error
}

func (k *keeping) Write(b []byte) (int, error) {
	if k.err != nil {
		return 0, k.err
	}
	n, err := k.Writer.Write(b)
	k.err = err
	return n, err
}

func newApp(s streams, environ []string) *app {
	a := &app{streams: s, env: readEnvironment(environ), text: &keeping{Writer: s.out}}
	a.commands = []*cli.Command{
		a.quickstartCommand(),
		a.vocabCommand(),
		a.tokenizeCommand(),
		a.planCommand(),
		a.trainCommand(),
		a.launchCommand(),
		a.evalCommand(),
		a.generateCommand(),
		a.serveCommand(),
		a.exportCommand(),
		a.reportCommand(),
		a.inspectCommand(),
		a.benchCommand(),
		a.doctorCommand(),
		a.completionCommand(),
		a.manCommand(),
		a.versionCommand(),
	}
	for _, c := range a.commands {
		c.Flags = append(c.Flags, commonFlags()...)
		if seed, other := seeds[c.Name]; other {
			c.Flags[slices.IndexFunc(c.Flags, func(f cli.Flag) bool { return f.Names()[0] == "seed" })] = seed
		}
		for _, f := range c.Flags {
			if list, ok := f.(*cli.StringSliceFlag); ok {
				list.KeepSpace = true // a prompt may end with a space, and a text at a line's end
			}
		}
		c.HideHelpCommand = true
		explain(c)
		c.Before = a.before
		c.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return fault.Usage("%w", err) }
	}
	return a
}

// seeds are --seed where it means something else than for most commands.
var seeds = map[string]cli.Flag{
	"generate": &cli.Uint64Flag{Name: "seed", Category: commonCategory, DefaultText: "another each time, which --json tells",
		Usage: "the same `N` gives the same texts to the bit, whatever the threads"},
	"serve": &cli.Uint64Flag{Name: "seed", Category: commonCategory, DefaultText: "another for each request",
		Usage: "`N` is not used: a request may bring its own"},
}

const commonCategory = "Common"

// commonFlags are taken by every command.
func commonFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "quiet", Category: commonCategory, Usage: "no log and no progress on standard error"},
		&cli.BoolFlag{Name: "json", Category: commonCategory, Usage: "print the result as one JSON document"},
		&cli.Uint64Flag{Name: "seed", Category: commonCategory, Value: 1, Usage: "the same `N` gives the same result to the bit, whatever the threads"},
		&cli.IntFlag{Name: "threads", Category: commonCategory, DefaultText: "all that may be used", Usage: "work on `N` cores"},
	}
}

// before sets the console up once the flags are known.
func (a *app) before(c *cli.Context) error {
	a.console = ui.NewConsole(a.out, a.err, c.Bool("quiet") || dist.Follower())
	for _, w := range a.env.warnings(a.commands) {
		a.console.Warn(w)
	}
	return nil
}

// run carries out one command line.
func (a *app) run(ctx context.Context, args []string) error {
	a.typed = a.commandLine(args)
	canonical, err := a.canonical(args)
	if err != nil {
		return err
	}
	program := &cli.App{
		Name:            "promptgen",
		Usage:           "train GPT-2 on Chinese text and let it go on with a prompt",
		HideHelpCommand: true,
		HideVersion:     true,
		Commands:        a.commands,
		Reader:          a.in, Writer: a.text, ErrWriter: io.Discard,
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              func(_ *cli.Context, err error, _ bool) error { return fault.Usage("%w", err) },
	}
	if err := program.RunContext(ctx, append([]string{"promptgen"}, canonical...)); err != nil {
		return err
	}
	return a.text.err
}

// commandLine is what to type to run the same again: the variables that stand
// for flags of the command, the program, its arguments. It is kept with a model:
// other variables are nobody's business.
func (a *app) commandLine(args []string) string {
	var words []string
	name, _ := a.splitCommand(args)
	if c, err := a.command(name); err == nil {
		names := []string{"ISA", "MPI_LIB"}
		for _, f := range c.Flags {
			names = append(names, envName(f.Names()[0]))
		}
		slices.Sort(names)
		for _, name := range names {
			if v, ok := a.env.flagValue(name); ok {
				words = append(words, envPrefix+name+"="+shellQuote(v))
			}
		}
	}
	words = append(words, a.name())
	for _, arg := range args {
		words = append(words, shellQuote(arg))
	}
	return strings.Join(words, " ")
}

// shellQuote writes a word so that a shell reads it as it is.
func shellQuote(word string) string {
	plain := func(r rune) bool {
		return r > 127 || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_=./:,+@%", r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// command finds a command by its name.
func (a *app) command(name string) (*cli.Command, error) {
	names := []string{"help"}
	for _, c := range a.commands {
		if c.Name == name {
			return c, nil
		}
		names = append(names, c.Name)
	}
	if near := nearest.Near(name, names); near != "" {
		return nil, fault.Usage("there is no command %q, did you mean %q? (promptgen help lists them)", name, near)
	}
	return nil, fault.Usage("there is no command %q; promptgen help lists them", name)
}

// choice checks a flag that takes one of a few words.
func choice(faults *fault.List, c *cli.Context, flag string, words ...string) {
	if v := c.String(flag); !slices.Contains(words, v) {
		faults.Addf("--%s must be %s, not %q", flag, oneOf(words), v)
	}
}

// oneOf lists words: a, b or c.
func oneOf(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// compat reads --compat: empty or "book".
func compat(faults *fault.List, c *cli.Context) bool {
	v := c.String("compat")
	if v != "" && v != "book" {
		faults.Addf(`--compat knows only "book", not %q`, v)
	}
	return v == "book"
}

// stray says whether a flag was given, which the caller has no use for. What the
// environment says is meant for whichever command has the use.
func (a *app) stray(c *cli.Context, flag string) bool {
	_, everywhere := a.env.flagValue(flag)
	return c.IsSet(flag) && !everywhere
}

// refuseDevice answers --device: the CPU is the only device there is.
func (a *app) refuseDevice(faults *fault.List, device string) {
	switch strings.ToLower(device) {
	case "cpu":
	case "auto":
		a.console.Log.Info("device auto: cpu")
	default:
		faults.Addf("--device %s: only the cpu is supported for now; use --device cpu or auto", device)
	}
}

// name is how the user starts this program.
func (a *app) name() string {
	exe, err := os.Executable()
	if err == nil && strings.Contains(exe, "go-build") { // go run builds into such a folder
		return "go run ./cmd/promptgen"
	}
	return "promptgen"
}

// said logs that an option of the original is taken.
func (a *app) said(format string, args ...any) { a.console.Log.Info(fmt.Sprintf(format, args...)) }
