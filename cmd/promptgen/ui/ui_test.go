package ui

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// Results go to standard output alone, the log and what is said to standard
// error; quiet drops the log.
func TestStreams(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		var out, err bytes.Buffer
		c := NewConsole(&out, &err, quiet)
		c.Log.Info("logged")
		c.Warn("careful")
		c.Say("said")
		if e := errors.Join(c.JSON(map[string]string{"a": "<高>"}), c.JSONLine([]int{1}), c.Facts(Fact{"x", 1.0 / 3}, Fact{"longer", "v"}),
			c.Table([]string{"h", "i"}, [][]string{{"wide", "1"}})); e != nil {
			t.Fatal(e)
		}
		want := "{\n  \"a\": \"<高>\"\n}\n[1]\nx       0.333333\nlonger  v\nh     i\nwide  1\n"
		if out.String() != want {
			t.Errorf("quiet %v: standard output %q, want %q", quiet, out.String(), want)
		}
		log := err.String()
		if strings.Contains(log, "logged") == quiet || strings.Contains(log, "careful") == quiet || !strings.HasSuffix(log, "said\n") {
			t.Errorf("quiet %v: standard error %q", quiet, log)
		}
	}
}

// Without a terminal progress is a line every few seconds that says how far it
// has come, and nothing in between.
func TestProgressLines(t *testing.T) {
	var err bytes.Buffer
	b := NewConsole(io.Discard, &err, false).Bar("tokenize", "bytes", 0)
	b.Total(400)
	b.Total(400)
	b.Set(50, "")
	if err.Len() > 0 {
		t.Errorf("a line at once: %s", err.String())
	}
	b.start, b.logged = b.start.Add(-2*logEvery), b.logged.Add(-2*logEvery)
	b.Set(100, "file 2")
	for _, want := range []string{"msg=tokenize", "bytes=100", "of=400", "per_s=", "left=30s", `state="file 2"`} {
		if !strings.Contains(err.String(), want) {
			t.Errorf("no %s in %s", want, err.String())
		}
	}
	err.Reset()
	b.Set(400, "")
	b.Done()
	if err.Len() > 0 {
		t.Errorf("two lines at a time: %s", err.String())
	}
}

// A bar and log lines share the terminal: the bar is wiped before a line and
// gone at the end.
func TestBar(t *testing.T) {
	var err bytes.Buffer
	c := NewConsole(io.Discard, &err, false)
	c.terminal = true
	b := c.Bar("train", "steps", 0)
	b.Total(10)
	b.Set(3, "loss 1.5")
	if !strings.Contains(err.String(), "train") {
		t.Errorf("the bar shows %q", err.String())
	}
	err.Reset()
	c.Say("a line")
	wiped, _, found := strings.Cut(err.String(), "a line\n")
	if !found || !strings.Contains(wiped, "\r") {
		t.Errorf("the bar was not wiped: %q", err.String())
	}
	b.Done()
	b.Done()
	err.Reset()
	c.Say("another")
	if err.String() != "another\n" {
		t.Errorf("after the end: %q", err.String())
	}
	if quiet := NewConsole(io.Discard, &err, true); quiet.Bar("x", "y", 1).bar != nil {
		t.Error("a quiet bar is drawn")
	}
}

// Lines come without their ends, of whatever system, up to one that ends it.
func TestLines(t *testing.T) {
	var got []string
	e := Lines(strings.NewReader("a\r\n\nb\nc"), func(line string) (bool, error) {
		got = append(got, line)
		return line != "b", nil
	})
	if e != nil || strings.Join(got, "|") != "a||b" {
		t.Errorf("%q, %v", got, e)
	}
	broken := errors.New("broken")
	if e := Lines(strings.NewReader("a\nb"), func(string) (bool, error) { return true, broken }); !errors.Is(e, broken) {
		t.Errorf("%v", e)
	}
	if e := Lines(strings.NewReader(strings.Repeat("x", maxLine+1)), func(string) (bool, error) { return true, nil }); e == nil {
		t.Error("a line beyond all measure was read")
	}
}

// Where standard output is no terminal a prompt is plain, on standard error.
func TestPlainPrompt(t *testing.T) {
	var out, err bytes.Buffer
	l := NewConsole(&out, &err, true).PromptLine(strings.NewReader("高血压\r\nlast"))
	defer l.Close()
	l.Complete(nil)
	for _, want := range []string{"高血压", "last"} {
		if got, e := l.Ask(t.Context(), "? "); e != nil || got != want {
			t.Errorf("%q, %v", got, e)
		}
	}
	if _, e := l.Ask(t.Context(), "? "); !errors.Is(e, ErrEnd) {
		t.Errorf("the end of input: %v", e)
	}
	if err.String() != "? ? ? " || out.Len() > 0 {
		t.Errorf("%q, %q", err.String(), out.String())
	}
}
