// Package runlog is what a training leaves for those who watch it: the lines of
// metrics.jsonl and the TensorBoard events that say the same, and run.json with
// what the run was and what repeats it.
//
//	log, err := runlog.Open(out, runlog.Options{})
//	err = log.Add(runlog.Line{Step: 1, …})
//	lines, err := runlog.ReadLines(out)
//
// metrics.jsonl is the one source: the event file is written along with it, and
// anew from it when a run goes on, and the report is made of it. So the three
// cannot disagree.
package runlog

import (
	"bufio"
	"bytes"
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

// Line is a line of metrics.jsonl: a training step, a validation (ValLoss is
// set) or a sample (Prompt is set). What is not a number is null.
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
	lines   []Line // of a resumed run first
	start   time.Time
	before  float64 // seconds of the runs that this one goes on from
	flushed time.Time
}

// flushEvery is how old what TensorBoard shows may be.
const flushEvery = 2 * time.Second

// Open starts both files with what a resumed run had written, which may be less
// than what metrics.jsonl holds: the steps after its last state are done again.
func Open(out string, o Options) (*Log, error) {
	l := &Log{start: time.Now()}
	var err error
	path := filepath.Join(out, MetricsName)
	if l.lines, err = parse(o.Written, path); err != nil {
		return nil, err
	}
	if n := len(l.lines); n > 0 {
		l.before = l.lines[n-1].Elapsed
	}
	err = atomicdir.WriteFile(path, func(w io.Writer) error { _, err := w.Write(o.Written); return err })
	if err != nil {
		return nil, err
	}
	if l.file, err = os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0); err != nil {
		return nil, err
	}
	if err := l.openEvents(out, o.Events); err != nil {
		return nil, errors.Join(err, l.file.Close())
	}
	return l, nil
}

// openEvents starts an event file with the lines so far, in place of those that
// runs in this output folder had written before.
func (l *Log) openEvents(out, dir string) error {
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
	old, err := filepath.Glob(filepath.Join(dir, "events.out.tfevents.*."+suffix))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	host, _ := os.Hostname()
	name := fmt.Sprintf("events.out.tfevents.%d.%s.%s", l.start.Unix(), host, suffix)
	if l.events, err = tfevents.Create(filepath.Join(dir, name)); err != nil {
		return fault.Usage("the folder for TensorBoard: %w", err)
	}
	for _, line := range l.lines {
		l.event(line)
	}
	return l.events.Flush()
}

// Elapsed is the seconds that the run has taken, resumed ones included.
func (l *Log) Elapsed() float64 { return l.before + time.Since(l.start).Seconds() }

// Lines are all lines so far. The caller must not change them.
func (l *Log) Lines() []Line { return l.lines }

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
	l.lines = append(l.lines, line)
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

// maxMetrics bounds what is read of a metrics.jsonl: ten million lines.
const maxMetrics = 2 << 30

// ReadLines reads the metrics.jsonl of a run's folder. A last line that was cut
// short (the run is going on, or was killed) is left out; any other that is
// broken is fault.Corrupt.
func ReadLines(out string) ([]Line, error) {
	path := filepath.Join(out, MetricsName)
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.Usage("%s: holds no %s; name the output folder of a training", out, MetricsName)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMetrics))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return parse(b[:bytes.LastIndexByte(b, '\n')+1], path)
}

// parse reads whole lines.
func parse(b []byte, path string) (lines []Line, err error) {
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, 1<<24)
	for n := 1; sc.Scan(); n++ {
		if len(bytes.TrimSpace(sc.Bytes())) == 0 {
			continue
		}
		var l Line
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			return nil, fault.Corrupt("%s, line %d: not a line of metrics (%v)", path, n, err)
		}
		lines = append(lines, l)
	}
	if err := sc.Err(); err != nil {
		return nil, fault.Corrupt("%s: %v", path, err)
	}
	return lines, nil
}
