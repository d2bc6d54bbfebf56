// Command mutants asks whether the tests would notice a fault: it plants one
// fault after another, listed in mutants.txt, and runs the tests that ought to
// fail. The tree itself is never changed (go test -overlay).
//
//	go run ./scripts/mutants [WORD…]
//
// prints a row of a Markdown table for each fault, with the tests that noticed
// it, and exits with 1 if one was not noticed. With words, only faults whose
// place or description has one of them are planted.
package main

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed mutants.txt
var list string

// mutant is a fault: in file, old becomes new; the tests of packages are to
// notice.
type mutant struct {
	what, file, old, new string
	packages             []string
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(words []string) error {
	mutants, err := parse(list)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Print("| file | fault | noticed by |\n|---|---|---|\n")
	planted, survived := 0, 0
	for _, m := range mutants {
		wanted := func(word string) bool { return strings.Contains(m.file+" "+m.what, word) }
		if len(words) > 0 && !slices.ContainsFunc(words, wanted) {
			continue
		}
		noticed, err := m.try(dir)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", m.file, m.what, err)
		}
		planted++
		if len(noticed) == 0 {
			survived++
			noticed = []string{"**nothing**"}
		}
		fmt.Printf("| %s | %s | %s |\n", m.file, m.what, strings.Join(noticed, ", "))
	}
	if planted == 0 {
		return fmt.Errorf("no fault has %q in its place or description", words)
	}
	if survived > 0 {
		return fmt.Errorf("%d of %d faults were not noticed", survived, planted)
	}
	return nil
}

// parse reads the list. A fault is a line "# what", the file, lines "-\told" and
// "+\tnew" without their indentation's first tab, and "test PACKAGE…".
func parse(list string) (mutants []mutant, err error) {
	var m mutant
	add := func(text *string, line string) {
		if *text != "" {
			*text += "\n"
		}
		*text += line
	}
	for sc := bufio.NewScanner(strings.NewReader(list)); sc.Scan(); {
		kind, rest, _ := strings.Cut(sc.Text(), " ")
		switch {
		case kind == "":
		case kind == "#":
			m = mutant{what: rest}
		case kind == "test":
			m.packages = strings.Fields(rest)
			if m.file == "" || m.old == "" {
				return nil, fmt.Errorf("mutants.txt: %q names no file or nothing to change", m.what)
			}
			mutants = append(mutants, m)
		case kind == "-":
			add(&m.old, rest)
		case kind == "+":
			add(&m.new, rest)
		default:
			m.file = sc.Text()
		}
	}
	return mutants, nil
}

// try plants the fault and returns the tests that fail with it.
func (m *mutant) try(dir string) ([]string, error) {
	source, err := os.ReadFile(m.file)
	if err != nil {
		return nil, fmt.Errorf("%w (run it in the module's folder)", err)
	}
	if n := bytes.Count(source, []byte(m.old)); n != 1 {
		return nil, fmt.Errorf("what is to be changed stands there %d times: mend mutants.txt", n)
	}
	changed := filepath.Join(dir, "mutant.go")
	if err := os.WriteFile(changed, bytes.Replace(source, []byte(m.old), []byte(m.new), 1), 0o644); err != nil {
		return nil, err
	}
	original, err := filepath.Abs(m.file)
	if err != nil {
		return nil, err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: changed}})
	if err != nil {
		return nil, err
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, overlay, 0o644); err != nil {
		return nil, err
	}
	for _, flags := range [][]string{{"-short"}, nil} { // all tests only where the short ones do not do
		args := slices.Concat([]string{"test", "-json", "-vet=off", "-timeout", "3m", "-overlay", overlayFile}, flags, m.packages)
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "RAPID_NOFAILFILE=1") // these failures are no finds
		out, err := cmd.Output()
		if err == nil {
			continue
		}
		return failures(out)
	}
	return nil, nil
}

// failures are the tests that the output of go test -json says failed.
func failures(out []byte) ([]string, error) {
	var names []string
	built := false
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var e struct{ Action, Package, Test, Output string }
		if err := dec.Decode(&e); err != nil {
			return nil, err
		}
		built = built || e.Action == "run"
		name, _, isSub := strings.Cut(e.Test, "/")
		if e.Action == "fail" && name != "" && !isSub {
			names = append(names, name)
		}
	}
	if !built {
		return nil, fmt.Errorf("the changed program does not build: mend mutants.txt")
	}
	const enough = 3
	if n := len(names); n > enough {
		names = append(names[:enough], fmt.Sprintf("and %d more", n-enough))
	}
	if names == nil {
		names = []string{"a crash"}
	}
	return names, nil
}
