package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"promptgen/cmd/promptgen/ui"
	"promptgen/generate"
	"promptgen/internal/fault"
	"promptgen/internal/nearest"
)

// conversation is generate at a terminal: prompts are typed, and lines that
// begin with a slash are commands.
type conversation struct {
	*writing
	last string // the prompt before
}

// errOver ends a conversation as the user wants it.
var errOver = errors.New("over")

// converse asks for prompts until an empty line, the end of input or a second
// Ctrl-C in a row. Ctrl-C while a text is written stops that text alone.
func (w *writing) converse(ctx context.Context, in io.Reader) error {
	line := w.console.PromptLine(in)
	defer line.Close()
	c := &conversation{writing: w}
	line.Complete(c.complete)
	w.say("/help lists the commands; an empty line ends")
	dropped := false
	for {
		typed, err := line.Ask(ctx, promptLine)
		switch {
		case errors.Is(err, ui.ErrDropped) && !dropped:
			dropped = true
			w.say("an empty line, or Ctrl-C once more, ends")
			continue
		case errors.Is(err, ui.ErrEnd) || errors.Is(err, ui.ErrDropped):
			return nil
		case err != nil:
			return err
		case strings.TrimSpace(typed) == "":
			return nil
		}
		dropped = false
		if err := c.line(ctx, typed); errors.Is(err, errOver) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// say tells the user something that is no result.
func (w *writing) say(format string, args ...any) { w.console.Say(fmt.Sprintf(format, args...)) }

// line does what one line asks for. Only what cannot be put right at the prompt
// is an error.
func (c *conversation) line(ctx context.Context, typed string) error {
	command, isCommand := strings.CutPrefix(typed, "/")
	switch {
	case !isCommand:
		return c.write(ctx, typed)
	case strings.HasPrefix(command, "/"): // a prompt that begins with a slash
		return c.write(ctx, command)
	}
	name, rest, _ := strings.Cut(strings.TrimSpace(command), " ")
	rest = strings.TrimSpace(rest)
	commands := slashCommands()
	i := slices.IndexFunc(commands, func(k slash) bool { return k.name == name })
	if i < 0 {
		var names []string
		for _, k := range commands {
			names = append(names, k.name)
		}
		c.say("there is no command /%s, did you mean /%s? (/help lists them; // begins a prompt with a slash)", name, nearest.Of(name, names))
		return nil
	}
	return commands[i].do(ctx, c, rest)
}

// write goes on with a prompt; Ctrl-C stops that.
func (c *conversation) write(ctx context.Context, prompt string) error {
	if !utf8.ValidString(prompt) { // of a terminal with another encoding
		c.say("the prompt is %s", notUTF8)
		return nil
	}
	c.last = prompt
	text, stop := context.WithCancel(ctx)
	defer stop()
	defer divertInterrupts(ctx, stop)()
	err := c.one(text, prompt)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, context.Canceled):
		if c.out.stream {
			fmt.Fprintln(c.console.Out)
		}
		c.say("stopped")
		return nil
	case fault.Code(err) == fault.CodeUsage:
		c.say("%v", err)
		return nil
	}
	return err
}

// slash is a command of the prompt line.
type slash struct {
	name, args, does string
	do               func(ctx context.Context, c *conversation, rest string) error
}

// slashCommands are all of them.
func slashCommands() []slash {
	return []slash{
		{"again", "", "other texts for the last prompt", func(ctx context.Context, c *conversation, _ string) error {
			if c.last == "" {
				c.say("there is no prompt yet")
				return nil
			}
			return c.write(ctx, c.last)
		}},
		{"more", "TEXT", "the last prompt with TEXT behind it", func(ctx context.Context, c *conversation, rest string) error {
			return c.write(ctx, c.last+rest)
		}},
		{"set", "NAME VALUE", "change a setting; without a value: show it; without a name: show all", func(_ context.Context, c *conversation, rest string) error {
			c.set(rest)
			return nil
		}},
		{"help", "", "this list", func(_ context.Context, c *conversation, _ string) error {
			c.help()
			return nil
		}},
		{"quit", "", "end, as an empty line does", func(context.Context, *conversation, string) error { return errOver }},
	}
}

func (c *conversation) help() {
	for _, k := range slashCommands() {
		c.say("  %-18s %s", strings.TrimSpace("/"+k.name+" "+k.args), k.does)
	}
	c.say("Everything else is a prompt. Ctrl-C stops a text. Settings (/set NAME VALUE):")
	for _, s := range samplingSettings {
		usage := strings.ReplaceAll(s.usage, "`", "")
		if _, isList := s.at(&c.req).(*[]string); isList {
			usage += "; several with blanks between them, or none"
		}
		c.say("  %-18s %s", s.name, usage)
	}
	c.say("  %-18s %s", "seed", "a number: the same text each time; random: another one")
	c.say("  %-18s %s", "stream", "on or off: print the first text while it is written")
}

// set changes or shows settings.
func (c *conversation) set(rest string) {
	name, value, hasValue := strings.Cut(rest, " ")
	name, value = strings.ReplaceAll(name, "_", "-"), strings.TrimSpace(value)
	names := []string{"seed", "stream"}
	for _, s := range samplingSettings {
		if name == "" || name == s.name && !hasValue {
			c.say("%s %s", s.name, s.show(&c.req))
		}
		if name == s.name && hasValue {
			c.change(s, value)
		}
		names = append(names, s.name)
	}
	switch {
	case name == "":
		c.say("seed %s", c.seed())
		c.say("stream %s", c.stream())
	case name == "seed" && hasValue:
		c.setSeed(value)
	case name == "seed":
		c.say("seed %s", c.seed())
	case name == "stream" && hasValue:
		c.setStream(value)
	case name == "stream":
		c.say("stream %s", c.stream())
	case !slices.Contains(names, name):
		c.say("there is no setting %q, did you mean %q?", name, nearest.Of(name, names))
	}
}

// change sets one setting, if what comes of it is sound.
func (c *conversation) change(s setting, value string) {
	r := c.req
	if err := s.parse(&r, value); err != nil {
		c.say("%v", err)
		return
	}
	samples := c.fixedSamples || s.name == "samples"
	checked := r
	if r.Beams > 0 && !samples {
		checked.Samples = min(r.Samples, r.Beams)
	}
	if r.Beams > 0 && c.out.stream {
		c.say("a beam search knows its texts only at the end: /set stream off first")
		return
	}
	if err := checked.Validate(); err != nil {
		c.say("%v", err)
		return
	}
	c.req, c.fixedSamples = r, samples
	c.say("%s %s", s.name, s.show(&r))
}

func (c *conversation) seed() string {
	if c.fixedSeed {
		return strconv.FormatUint(c.req.Seed, 10)
	}
	return "random"
}

func (c *conversation) setSeed(value string) {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil && value != "random" {
		c.say("seed must be a whole number that is not negative, or random, not %q", value)
		return
	}
	c.req.Seed, c.fixedSeed = n, err == nil
	c.say("seed %s", c.seed())
}

// streamSetting is no field of a request: it borrows one that is a switch.
var streamSetting = setting{name: "stream", at: func(r *generate.Request) any { return &r.Greedy }}

func (c *conversation) stream() string {
	return streamSetting.show(&generate.Request{Greedy: c.out.stream})
}

func (c *conversation) setStream(value string) {
	var r generate.Request
	if err := streamSetting.parse(&r, value); err != nil {
		c.say("%v", err)
		return
	}
	if r.Greedy && c.req.Beams > 0 {
		c.say("a beam search knows its texts only at the end: /set beams 0 first")
		return
	}
	c.out.stream = r.Greedy
	c.say("stream %s", c.stream())
}

// complete offers the commands and the settings' names to the Tab key.
func (c *conversation) complete(line string) (offers []string) {
	var all []string
	for _, k := range slashCommands() {
		all = append(all, "/"+k.name+" ")
	}
	for _, s := range samplingSettings {
		all = append(all, "/set "+s.name+" ")
	}
	for _, o := range append(all, "/set seed ", "/set stream ") {
		if line != "" && strings.HasPrefix(o, line) {
			offers = append(offers, o)
		}
	}
	return offers
}
