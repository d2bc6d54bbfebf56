package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// What stands in a flag's place on the command line puts aside the variable of
// the other: a flag counts before the environment.
func TestFlagPutsAsideTheOthersVariable(t *testing.T) {
	environ := []string{"PROMPTGEN_DATA=tok", "PROMPTGEN_CORPUS=c.txt", "PROMPTGEN_PROMPT=x", "PROMPTGEN_PROMPTS_FILE=p", "PROMPTGEN_DTYPE=fp32",
		"PROMPTGEN_MODEL=m", "PROMPTGEN_CONFIG=f"}
	for line, want := range map[string]string{
		"eval --corpus a":           "eval --model=m --dtype=fp32 --corpus=a --",
		"eval --data b":             "eval --model=m --dtype=fp32 --data=b --",
		"generate --prompt y":       "generate --model=m --dtype=fp32 --prompt=y --",
		"generate --prompts-file q": "generate --model=m --dtype=fp32 --prompts-file=q --",
		"train --fp16":              "train --config=f --data=tok --fp16=true --",
		"bench infer --config x":    "bench --dtype=fp32 --config=x -- infer",
		"bench infer --model x":     "bench --dtype=fp32 --model=x -- infer",
	} {
		got, err := newApp(streams{}, environ).canonical(strings.Fields(line))
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %s (%v), want %s", line, strings.Join(got, " "), err, want)
		}
	}
}

// Nor does PROMPTGEN_JSON count beside --jsonl.
func TestLinesPutAsideTheDocument(t *testing.T) {
	got, err := newApp(streams{}, []string{"PROMPTGEN_JSON=1"}).canonical([]string{"generate", "--jsonl"})
	if line := strings.Join(got, " "); err != nil || line != "generate --jsonl=true --" {
		t.Errorf("%s (%v)", line, err)
	}
}

// A model keeps the command line that made it: the variables that stand for its
// flags belong to it, and a secret that begins with the same word does not.
func TestCommandLineKeepsNoSecrets(t *testing.T) {
	a := newApp(streams{}, []string{"PROMPTGEN_API_KEY=secret", "PROMPTGEN_EPOCHS=3", "PROMPTGEN_ISA=go", "PROMPTGEN_PORT=7", "PROMPTGEN_NOTE=secret"})
	if got, want := a.commandLine([]string{"train", "--lr", "0.1"}), "PROMPTGEN_EPOCHS=3 PROMPTGEN_ISA=go "+a.name()+" train --lr 0.1"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// White space belongs to what is listed: a prompt's end, a line feed to stop at.
func TestListsKeepSpace(t *testing.T) {
	a := newApp(streams{}, []string{"PROMPTGEN_STOP=\n"})
	var prompts, stops []string
	cmd, err := a.command("generate")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Before = nil
	cmd.Action = func(c *cli.Context) error {
		prompts, stops = c.StringSlice("prompt"), c.StringSlice("stop")
		return nil
	}
	if err := a.run(t.Context(), []string{"generate", "--prompt", "问：\n答： ", "--prompt", " a,b"}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(prompts, []string{"问：\n答： ", " a,b"}) || !slices.Equal(stops, []string{"\n"}) {
		t.Errorf("prompts %q, stops %q", prompts, stops)
	}
}

// The flags that every command has are for the ranks that launch starts; those
// behind train come after them, and count.
func TestLaunchPassesCommonFlags(t *testing.T) {
	a := newApp(streams{}, nil)
	cmd, err := a.command("launch")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	cmd.Before = nil
	cmd.Action = func(c *cli.Context) error {
		got = trainingArgs(c)
		return nil
	}
	if err := a.run(t.Context(), strings.Fields("launch --np 2 --json --seed 7 --quiet --threads 1 -- train --seed 9")); err != nil {
		t.Fatal(err)
	}
	if line := strings.Join(got, " "); line != "train --quiet=true --json=true --seed=7 --threads=1 --seed 9" {
		t.Errorf("got %s", line)
	}
}
