package main

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"promptgen/internal/fault"
	"promptgen/internal/nearest"
)

// canonical rewrites a command line into the form that urfave/cli reads: the
// command, its flags by their own names as --flag=value, "--", the arguments.
// So flags may stand anywhere, an alias may stand beside its flag, - and _ are
// the same in a flag's name, and what the environment says stands first, for
// the command line to override. Every fault is named in one error.
func (a *app) canonical(args []string) ([]string, error) {
	name, rest := a.splitCommand(args)
	switch {
	case name == "" && len(rest) > 0 && !isHelp(rest[0]) && !isVersion(rest[0]):
		return nil, a.noCommand(rest)
	case name == "" && len(rest) > 0 && !isHelp(rest[0]):
		name, rest = "version", nil
	case name == "" || name == "help" && firstWord(rest) == "":
		return []string{"--help"}, nil
	case name == "help":
		name, rest = firstWord(rest), []string{"--help"}
	}
	cmd, err := a.command(name)
	if err != nil {
		return nil, err
	}
	p := parse{cmd: cmd, all: a.commands, env: a.env}
	p.commandLine(rest)
	if p.help {
		return []string{cmd.Name, "--help"}, nil
	}
	fromEnvironment := p.environment()
	if cmd.ArgsUsage == "" && len(p.args) > 0 {
		p.faults.Addf("unexpected argument %q (a flag takes one value: repeat it for a list, and quote a pattern)", p.args[0])
	}
	if err := p.faults.Err(cmd.Name); err != nil {
		return nil, err
	}
	return slices.Concat([]string{cmd.Name}, fromEnvironment, p.flags, []string{"--"}, p.args), nil
}

// firstWord is the first argument that is no flag, if there is one.
func firstWord(args []string) string {
	for _, arg := range args {
		if typed, _, _ := cutFlag(arg); typed == "" {
			return arg
		}
	}
	return ""
}

// splitCommand takes the command's name out of a command line on which flags
// may stand before it.
func (a *app) splitCommand(args []string) (name string, rest []string) {
	for i := 0; i < len(args); i++ {
		flag, _, hasValue := cutFlag(args[i])
		if flag == "" {
			return args[i], slices.Concat(args[:i], args[i+1:])
		}
		f, owners := flagOwners(a.commands, flag)
		switch next := i + 1; {
		case hasValue || isHelp(args[i]) || isVersion(args[i]):
		case len(owners) > 0 && !isBool(f):
			i++
		case len(owners) == 0 && next < len(args) && !a.isCommand(args[next]) && !strings.HasPrefix(args[next], "-"):
			i++ // the value of a mistyped flag, rather than a command
		}
	}
	return "", args
}

func (a *app) isCommand(name string) bool {
	return name == "help" || slices.ContainsFunc(a.commands, func(c *cli.Command) bool { return c.Name == name })
}

// noCommand answers a command line of flags alone: the first one that is not
// known, or belongs to a command, tells what was meant.
func (a *app) noCommand(args []string) error {
	names := []string{"help", "version"}
	for _, c := range a.commands {
		for _, f := range c.Flags {
			names = append(names, f.Names()...)
		}
	}
	for _, arg := range args {
		typed, _, _ := cutFlag(arg)
		if typed == "" || isHelp(arg) || isVersion(arg) {
			continue
		}
		shown, _, _ := strings.Cut(arg, "=")
		_, owners := flagOwners(a.commands, typed)
		switch {
		case len(owners) == 0:
			return fault.Usage("unknown flag %s, did you mean --%s? (and no command is named; promptgen help lists them)", shown, nearest.Of(typed, names))
		case len(owners) < len(a.commands):
			return fault.Usage("no command is named: %s comes after the command that it is for, %s", shown, oneOf(owners))
		}
	}
	return fault.Usage("no command is named; promptgen help lists them")
}

// parse reads the flags of one command.
type parse struct {
	cmd    *cli.Command
	all    []*cli.Command
	env    environment
	flags  []string // --flag=value
	args   []string
	help   bool
	given  []string // names of the flags on the command line
	faults fault.List
}

// commandLine reads what stands behind the command.
func (p *parse) commandLine(args []string) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			p.args = append(p.args, args...)
			return
		}
		typed, value, hasValue := cutFlag(arg)
		switch {
		case typed == "":
			p.args = append(p.args, arg)
			continue
		case isHelp(arg):
			p.help = true
			continue
		}
		f := lookupFlag(p.cmd, typed)
		if f == nil {
			meant := p.unknown(arg, typed)
			if !hasValue && !isBool(meant) && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
				args = args[1:] // its value
			}
			continue
		}
		switch {
		case hasValue:
		case isBool(f):
			value = "true"
		case len(args) == 0:
			p.faults.Addf("--%s needs a value", typed)
			continue
		default:
			value, args = args[0], args[1:]
		}
		p.given = append(p.given, f.Names()[0])
		if given, ok := p.value("--"+typed, f, value); ok {
			p.flags = append(p.flags, given)
		}
	}
}

// instead names what stands in a flag's place: where it is on the command line,
// the flag's variable does not count.
var instead = map[string]string{
	"data": "corpus", "corpus": "data", "prompt": "prompts-file", "prompts-file": "prompt", "dtype": "fp16",
	"config": "model", "model": "config", "json": "jsonl", "jsonl": "json",
}

// environment gives the flags that only the environment sets.
func (p *parse) environment() (flags []string) {
	for _, f := range p.cmd.Flags {
		name := f.Names()[0]
		v, ok := p.env.flagValue(name)
		if !ok || slices.Contains(p.given, name) || slices.Contains(p.given, instead[name]) {
			continue
		}
		if given, ok := p.value(envPrefix+envName(name), f, v); ok {
			flags = append(flags, given)
		}
	}
	return flags
}

// value is a flag with its value in canonical form; said is what the user
// wrote, for the error.
func (p *parse) value(said string, f cli.Flag, value string) (flag string, ok bool) {
	name := f.Names()[0]
	kind, value, ok := fits(f, value)
	switch {
	case !ok:
		p.faults.Addf("%s must be %s, not %q", said, kind, value)
	case value == "" && slices.Contains(neverEmpty, name):
		p.faults.Addf("%s is empty: give its value, or leave the flag out", said)
	case name == "threads" && !threadsCount(value):
		p.faults.Addf("%s must be between 0 (all that may be used) and %d, not %s", said, maxThreads, value)
	}
	return "--" + name + "=" + value, ok
}

// neverEmpty are flags that take a name. Empty is what a shell makes of a variable
// that is not set: a training would begin without the model that was meant, and a
// service without its keys, or on every address, would be open to more than was.
var neverEmpty = []string{
	"config", "model", "base", "init-from", "from-report", "corpus", "data", "vocab", "prompts-file",
	"host", "api-key-file", "tls-cert", "tls-key",
}

// maxThreads is more than any machine has cores. Every thread takes memory, so
// that a slip of the pen must not ask for millions.
const maxThreads = 4096

// threadsCount says whether a whole number can be that of threads.
func threadsCount(value string) bool {
	n, err := strconv.Atoi(value)
	return err == nil && n >= 0 && n <= maxThreads
}

// unknown names the flag that was probably meant, or the commands that have it.
func (p *parse) unknown(arg, typed string) cli.Flag {
	shown, _, _ := strings.Cut(arg, "=")
	if f, owners := flagOwners(p.all, typed); f != nil {
		p.faults.Addf("unknown flag %s: it belongs to %s", shown, oneOf(owners))
		return f
	}
	var names []string
	for _, f := range p.cmd.Flags {
		names = append(names, f.Names()...)
	}
	meant := nearest.Of(typed, names)
	p.faults.Addf("unknown flag %s, did you mean --%s?", shown, meant)
	return lookupFlag(p.cmd, meant)
}

// cutFlag takes --name=value apart; name is empty where arg is no flag.
func cutFlag(arg string) (name, value string, hasValue bool) {
	if len(arg) < 2 || arg[0] != '-' {
		return "", "", false
	}
	name, value, hasValue = strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
	return name, value, hasValue
}

func isHelp(arg string) bool { return arg == "-h" || arg == "-help" || arg == "--help" }

func isVersion(arg string) bool { return arg == "-v" || arg == "--version" }

// flagOwners are the commands that have a flag, and the flag of the first.
func flagOwners(commands []*cli.Command, typed string) (flag cli.Flag, owners []string) {
	for _, c := range commands {
		if f := lookupFlag(c, typed); f != nil {
			if flag == nil {
				flag = f
			}
			owners = append(owners, c.Name)
		}
	}
	return flag, owners
}

// lookupFlag finds a flag by one of its names; - and _ are the same.
func lookupFlag(c *cli.Command, typed string) cli.Flag {
	dashed := func(s string) string { return strings.ReplaceAll(s, "_", "-") }
	for _, f := range c.Flags {
		for _, n := range f.Names() {
			if dashed(n) == dashed(typed) {
				return f
			}
		}
	}
	return nil
}

func isBool(f cli.Flag) bool {
	_, ok := f.(*cli.BoolFlag)
	return ok
}

// fits says whether value can be that of a flag of f's type, what such a value
// is called, and how the flag's parser must read it (010 is ten).
func fits(f cli.Flag, value string) (kind, canonical string, ok bool) {
	canonical = value
	var err error
	switch f.(type) {
	case *cli.BoolFlag:
		kind = "true or false"
		_, err = strconv.ParseBool(value)
	case *cli.IntFlag, *cli.Int64Flag:
		kind = "a whole number"
		var n int64
		if n, err = strconv.ParseInt(value, 10, 64); err == nil {
			canonical = strconv.FormatInt(n, 10)
		}
	case *cli.Uint64Flag:
		kind = "a whole number that is not negative"
		var n uint64
		if n, err = strconv.ParseUint(value, 10, 64); err == nil {
			canonical = strconv.FormatUint(n, 10)
		}
	case *cli.Float64Flag:
		kind = "a number"
		var x float64
		if x, err = strconv.ParseFloat(value, 64); math.IsNaN(x) || math.IsInf(x, 0) {
			return kind, value, false
		}
	case *cli.DurationFlag:
		kind = "a time like 30s or 5m"
		_, err = time.ParseDuration(value)
	}
	return kind, canonical, err == nil
}
