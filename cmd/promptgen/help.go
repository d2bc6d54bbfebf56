package main

import (
	"maps"
	"slices"

	"github.com/urfave/cli/v2"
)

// examples are the first things to try with each command. They stand in its
// help and in the manual; a test runs each through the reading of flags.
var examples = map[string][]string{
	"quickstart": {"promptgen quickstart", "promptgen quickstart --dir my-model poems.txt stories.txt"},
	"vocab":      {"promptgen vocab --corpus 'data/*.txt' --out vocab/vocab_user.txt --size 20000"},
	"tokenize":   {"promptgen tokenize --corpus 'data/*.txt' --vocab vocab/vocab_user.txt --out tokenized --val-fraction 0.05"},
	"plan":       {"promptgen plan --config small --batch-size 8", "promptgen plan --config small --max-memory 4GiB"},
	"train": {
		"promptgen train --config small --data tokenized --out model --epochs 5 --dtype bf16",
		"promptgen train --config mini --schedule cosine --early-stop 3 --sample-prompt 春天来了",
		"promptgen train --from-report model/report.html --out model-again",
	},
	"eval":       {"promptgen eval --model model/final_model --data tokenized"},
	"generate":   {"promptgen generate --model model/final_model --prompt 春天来了 --samples 3 --length 60"},
	"serve":      {"promptgen serve --model model/final_model --port 5005"},
	"export":     {"promptgen export --model model/final_model --out model.gguf --format gguf --dtype q8_0"},
	"launch":     {"promptgen launch --np 2 -- train --config small --data tokenized"},
	"report":     {"promptgen report model", "promptgen report --out comparison.html model-a model-b"},
	"inspect":    {"promptgen inspect model/final_model"},
	"doctor":     {"promptgen doctor", "promptgen doctor --out /data/models --json"},
	"bench":      {"promptgen bench train --config mini --dtype bf16"},
	"completion": {"source <(promptgen completion bash)"},
	"man":        {"promptgen man | man -l -"},
	"version":    {"promptgen version"},
}

// explain puts a command's examples into its help.
func explain(c *cli.Command) {
	if len(examples[c.Name]) == 0 || c.Description != "" {
		return
	}
	c.Description = "Examples:"
	for _, e := range examples[c.Name] {
		c.Description += "\n  " + e
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
