package ui

import (
	"bufio"
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

// Ask shows a prompt line on the terminal and hands f what is typed, until an
// empty line, the end of input (Ctrl-D) or Ctrl-C. Lines can be edited and
// recalled where standard output is the terminal too.
func (c *Console) Ask(in io.Reader, prompt string, f func(line string) error) error {
	if !IsTerminal(c.Out) {
		fmt.Fprint(c.err.w, prompt)
		return Lines(in, func(line string) (bool, error) {
			if strings.TrimSpace(line) == "" {
				return false, nil
			}
			if err := f(line); err != nil {
				return false, err
			}
			fmt.Fprint(c.err.w, prompt)
			return true, nil
		})
	}
	for history := []string(nil); ; {
		line, err := askOnce(prompt, history)
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, liner.ErrPromptAborted):
			return nil
		case err != nil:
			return err
		case strings.TrimSpace(line) == "":
			return nil
		}
		history = append(history, line)
		if err := f(line); err != nil {
			return err
		}
	}
}

// askOnce reads one line in the terminal's raw mode and leaves that mode, so
// that Ctrl-C reaches the program while it works on the answer.
func askOnce(prompt string, history []string) (string, error) {
	state := liner.NewLiner()
	defer state.Close()
	state.SetCtrlCAborts(true)
	state.SetMultiLineMode(true)
	for _, h := range history {
		state.AppendHistory(h)
	}
	return state.Prompt(prompt)
}
