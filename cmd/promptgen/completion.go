package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"promptgen/internal/fault"
)

func (a *app) completionCommand() *cli.Command {
	shells := map[string]func(io.Writer, []*cli.Command){"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a script that completes commands and flags in a shell",
		ArgsUsage: "bash|zsh|fish",
		Action: func(c *cli.Context) error {
			shell := c.Args().First()
			write, ok := shells[shell]
			if !ok || c.NArg() != 1 {
				return fault.Usage("completion: name the shell: bash, zsh or fish")
			}
			var script strings.Builder
			write(&script, a.commands)
			if c.Bool("json") {
				return a.console.JSON(map[string]string{"shell": shell, "script": script.String()})
			}
			_, err := io.WriteString(a.text, script.String())
			return err
		},
	}
}

// completed are a command's flags as they are typed, aliases left out: their own
// names are enough to find.
func completed(c *cli.Command) (words []string) {
	for _, f := range c.Flags {
		words = append(words, "--"+f.Names()[0])
	}
	return append(words, "--help")
}

// choices are the values that a flag takes, where they are few.
var choices = map[string][]string{
	"--schedule": {"linear", "cosine", "constant"},
	"--config":   {"test", "mini", "small", "base"},
	"--dtype":    {"fp32", "bf16", "fp16", "q8_0", "q4_0"},
	"--format":   {"hf", "pytorch", "gguf"},
	"--level":    {"word", "char", "bert"},
	"--device":   {"auto", "cpu"},
	"--resume":   {"auto", "never"},
}

func bashCompletion(w io.Writer, commands []*cli.Command) {
	fmt.Fprint(w, `# promptgen completion for bash: source <(promptgen completion bash)
_promptgen() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd= i
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in -*) ;; *) cmd=${COMP_WORDS[i]}; break ;; esac
	done
	case $prev in
`)
	for _, flag := range sortedKeys(choices) {
		fmt.Fprintf(w, "	%s) COMPREPLY=($(compgen -W '%s' -- \"$cur\")); compopt -o default 2>/dev/null; return ;;\n", flag, strings.Join(choices[flag], " "))
	}
	fmt.Fprint(w, "	esac\n	case $cmd in\n")
	names := []string{"help"}
	for _, c := range commands {
		names = append(names, c.Name)
		fmt.Fprintf(w, "	%s) words='%s' ;;\n", c.Name, strings.Join(completed(c), " "))
	}
	fmt.Fprintf(w, `	*) COMPREPLY=($(compgen -W '%s' -- "$cur")); return ;;
	esac
	case $cur in
	-*) COMPREPLY=($(compgen -W "$words" -- "$cur")) ;;
	*) COMPREPLY=($(compgen -f -- "$cur")); compopt -o filenames 2>/dev/null ;;
	esac
}
complete -F _promptgen promptgen
`, strings.Join(names, " "))
}

func zshCompletion(w io.Writer, commands []*cli.Command) {
	fmt.Fprint(w, "#compdef promptgen\n# promptgen completion for zsh: source <(promptgen completion zsh)\n_promptgen() {\n	local -a commands flags\n	commands=(\n")
	for _, c := range commands {
		fmt.Fprintf(w, "		%s\n", shellQuote(c.Name+":"+c.Usage))
	}
	fmt.Fprint(w, "	)\n	if (( CURRENT == 2 )); then\n		_describe 'command' commands\n		return\n	fi\n	case ${words[2]} in\n")
	for _, c := range commands {
		fmt.Fprintf(w, "	%s) flags=(\n", c.Name)
		for _, f := range c.Flags {
			fmt.Fprintf(w, "		%s\n", shellQuote("--"+f.Names()[0]+":"+flagUsage(f)))
		}
		fmt.Fprint(w, "	) ;;\n")
	}
	fmt.Fprint(w, "	esac\n	if [[ ${words[CURRENT]} == -* ]]; then\n		_describe 'flag' flags\n	else\n		_files\n	fi\n}\ncompdef _promptgen promptgen\n")
}

func fishCompletion(w io.Writer, commands []*cli.Command) {
	fmt.Fprint(w, "# promptgen completion for fish: promptgen completion fish | source\n")
	for _, c := range commands {
		fmt.Fprintf(w, "complete -c promptgen -n __fish_use_subcommand -f -a %s -d %s\n", c.Name, fishQuote(c.Usage))
		for _, f := range c.Flags {
			name, extra := f.Names()[0], ""
			if values := choices["--"+name]; values != nil {
				extra = " -a " + fishQuote(strings.Join(values, " "))
			}
			if !isBool(f) {
				extra += " -r"
			}
			fmt.Fprintf(w, "complete -c promptgen -n '__fish_seen_subcommand_from %s' -l %s%s -d %s\n", c.Name, name, extra, fishQuote(flagUsage(f)))
		}
	}
}

// fishQuote writes a word for fish, whose quotes know \' and \\.
func fishQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// flagUsage is what a flag does, without the quotes around its argument's name.
func flagUsage(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	return strings.ReplaceAll(d.GetUsage(), "`", "")
}
