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
	case name == "" && len(rest) > 0 && !isHelp(rest[0]) && rest[0] != "--version" && rest[0] != "-v":
		return nil, fault.Usage("no command is named; promptgen help lists them")
	case name == "" && len(rest) > 0 && !isHelp(rest[0]):
		name, rest = "version", nil
	case name == "" || name == "help" && len(rest) == 0:
		return []string{"--help"}, nil
	case name == "help":
		name, rest = rest[0], []string{"--help"}
	}
	cmd, err := a.command(name)
	if err != nil {
		return nil, err
	}
	p := parse{cmd: cmd, env: a.env}
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

// splitCommand takes the command's name out of a command line on which flags
// may stand before it.
func (a *app) splitCommand(args []string) (name string, rest []string) {
	for i := 0; i < len(args); i++ {
		flag, _, hasValue := cutFlag(args[i])
		if flag == "" {
			return args[i], slices.Concat(args[:i], args[i+1:])
		}
		for _, c := range a.commands {
			if f := lookupFlag(c, flag); f != nil && !hasValue && !isBool(f) {
				i++
				break
			}
		}
	}
	return "", args
}

// parse reads the flags of one command.
type parse struct {
	cmd    *cli.Command
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

// environment gives the flags that only the environment sets.
func (p *parse) environment() (flags []string) {
	for _, f := range p.cmd.Flags {
		name := f.Names()[0]
		v, ok := p.env.flagValue(name)
		if !ok || slices.Contains(p.given, name) {
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
	kind, value, ok := fits(f, value)
	if !ok {
		p.faults.Addf("%s must be %s, not %q", said, kind, value)
	}
	return "--" + f.Names()[0] + "=" + value, ok
}

// unknown names the flag that was probably meant.
func (p *parse) unknown(arg, typed string) cli.Flag {
	var names []string
	for _, f := range p.cmd.Flags {
		names = append(names, f.Names()...)
	}
	shown, _, _ := strings.Cut(arg, "=")
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
