package ui

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/peterh/liner"
)

// maxLine is the longest line that is read: a prompt, not a corpus.
const maxLine = 1 << 20

// Lines hands f every line of in, without its end; a false of f ends it.
func Lines(in io.Reader, f func(line string) (more bool, err error)) error {
	sc := bufio.NewScanner(in)
	sc.Buffer(make([]byte, 0, 64<<10), maxLine)
	for sc.Scan() {
		if more, err := f(strings.TrimSuffix(sc.Text(), "\r")); err != nil || !more {
			return err
		}
	}
	return sc.Err()
}

// What ends a line that is asked for, other than the Enter key.
var (
	ErrEnd     = io.EOF                     // the end of input (Ctrl-D)
	ErrDropped = errors.New("line dropped") // Ctrl-C
)

// PromptLine asks for lines on a terminal, which can be edited and recalled
// where standard output is the terminal too.
type PromptLine struct {
	console *Console
	editor  *liner.State   // nil: plain lines
	plain   *bufio.Scanner // of a terminal whose output goes elsewhere
}

// PromptLine prepares the terminal in, until Close.
func (c *Console) PromptLine(in io.Reader) *PromptLine {
	if !IsTerminal(c.Out) {
		sc := bufio.NewScanner(in)
		sc.Buffer(make([]byte, 0, 64<<10), maxLine)
		return &PromptLine{console: c, plain: sc}
	}
	l := &PromptLine{console: c, editor: liner.NewLiner()}
	l.editor.SetCtrlCAborts(true)
	l.editor.SetMultiLineMode(true)
	return l
}

// Complete offers these words to the Tab key.
func (l *PromptLine) Complete(words func(line string) []string) {
	if l.editor != nil {
		l.editor.SetCompleter(words)
	}
}

// Ask shows the prompt and returns what is typed. It returns early when ctx is
// done; the line that is being typed is then lost. Between two calls Ctrl-C is
// a signal again.
func (l *PromptLine) Ask(ctx context.Context, prompt string) (string, error) {
	type answer struct {
		line string
		err  error
	}
	typed := make(chan answer, 1)
	go func() {
		line, err := l.ask(prompt)
		typed <- answer{line, err}
	}()
	select {
	case a := <-typed:
		return a.line, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (l *PromptLine) ask(prompt string) (string, error) {
	if l.editor == nil {
		fmt.Fprint(l.console.err.w, prompt)
		if l.plain.Scan() {
			return strings.TrimSuffix(l.plain.Text(), "\r"), nil
		}
		return "", cmp.Or(l.plain.Err(), ErrEnd)
	}
	line, err := l.editor.Prompt(prompt)
	switch {
	case errors.Is(err, liner.ErrPromptAborted):
		return "", ErrDropped
	case err == nil && strings.TrimSpace(line) != "":
		l.editor.AppendHistory(line)
	}
	return line, err
}

// Close gives the terminal back as it was.
func (l *PromptLine) Close() {
	if l.editor != nil {
		l.editor.Close()
	}
}
