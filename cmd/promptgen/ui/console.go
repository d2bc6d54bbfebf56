// Package ui is everything that a terminal sees: the log, progress bars, tables
// and the prompt line.
//
// Results go to Console.Out and nowhere else; the log and the progress go to
// standard error. A bar is drawn only where standard error is a terminal;
// elsewhere progress is a log line every few seconds:
//
//	bar := console.Bar("tokenize", "bytes", total)
//	bar.Set(done, "")
//	bar.Done()
package ui

import (
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/term"
)

// Console is where a command's output goes.
type Console struct {
	Out io.Writer    // results
	Log *slog.Logger // the log, on standard error; silent when quiet

	err      *lineWriter
	terminal bool // standard error is a terminal
	quiet    bool
}

// NewConsole writes results to out and the log to err; quiet drops the log and
// the progress.
func NewConsole(out, err io.Writer, quiet bool) *Console {
	c := &Console{Out: out, err: &lineWriter{w: err}, terminal: IsTerminal(err), quiet: quiet}
	level := slog.LevelInfo
	if quiet {
		level = slog.LevelError
	}
	c.Log = slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: level}))
	return c
}

// Warn logs a line that tells the user something unexpected but harmless.
func (c *Console) Warn(msg string) { c.Log.Warn(msg) }

// Say tells the user at a terminal something that is neither a result nor for a
// log, quiet or not.
func (c *Console) Say(line string) { _, _ = io.WriteString(c.err, line+"\n") }

// JSON prints v as one indented JSON document.
func (c *Console) JSON(v any) error { return writeJSON(c.Out, v, "  ") }

// JSONLine prints v as one line of JSON.
func (c *Console) JSONLine(v any) error { return writeJSON(c.Out, v, "") }

func writeJSON(w io.Writer, v any, indent string) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	return enc.Encode(v)
}

// IsTerminal says whether stream (an *os.File) is a terminal.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// lineWriter lets log lines and a bar share one stream: before a line is
// written the bar is wiped; it draws itself again.
type lineWriter struct {
	mu   sync.Mutex
	w    io.Writer
	wipe func() // nil: no bar
}

func (l *lineWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wipe != nil {
		l.wipe()
	}
	return l.w.Write(p)
}
