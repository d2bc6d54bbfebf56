package main

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"promptgen/generate"
)

// setting is a choice of how texts are drawn: a flag of generate, and a name
// that its prompt line can set.
type setting struct {
	name, usage string
	at          func(r *generate.Request) any // *int, *float64, *bool or *[]string
}

// samplingSettings are all of them, in the order of the help text.
var samplingSettings = []setting{
	{"length", "tokens to write at most", func(r *generate.Request) any { return &r.Length }},
	{"min-length", "tokens before which a text does not end", func(r *generate.Request) any { return &r.MinLength }},
	{"samples", "texts for each prompt", func(r *generate.Request) any { return &r.Samples }},
	{"temperature", "below 1: more of the same; above: more of the rare; 0: greedy", func(r *generate.Request) any { return &r.Temperature }},
	{"top-k", "draw from the `K` most probable tokens (0: all)", func(r *generate.Request) any { return &r.TopK }},
	{"top-p", "draw from the most probable tokens that make up `P` together (0: all)", func(r *generate.Request) any { return &r.TopP }},
	{"min-p", "draw from tokens of at least `P` of the best one's probability (0: all)", func(r *generate.Request) any { return &r.MinP }},
	{"typical-p", "draw from the most typical tokens that make up `P` together (0: all)", func(r *generate.Request) any { return &r.TypicalP }},
	{"repetition-penalty", "above 1: what was written becomes less probable", func(r *generate.Request) any { return &r.RepetitionPenalty }},
	{"presence-penalty", "taken from the logits of tokens already written", func(r *generate.Request) any { return &r.PresencePenalty }},
	{"frequency-penalty", "the same, for each time they were", func(r *generate.Request) any { return &r.FrequencyPenalty }},
	{"no-repeat-ngram", "no `N` tokens in a row twice (0: off)", func(r *generate.Request) any { return &r.NoRepeatNGram }},
	{"greedy", "always the most probable token", func(r *generate.Request) any { return &r.Greedy }},
	{"beams", "search for the most probable texts with `N` beams instead of drawing (0: off)", func(r *generate.Request) any { return &r.Beams }},
	{"length-penalty", "of beams: a text's score is divided by its length to this power", func(r *generate.Request) any { return &r.LengthPenalty }},
	{"stop", "end before this `TEXT`", func(r *generate.Request) any { return &r.Stop }},
	{"ban", "`WORD` that is never written", func(r *generate.Request) any { return &r.Ban }},
	{"allow-duplicates", "let samples of a prompt be equal (else they are drawn again, up to three times)", func(r *generate.Request) any { return &r.AllowDuplicates }},
}

// samplingFlags are the settings as flags.
func samplingFlags() []cli.Flag {
	const category = "Sampling"
	d := generate.Defaults()
	var flags []cli.Flag
	for _, s := range samplingSettings {
		switch v := s.at(&d).(type) {
		case *int:
			flags = append(flags, &cli.IntFlag{Name: s.name, Category: category, Usage: s.usage, Value: *v})
		case *float64:
			flags = append(flags, &cli.Float64Flag{Name: s.name, Category: category, Usage: s.usage, Value: *v})
		case *bool:
			flags = append(flags, &cli.BoolFlag{Name: s.name, Category: category, Usage: s.usage})
		case *[]string:
			flags = append(flags, &cli.StringSliceFlag{Name: s.name, Category: category, Usage: s.usage + ", repeat for more"})
		}
	}
	return flags
}

// samplingRequest reads the flags.
func samplingRequest(c *cli.Context) generate.Request {
	var r generate.Request
	for _, s := range samplingSettings {
		switch v := s.at(&r).(type) {
		case *int:
			*v = c.Int(s.name)
		case *float64:
			*v = c.Float64(s.name)
		case *bool:
			*v = c.Bool(s.name)
		case *[]string:
			*v = c.StringSlice(s.name)
		}
	}
	return r
}

// parse sets the setting in r to what was typed.
func (s setting) parse(r *generate.Request, typed string) error {
	switch v := s.at(r).(type) {
	case *int:
		n, err := strconv.Atoi(typed)
		if err != nil {
			return fmt.Errorf("%s must be a whole number, not %q", s.name, typed)
		}
		*v = n
	case *float64:
		x, err := strconv.ParseFloat(typed, 64)
		if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("%s must be a number, not %q", s.name, typed)
		}
		*v = x
	case *bool:
		switch strings.ToLower(typed) {
		case "on", "true", "yes", "1":
			*v = true
		case "off", "false", "no", "0":
			*v = false
		default:
			return fmt.Errorf("%s must be on or off, not %q", s.name, typed)
		}
	case *[]string:
		*v = strings.Fields(typed)
		if typed == "none" || typed == "off" {
			*v = nil
		}
	}
	return nil
}

// show is the setting's value in r as parse reads it.
func (s setting) show(r *generate.Request) string {
	switch v := s.at(r).(type) {
	case *int:
		return strconv.Itoa(*v)
	case *float64:
		return strconv.FormatFloat(*v, 'g', -1, 64)
	case *bool:
		if *v {
			return "on"
		}
		return "off"
	case *[]string:
		return cmp.Or(strings.Join(*v, " "), "none")
	}
	return ""
}
