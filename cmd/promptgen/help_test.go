package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Every command must show an example, and every example must be one that the
// program takes.
func TestExamples(t *testing.T) {
	s := newShell(t)
	a := newApp(streams{}, nil)
	for _, c := range a.commands {
		if len(examples[c.Name]) == 0 {
			t.Errorf("%s has no example", c.Name)
			continue
		}
		if o := s.ok(c.Name, "--help"); !strings.Contains(o.out, examples[c.Name][0]) {
			t.Errorf("%s --help does not show its example:\n%s", c.Name, o.out)
		}
		for _, e := range examples[c.Name] {
			_, line, ok := strings.Cut(e, "promptgen ")
			line, _, _ = strings.Cut(line, " | ")
			line = strings.TrimSuffix(strings.ReplaceAll(line, "'", ""), ")")
			if !ok || !strings.HasPrefix(line, c.Name) {
				t.Errorf("%s: the example %q is of another command", c.Name, e)
			}
			if _, err := a.canonical(strings.Fields(line)); err != nil {
				t.Errorf("%s: %v", e, err)
			}
		}
	}
}

// completions asks a shell what it would offer for a command line.
func completions(t *testing.T, shell, script, line string) []string {
	t.Helper()
	words := strings.Split(line, " ")
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = shellQuote(w)
	}
	var program string
	switch shell {
	case "bash":
		program = "source " + script + "; COMP_WORDS=(" + strings.Join(quoted, " ") + "); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _promptgen; printf '%s\\n' \"${COMPREPLY[@]}\""
	case "fish":
		program = "source " + script + "; complete -C " + fishQuote(line)
	}
	out, err := exec.Command(shell, "-c", program).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", shell, err, out)
	}
	var offered []string
	for l := range strings.Lines(string(out)) {
		word, _, _ := strings.Cut(strings.TrimSpace(l), "\t")
		offered = append(offered, word)
	}
	return offered
}

// With --json the script and the manual are one document each, and the same text.
func TestScriptAndManualAsJSON(t *testing.T) {
	s := newShell(t)
	got := decode[map[string]string](t, s.ok("completion", "fish", "--json").out)
	if got["shell"] != "fish" || got["script"] != s.ok("completion", "fish").out {
		t.Errorf("completion: %.200q", got)
	}
	got = decode[map[string]string](t, s.ok("man", "--json").out)
	if got["man"] != s.ok("man").out || !strings.HasPrefix(got["man"], ".TH PROMPTGEN") {
		t.Errorf("man: %.200q", got)
	}
}

// The completion scripts must load in the shells that are here, and offer
// commands, flags and the values of flags.
func TestCompletion(t *testing.T) {
	s := newShell(t)
	for _, shell := range []string{"bash", "fish", "zsh"} {
		text := s.ok("completion", shell).out
		for _, want := range []string{"grad-accum", "quickstart", "top-k"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %s", shell, want)
			}
		}
		if _, err := exec.LookPath(shell); err != nil {
			t.Logf("%s is not here: its script was not run", shell)
			continue
		}
		script := filepath.Join(t.TempDir(), "completion."+shell)
		if err := os.WriteFile(script, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if shell == "zsh" { // its completion system needs a terminal: the script is parsed
			if out, err := exec.Command("zsh", "-n", script).CombinedOutput(); err != nil {
				t.Errorf("zsh: %v\n%s", err, out)
			}
			continue
		}
		for line, want := range map[string]string{
			"promptgen tra":                     "train",
			"promptgen train --grad":            "--grad-accum",
			"promptgen train --schedule co":     "cosine",
			"promptgen generate --repet":        "--repetition-penalty",
			"promptgen train --epochs 3 --warm": "--warmup-steps",
		} {
			found := false
			for _, got := range completions(t, shell, script, line) {
				found = found || got == want
			}
			if !found {
				t.Errorf("%s: %q does not offer %s", shell, line, want)
			}
		}
	}
	s.fails(2, []string{"bash, zsh or fish"}, "completion", "csh")
}

// The manual must name every command and flag, and be what man can show.
func TestManual(t *testing.T) {
	s := newShell(t)
	page := s.ok("man").out
	for _, c := range newApp(streams{}, nil).commands {
		if !strings.Contains(page, ".SS promptgen "+c.Name) {
			t.Errorf("no %s", c.Name)
		}
		for _, f := range c.Flags {
			if !strings.Contains(page, `\-\-`+roff(f.Names()[0])) {
				t.Errorf("no --%s", f.Names()[0])
			}
		}
	}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, ".") && !strings.ContainsAny(line[1:3], "TSPBInf") || strings.HasPrefix(line, "'") {
			t.Errorf("a line that roff would not print: %q", line)
		}
	}
	if _, err := exec.LookPath("groff"); err != nil {
		t.Log("groff is not here: the page was not formatted")
		return
	}
	cmd := exec.Command("groff", "-k", "-man", "-Tutf8", "-ww")
	cmd.Stdin = strings.NewReader(page)
	var faults strings.Builder
	cmd.Stderr = &faults
	if err := cmd.Run(); err != nil || faults.Len() > 0 {
		t.Errorf("groff: %v\n%s", err, faults.String())
	}
}

// What doctor says must be complete, hang together, and leave nothing behind.
func TestDoctor(t *testing.T) {
	if testing.Short() {
		t.Skip("measures the machine for a second")
	}
	s := newShell(t)
	var d diagnosis
	if err := json.Unmarshal([]byte(s.ok("doctor", "--json").out), &d); err != nil {
		t.Fatal(err)
	}
	if d.ISA == "" || d.Usable < 1 || d.Cores < 1 || d.Limits.FP32 <= 0 || d.Limits.Bytes <= 0 || d.Disk.WriteSpeed <= 0 || len(d.Advice) == 0 {
		t.Errorf("%+v", d)
	}
	if len(d.Presets) != 4 {
		t.Fatalf("%d presets", len(d.Presets))
	}
	for i, p := range d.Presets {
		if p.TokensPerSec <= 0 || p.DecodeSpeed <= 0 || p.TrainBytes < 12*p.Parameters {
			t.Errorf("%+v", p)
		}
		if i > 0 && (p.Parameters <= d.Presets[i-1].Parameters || p.TokensPerSec >= d.Presets[i-1].TokensPerSec) {
			t.Errorf("%s is not larger and slower than %s", p.Name, d.Presets[i-1].Name)
		}
	}
	if left, _ := os.ReadDir("."); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if o := s.ok("doctor"); !strings.Contains(o.out, "tokens/s") || !strings.Contains(o.out, "processor") {
		t.Errorf("%s", o.out)
	}
	s.fails(2, []string{"--out"}, "doctor", "--out", "/proc/nothing/here")
}
