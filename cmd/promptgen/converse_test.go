package main

import (
	"bytes"
	"strings"
	"testing"

	"promptgen/cmd/promptgen/ui"
	"promptgen/generate"
)

// A setting without a value is shown and left as it is; lists can be emptied
// again, and /help says how.
func TestSet(t *testing.T) {
	var said bytes.Buffer
	c := &conversation{writing: &writing{console: ui.NewConsole(&said, &said, true), out: &printer{}, req: generate.Defaults()}}
	for _, step := range []struct{ typed, says string }{
		{"/set stream", "stream off"},
		{"/set stream on", "stream on"},
		{"/set stream", "stream on"},
		{"/set greedy", "greedy off"},
		{"/set greedy yes", "greedy on"},
		{"/set stop", "stop none"},
		{"/set stop 。 ！", "stop 。 ！"},
		{"/set stop", "stop 。 ！"},
		{"/set stop none", "stop none"},
		{"/set ban 什么", "ban 什么"},
		{"/set ban off", "ban none"},
		{"/set seed", "seed random"},
		{"/set stream perhaps", `stream must be on or off, not "perhaps"`},
	} {
		said.Reset()
		if err := c.line(t.Context(), step.typed); err != nil || said.String() != step.says+"\n" {
			t.Errorf("%s: %q, %v", step.typed, said.String(), err)
		}
	}
	if len(c.req.Stop) != 0 || len(c.req.Ban) != 0 || !c.req.Greedy || !c.out.stream {
		t.Errorf("%+v, stream %v", c.req, c.out.stream)
	}
	said.Reset()
	if err := c.line(t.Context(), "\xb8\xdf"); err != nil || !strings.Contains(said.String(), "not UTF-8") {
		t.Errorf("a prompt of another encoding: %v: %s", err, said.String())
	}
	said.Reset()
	if err := c.line(t.Context(), "/help"); err != nil || strings.Count(said.String(), "or none\n") != 2 {
		t.Errorf("%v: %s", err, said.String())
	}
	said.Reset()
	if err := c.line(t.Context(), "/set"); err != nil || !strings.Contains(said.String(), "stop none\n") || !strings.Contains(said.String(), "stream on\n") {
		t.Errorf("%v: %s", err, said.String())
	}
}
