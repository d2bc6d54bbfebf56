// Command promptgen trains GPT-2 on Chinese text and lets it propose how a
// prompt goes on: vocabulary, tokens, training, evaluation, generation and an
// HTTP service in one program.
//
//	promptgen quickstart
//
// runs the whole chain on a sample corpus. Each command has a file of its own
// that reads its flags, calls one package and prints; app.go puts them
// together, args.go and env.go read what the user typed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"promptgen/internal/fault"
	"promptgen/train/dist"
)

func main() {
	ctx, stop := interruptible()
	code := run(ctx, streams{os.Stdin, os.Stdout, os.Stderr}, os.Args[1:], os.Environ())
	stop()
	os.Exit(code)
}

// streams are the three standard ones.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// run is the whole program: it returns the exit code, and an error leaves one
// line on s.err.
func run(ctx context.Context, s streams, args, environ []string) (code int) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintln(s.err, "promptgen: "+oneLine(fault.Panicked(p).Error()))
			code = fault.CodeFailed
		}
	}()
	err := newApp(s, environ).run(ctx, args)
	if errors.Is(err, context.Canceled) && err.Error() == context.Canceled.Error() { // a command with nothing to add
		err = errInterrupted
	}
	if err != nil && !errors.Is(err, dist.ErrElsewhere) {
		fmt.Fprintln(s.err, "promptgen: "+oneLine(err.Error()))
	}
	return fault.Code(err)
}

var errInterrupted = fault.With(fault.CodeInterrupted, errors.New("interrupted before the end; nothing is left half-written, and the same command can be run again"))

// interruptible is a context that the first Ctrl-C or SIGTERM cancels, so that
// work under way can be saved; the second ends the program at once. A command
// may take Ctrl-C for itself (divertInterrupts).
func interruptible() (context.Context, func()) {
	d := &diversion{}
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), diversionKey{}, d))
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, append([]os.Signal{os.Interrupt, syscall.SIGTERM}, launcherSignals()...)...)
	go func() {
		for got := 0; ; {
			s, ok := <-signals
			switch {
			case !ok:
				return
			case s == os.Interrupt && d.take():
				continue
			case got > 0:
				os.Exit(fault.CodeInterrupted)
			}
			got++
			cancel()
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel()
	}
}

// diversion is where Ctrl-C goes instead of ending the program.
type diversion struct {
	mu sync.Mutex
	to func()
}

type diversionKey struct{}

// take calls the function that wants the signal, if there is one.
func (d *diversion) take() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.to == nil {
		return false
	}
	d.to()
	return true
}

// divertInterrupts lets Ctrl-C call f, which must not wait, until restore is
// called.
func divertInterrupts(ctx context.Context, f func()) (restore func()) {
	d, ok := ctx.Value(diversionKey{}).(*diversion)
	if !ok {
		return func() {}
	}
	set := func(f func()) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.to = f
	}
	set(f)
	return func() { set(nil) }
}

// oneLine keeps an error on the one line that it may have.
func oneLine(s string) string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, " ")
}
