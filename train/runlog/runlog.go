// Package runlog is what a training leaves for those who watch it: the lines of
// metrics.jsonl and the TensorBoard events that say the same, and run.json with
// what the run was and what repeats it.
//
//	log, err := runlog.Open(ctx, out, runlog.Options{})
//	err = log.Add(runlog.Line{Step: 1, …})
//	lines, err := runlog.ReadLines(out, 0)
//
// metrics.jsonl is the one source: the event file is written along with it, and
// anew from it when a run goes on, and the report is made of it. So the three
// cannot disagree.
package runlog

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"promptgen/internal/atomicdir"
	"promptgen/internal/fault"
	"promptgen/internal/tfevents"
)

// The files of a run, in its output folder.
const (
	MetricsName = "metrics.jsonl"
	RunName     = "run.json"
	EventsName  = "tensorboard" // folder
)

// eventsPrefix begins an event file's name, by which TensorBoard finds it.
const eventsPrefix = "events.out.tfevents."

// Line is a line of metrics.jsonl: a training step, a validation (ValLoss is
// set) or a sample (Prompt is set). What is not a number is left out.
type Line struct {
	Step  int `json:"step"`  // optimizer steps done, from 1
	Epoch int `json:"epoch"` // from 1

	// Of a training step.
	Loss         *float64 `json:"loss,omitempty"` // nats a token
	LR           *float64 `json:"lr,omitempty"`
	GradNorm     *float64 `json:"grad_norm,omitempty"` // before clipping
	Tokens       int64    `json:"tokens,omitempty"`    // seen since the start
	TokensPerSec float64  `json:"tokens_per_s,omitempty"`
	PeakRSS      int64    `json:"peak_rss_bytes,omitempty"` // of the process so far
	Skipped      bool     `json:"skipped,omitempty"`        // loss or gradient was not finite

	// Of a validation.
	ValLoss       *float64 `json:"val_loss,omitempty"` // nats a token
	ValPerplexity *float64 `json:"val_perplexity,omitempty"`
	ValBits       float64  `json:"val_bits_per_char,omitempty"`

	// Of a sample.
	Prompt string `json:"prompt,omitempty"`
	Text   string `json:"text,omitempty"` // prompt and continuation

	Elapsed float64 `json:"elapsed_s,omitempty"` // seconds of training before this line, resumed runs included
}

// IsStep says that the line is of a training step.
func (l Line) IsStep() bool { return l.ValLoss == nil && l.Prompt == "" }

// Number is v for a Line: nil where it is none that JSON could say.
func Number(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// Options of a Log.
type Options struct {
	Events  string // folder of the event file; empty: tensorboard/ in the run's folder
	Written []byte // what a resumed run had written, to start with
}

// Log writes metrics.jsonl and the event file.
type Log struct {
	file    *os.File
	events  *tfevents.Writer
	start   time.Time
	before  float64 // seconds of the runs that this one goes on from
	flushed time.Time
}

// flushEvery is how old what TensorBoard shows may be.
const flushEvery = 2 * time.Second

// Open starts both files with what a resumed run had written, which may be less
// than what metrics.jsonl holds: the steps after its last state are done again.
func Open(ctx context.Context, out string, o Options) (*Log, error) {
	l := &Log{start: time.Now()}
	var err error
	path := filepath.Join(out, MetricsName)
	err = parse(bytes.NewReader(o.Written), path, func(line Line) { l.before = line.Elapsed })
	if err != nil {
		return nil, err
	}
	err = atomicdir.WriteFile(ctx, path, func(w io.Writer) error { _, err := w.Write(o.Written); return err })
	if err != nil {
		return nil, err
	}
	if l.file, err = os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0); err != nil {
		return nil, err
	}
	if err := l.openEvents(out, o.Events, o.Written); err != nil {
		if l.events != nil {
			err = errors.Join(err, l.events.Close())
		}
		return nil, errors.Join(err, l.file.Close())
	}
	return l, nil
}

// openEvents starts an event file with the lines so far, in place of those that
// runs in this output folder had written before.
func (l *Log) openEvents(out, dir string, written []byte) error {
	if dir == "" {
		dir = filepath.Join(out, EventsName)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fault.Usage("the folder for TensorBoard: %w", err)
	}
	// Several runs may share the folder: a file is this run's by its suffix.
	whole, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	suffix := fmt.Sprintf("promptgen-%08x", crc32.ChecksumIEEE([]byte(whole)))
	entries, err := os.ReadDir(dir) // not Glob: the folder's own name may hold what is a pattern
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), eventsPrefix) && strings.HasSuffix(e.Name(), "."+suffix) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	host, _ := os.Hostname()
	name := fmt.Sprintf(eventsPrefix+"%d.%s.%s", l.start.Unix(), host, suffix)
	if l.events, err = tfevents.Create(filepath.Join(dir, name)); err != nil {
		return fault.Usage("the folder for TensorBoard: %w", err)
	}
	if err := parse(bytes.NewReader(written), MetricsName, l.event); err != nil {
		return err
	}
	return l.events.Flush()
}

// Elapsed is the seconds that the run has taken, resumed ones included.
func (l *Log) Elapsed() float64 { return l.before + time.Since(l.start).Seconds() }

// Add writes a line to both files; a nil Log writes nothing.
func (l *Log) Add(line Line) error {
	if l == nil {
		return nil
	}
	line.Elapsed = math.Round(l.Elapsed()*1e3) / 1e3
	b, err := json.Marshal(line)
	if err == nil {
		_, err = l.file.Write(append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", l.file.Name(), err)
	}
	l.event(line)
	if now := time.Now(); now.Sub(l.flushed) > flushEvery {
		l.flushed = now
		return l.Flush()
	}
	return nil
}

// event writes the line's figures for TensorBoard.
func (l *Log) event(line Line) {
	// A resumed run's earlier lines are dated as if it had not been interrupted.
	at := l.start.Add(time.Duration((line.Elapsed - l.before) * float64(time.Second)))
	for _, c := range Curves {
		if v := c.Of(line); v != nil {
			l.events.Scalar(at, int64(line.Step), c.Tag, *v)
		}
	}
	if line.Prompt != "" {
		l.events.Text(at, int64(line.Step), "samples/"+line.Prompt, strings.ReplaceAll(line.Text, "\n", "  \n"))
	}
}

// Curve is a figure that is followed over the steps.
type Curve struct {
	Tag string              // in TensorBoard
	Of  func(Line) *float64 // nil: the line does not have it
}

// Curves are all of them.
var Curves = []Curve{
	{"train/loss", func(l Line) *float64 { return l.Loss }},
	{"train/lr", func(l Line) *float64 { return l.LR }},
	{"train/grad_norm", func(l Line) *float64 { return l.GradNorm }},
	{"train/tokens_per_s", func(l Line) *float64 { return positive(l.TokensPerSec) }},
	{"val/loss", func(l Line) *float64 { return l.ValLoss }},
	{"val/perplexity", func(l Line) *float64 { return l.ValPerplexity }},
	{"val/bits_per_char", func(l Line) *float64 { return positive(l.ValBits) }},
}

func positive(v float64) *float64 {
	if v <= 0 {
		return nil
	}
	return &v
}

// Flush lets others see everything that was added.
func (l *Log) Flush() error {
	if err := l.events.Flush(); err != nil {
		return fmt.Errorf("TensorBoard's event file: %w", err)
	}
	return nil
}

// Close closes both files.
func (l *Log) Close() error { return errors.Join(l.events.Close(), l.file.Close()) }

// ReadLines reads the metrics.jsonl of a run's folder. Of the training steps it
// keeps about as many as atMost (0: all), at even distances; the last one,
// skipped ones, validations and samples are all kept. A last line that was cut
// short (the run is going on, or was killed) is left out; any other that is
// broken is fault.Corrupt.
func ReadLines(out string, atMost int) ([]Line, error) {
	path := filepath.Join(out, MetricsName)
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.Usage("%s: holds no %s; name the output folder of a training", out, MetricsName)
	}
	defer f.Close()
	t := thinner{atMost: atMost, every: 1}
	if err := parse(f, path, t.add); err != nil {
		return nil, err
	}
	return t.lines, nil
}

// thinner keeps every so many steps of a stream of lines.
type thinner struct {
	atMost, every int
	lines         []Line
	steps, kept   int  // seen; held
	provisional   bool // the last line is held only until a next step comes
}

func (t *thinner) add(l Line) {
	if !l.IsStep() || l.Skipped {
		// What was provisional stays: something was measured right after it.
		t.provisional = false
		t.lines = append(t.lines, l)
		return
	}
	if t.provisional {
		t.lines = t.lines[:len(t.lines)-1]
	}
	t.provisional = t.steps%t.every != 0
	t.lines = append(t.lines, l)
	if t.steps++; t.provisional {
		return
	}
	if t.kept++; t.atMost > 0 && t.kept > 2*t.atMost {
		t.halve()
	}
}

// halve drops every second step that is held.
func (t *thinner) halve() {
	t.every *= 2
	n, held := 0, t.lines[:0]
	for _, l := range t.lines {
		if l.IsStep() && !l.Skipped {
			if n++; n%2 == 0 {
				t.kept--
				continue
			}
		}
		held = append(held, l)
	}
	t.lines = held
}

// maxLine bounds a line: samples are short texts.
const maxLine = 1 << 24

// parse hands f every whole line.
func parse(r io.Reader, path string, f func(Line)) error {
	in := bufio.NewReaderSize(r, 1<<16)
	for n := 1; ; n++ {
		var text []byte
		for {
			part, err := in.ReadSlice('\n')
			text = append(text, part...)
			if err == io.EOF {
				return nil
			}
			if err == nil {
				break
			}
			if err != bufio.ErrBufferFull || len(text) > maxLine {
				return fault.Corrupt("%s, line %d: cannot be read (%v)", path, n, err)
			}
		}
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		var l Line
		if err := json.Unmarshal(text, &l); err != nil {
			return fault.Corrupt("%s, line %d: not a line of metrics (%v)", path, n, err)
		}
		f(l)
	}
}
