package ui

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/schollz/progressbar/v3"
)

// logEvery is the time between two progress lines where no bar can be drawn.
const logEvery = 5 * time.Second

// Bar shows how far something has come. It is used by one goroutine.
type Bar struct {
	console *Console
	label   string
	unit    string
	total   int64 // 0 or less: not known
	start   time.Time
	logged  time.Time
	bar     *progressbar.ProgressBar // nil where lines are logged instead
}

// Bar starts the progress of something that has total units.
func (c *Console) Bar(label, unit string, total int64) *Bar {
	now := time.Now()
	b := &Bar{console: c, label: label, unit: unit, total: total, start: now, logged: now}
	if c.quiet || !c.terminal {
		return b
	}
	if total <= 0 {
		total = -1
	}
	b.bar = progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(c.err.w),
		progressbar.OptionSetDescription(label),
		progressbar.OptionSetWidth(24),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionSetItsString(unit),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionClearOnFinish(),
		// Drawn by Set alone: a goroutine that turns the spinner would write beside
		// the log's lines, and go on after Done.
		progressbar.OptionSetSpinnerChangeInterval(0),
	)
	c.err.mu.Lock()
	c.err.wipe = func() { _ = b.bar.Clear() }
	c.err.mu.Unlock()
	return b
}

// Total corrects the number of units, once it is known.
func (b *Bar) Total(n int64) {
	if b.total == n {
		return
	}
	b.total = n
	if b.bar != nil {
		b.bar.ChangeMax64(n)
	}
}

// Set says that done units are behind us; detail (may be empty) stands beside.
func (b *Bar) Set(done int64, detail string) {
	if b.bar != nil {
		b.console.err.mu.Lock()
		defer b.console.err.mu.Unlock()
		if detail != "" {
			b.bar.Describe(b.label + " " + detail)
		}
		_ = b.bar.Set64(done)
		return
	}
	now := time.Now()
	if now.Sub(b.logged) < logEvery {
		return
	}
	b.logged = now
	b.console.Log.Info(b.label, b.attrs(done, now.Sub(b.start), detail)...)
}

// attrs are the fields of one progress line.
func (b *Bar) attrs(done int64, elapsed time.Duration, detail string) []any {
	rate := float64(done) / elapsed.Seconds()
	attrs := []any{slog.Int64(b.unit, done)}
	if b.total > 0 {
		attrs = append(attrs, slog.Int64("of", b.total))
	}
	attrs = append(attrs, slog.String("per_s", fmt.Sprintf("%.4g", rate)))
	if b.total > done && rate > 0 {
		left := time.Duration(float64(b.total-done) / rate * float64(time.Second))
		attrs = append(attrs, slog.String("left", left.Round(time.Second).String()))
	}
	if detail != "" {
		attrs = append(attrs, slog.String("state", detail))
	}
	return attrs
}

// Done removes the bar. It may be called twice.
func (b *Bar) Done() {
	if b.bar == nil {
		return
	}
	b.console.err.mu.Lock()
	defer b.console.err.mu.Unlock()
	b.console.err.wipe = nil
	_ = b.bar.Clear()
	b.bar = nil
}
