package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

func (a *app) manCommand() *cli.Command {
	return &cli.Command{
		Name:  "man",
		Usage: "print the manual page",
		Action: func(c *cli.Context) error {
			var page strings.Builder
			writeManual(&page, a.commands)
			if c.Bool("json") {
				return a.console.JSON(map[string]string{"man": page.String()})
			}
			_, err := io.WriteString(a.text, page.String())
			return err
		},
	}
}

// writeManual writes promptgen(1) in the man macros, of the commands' own
// words.
func writeManual(w io.Writer, commands []*cli.Command) {
	fmt.Fprint(w, `.TH PROMPTGEN 1
.SH NAME
promptgen \- train GPT-2 on Chinese text and let it go on with a prompt
.SH SYNOPSIS
.B promptgen
.I command
[\fB\-\-flag\fR[=\fIvalue\fR]]... [\fIargument\fR]...
.SH DESCRIPTION
Results go to standard output, the log and the progress to standard error.
A flag may stand anywhere; a list is given by repeating it.
`)
	fmt.Fprint(w, ".SH COMMANDS\n")
	common := map[string]bool{}
	for _, f := range commonFlags() {
		common[f.Names()[0]] = true
	}
	for _, c := range commands {
		fmt.Fprintf(w, ".SS promptgen %s %s\n%s.\n", roff(c.Name), roff(c.ArgsUsage), roff(capital(c.Usage)))
		for _, f := range c.Flags {
			if !common[f.Names()[0]] {
				manFlag(w, f)
			}
		}
		if e := examples[c.Name]; len(e) > 0 {
			fmt.Fprint(w, ".PP\nExamples:\n.nf\n")
			for _, line := range e {
				fmt.Fprintf(w, "\\&  %s\n", roff(line))
			}
			fmt.Fprint(w, ".fi\n")
		}
	}
	fmt.Fprint(w, ".SH FLAGS OF EVERY COMMAND\n")
	for _, f := range commonFlags() {
		manFlag(w, f)
	}
	fmt.Fprint(w, `.SH ENVIRONMENT
.TP
.B PROMPTGEN_\fIFLAG\fR
stands for a flag that the command line does not say: PROMPTGEN_BATCH_SIZE is \-\-batch\-size.
.TP
.B PROMPTGEN_ISA
lowers the level of the kernels: go, avx2, avx512, avx512bf16.
.SH EXIT STATUS
0 done; 1 failed while running; 2 wrong usage or configuration; 3 the data cannot serve; 4 does not fit the memory allowed;
5 a file is corrupt or does not belong to the others; 75 stopped by the watchdog of a distributed run; 130 interrupted, after saving.
`)
}

// manFlag writes one flag with its aliases, its default and what it does.
func manFlag(w io.Writer, f cli.Flag) {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return
	}
	var names []string
	for _, n := range f.Names() {
		names = append(names, `\fB\-\-`+roff(n)+`\fR`)
	}
	usage := flagUsage(f)
	if v := d.GetDefaultText(); v != "" && v != `""` && !isBool(f) && !strings.Contains(usage, "default") {
		usage += " (default: " + strings.Trim(v, `"`) + ")"
	}
	fmt.Fprintf(w, ".TP\n%s\n%s\n", strings.Join(names, ", "), roff(usage))
}

// roff writes text so that the man macros take nothing in it for a request.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n", " ").Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
