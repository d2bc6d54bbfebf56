package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"promptgen/internal/nearest"
)

// envPrefix begins the variables that stand for flags: PROMPTGEN_BATCH_SIZE is
// --batch-size where the command line does not say it.
const envPrefix = "PROMPTGEN_"

// settings are the variables that are no flags.
var settings = []string{
	"ISA",              // lowers the kernels' level
	"MPI_LIB",          // the MPI library of a distributed run
	"GOLDEN",           // fixtures of the tests
	"TOKENIZER_GOLDEN", // likewise
	"VOCABS",           // likewise
	"TEST_MPI",         // "required": tests fail where MPI is missing
	"TEST_KILLS",       // how often the tests kill a training
	"E2E",              // "required": tests fail where a browser or client is missing
	"BENCH_MB",         // corpus of the tokenizer's benchmark
}

// environment holds the PROMPTGEN_ variables without their prefix.
type environment map[string]string

func readEnvironment(environ []string) environment {
	env := environment{}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if name, ours := strings.CutPrefix(name, envPrefix); ours {
			env[name] = value
		}
	}
	return env
}

// envName is the variable of a flag, without the prefix.
func envName(flag string) string { return strings.ToUpper(strings.ReplaceAll(flag, "-", "_")) }

// flagValue is the value that the environment gives a flag. Kubernetes sets
// PROMPTGEN_PORT to tcp://10.0.0.1:5005 where a service is called promptgen;
// that is no port.
func (e environment) flagValue(flag string) (string, bool) {
	v, ok := e[envName(flag)]
	if ok && injectedPort(envName(flag), v) {
		return "", false
	}
	return v, ok && v != ""
}

func injectedPort(name, value string) bool {
	return name == "PORT" && strings.Contains(value, "://")
}

// warnings name the variables that no command knows.
func (e environment) warnings(commands []*cli.Command) []string {
	known := slices.Clone(settings)
	for _, c := range commands {
		for _, f := range c.Flags {
			known = append(known, envName(f.Names()[0]))
		}
	}
	var out []string
	for name, value := range e {
		switch {
		case injectedPort(name, value):
			out = append(out, fmt.Sprintf("%s%s=%s is no port number and is ignored", envPrefix, name, value))
		case !slices.Contains(known, name):
			line := envPrefix + name + " is not known and is ignored"
			if meant := variables(commands, name); len(meant) > 0 {
				line += "; did you mean " + oneOf(meant) + "?"
			} else if near := nearest.Near(name, known); near != "" {
				line += "; did you mean " + envPrefix + near + "?"
			}
			out = append(out, line)
		}
	}
	slices.Sort(out)
	return out
}

// variables are those of the flags that have name as another name: the options
// of the original stand for different flags in different commands.
func variables(commands []*cli.Command, name string) (meant []string) {
	for _, c := range commands {
		if f := lookupFlag(c, strings.ToLower(name)); f != nil {
			if v := envPrefix + envName(f.Names()[0]); !slices.Contains(meant, v) {
				meant = append(meant, v)
			}
		}
	}
	return meant
}
