// Package report makes report.html: what a training was and how it went, in one
// file without outside resources.
//
//	run, err := report.Read("model")          // run.json and metrics.jsonl
//	err = report.WriteFile(ctx, "model/report.html", run)
//
// Everything in it comes from those two files, so that it can be made again at
// any time, and of several runs side by side. It holds run.json itself, from
// which the training can be repeated (Recipe).
package report

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"promptgen/internal/atomicdir"
	"promptgen/internal/bytesize"
	"promptgen/internal/fault"
	"promptgen/train/runlog"
)

// Name is the report's file in a run's output folder.
const Name = "report.html"

// maxSteps is about how many steps of a run a report holds.
const maxSteps = 1500

// Run is one training.
type Run struct {
	Name  string // the folder, as it was given
	Info  *runlog.Run
	Lines []runlog.Line
}

// Read reads what the training in the output folder dir has left.
func Read(dir string) (*Run, error) {
	info, err := runlog.ReadRun(dir)
	if err != nil {
		return nil, err
	}
	lines, err := runlog.ReadLines(dir, maxSteps)
	if err != nil {
		return nil, err
	}
	return &Run{dir, info, lines}, nil
}

// WriteFile writes the report of the runs to path, whole or not at all.
func WriteFile(ctx context.Context, path string, runs ...*Run) error {
	var b bytes.Buffer
	if err := Render(&b, runs...); err != nil {
		return err
	}
	return atomicdir.WriteFile(ctx, path, func(w io.Writer) error { _, err := w.Write(b.Bytes()); return err })
}

// MayReplace refuses (2) a path where something else than a report lies: what a
// user keeps there, or a training's figures, would be gone.
func MayReplace(path string) error {
	if err := atomicdir.MayWriteFile(path); err != nil {
		return err
	}
	text, err := read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fault.Usage("%s: is there and cannot be read (%w), it would be replaced; choose another name", path, fault.Reason(err))
	case len(text) > 0 && !isReport(text):
		return fault.Usage("%s: is there and no training report, it would be replaced; choose another name", path)
	}
	return nil
}

// read reads what may be a report.
func read(path string) (text string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxReport))
	return string(b), err
}

// Is tells a training report, of one run or of several, by what it holds.
func Is(path string) bool {
	text, err := read(path)
	return err == nil && isReport(text)
}

func isReport(text string) bool { return isPage(text) && strings.Contains(text, seriesBegin) }

// isPage tells a report from a run.json.
func isPage(text string) bool { return strings.HasPrefix(strings.TrimSpace(text), "<") }

//go:embed report.tmpl.html
var page string

var tmpl = template.Must(template.New("report").Funcs(template.FuncMap{
	"bytes": bytesize.Format, "count": humanCount, "num": number, "percent": percent, "seconds": humanSeconds,
	"inc": func(i int) int { return i + 1 },
}).Parse(page))

// Render writes the report of the runs, at least one.
func Render(w io.Writer, runs ...*Run) error {
	p, err := newPage(runs)
	if err != nil {
		return err
	}
	if err := tmpl.Execute(w, p); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// maxReport bounds what is read of a report.
const maxReport = 256 << 20

const (
	recipeBegin = `<script type="application/json" id="promptgen-run">`
	recipeEnd   = `</script>`
	seriesBegin = `<script type="application/json" id="promptgen-series">` // in every report
)

// Recipe reads what repeats a training: from report.html, from run.json, or from
// a folder that holds one of them.
func Recipe(path string) (*runlog.Run, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		if _, err := os.Stat(filepath.Join(path, runlog.RunName)); err == nil {
			path = filepath.Join(path, runlog.RunName)
		} else {
			path = filepath.Join(path, Name)
		}
	}
	text, err := read(path)
	if err != nil {
		return nil, fault.Usage("%s: cannot be read (%w); name the report.html or run.json of a training, or its folder", path, fault.Reason(err))
	}
	if isPage(text) {
		_, rest, found := strings.Cut(text, recipeBegin)
		recipe, _, closed := strings.Cut(rest, recipeEnd)
		if !found || !closed {
			return nil, fault.Corrupt("%s: is not the report of one training; name the report.html in its output folder", path)
		}
		text = recipe
	}
	return runlog.DecodeRun(path, []byte(text))
}

// Series is what a report holds of a run's figures, for machines.
type Series struct {
	Name  string        `json:"name"`
	Lines []runlog.Line `json:"lines"`
}

// view is what the page shows.
type view struct {
	Title  string
	Single *runView // nil: several runs
	Runs   []*runView
	Charts []chart
	Series template.JS
}

// runView is one run on the page.
type runView struct {
	*Run
	Color   int
	Recipe  template.JS
	Last    runlog.Line  // the last step
	Val     *runlog.Line // the last validation
	Best    *runlog.Line // the best one
	Skipped int
	Done    bool
	Config  []fact
	Options []fact
	Samples []sampleGroup
	Parts   []partView
}

type fact struct{ Key, Value string }

// sampleGroup is what became of one prompt.
type sampleGroup struct {
	Prompt string
	Texts  []sampleView
}

// add keeps the last sample of each epoch.
func (g *sampleGroup) add(s sampleView) {
	if n := len(g.Texts); n > 0 && g.Texts[n-1].Epoch == s.Epoch {
		g.Texts = g.Texts[:n-1]
	}
	g.Texts = append(g.Texts, s)
}

type sampleView struct {
	Epoch, Step  int
	Continuation string
}

// partView is a share of the planned memory, in percent.
type partView struct {
	runlog.Part
	Share float64
	Color int
}

func newPage(runs []*Run) (*view, error) {
	if len(runs) == 0 {
		return nil, fault.Usage("a report needs a run")
	}
	v := &view{Title: "Training report"}
	var series []Series
	for i, r := range runs {
		rv, err := newRunView(r, i)
		if err != nil {
			return nil, err
		}
		v.Runs = append(v.Runs, rv)
		series = append(series, Series{r.Name, r.Lines})
	}
	if len(runs) == 1 {
		v.Single = v.Runs[0]
	}
	b, err := json.Marshal(series)
	if err != nil {
		return nil, err
	}
	v.Series = template.JS(b) // json.Marshal leaves no < in it
	v.Charts = charts(series)
	return v, nil
}

func newRunView(r *Run, color int) (*runView, error) {
	v := &runView{Run: r, Color: color}
	b, err := r.Info.Encode()
	if err != nil {
		return nil, err
	}
	v.Recipe = template.JS(b)
	groups := map[string]int{}
	stale := 0 // validations after the best one
	for i, l := range r.Lines {
		switch {
		case l.ValLoss != nil:
			v.Val = &r.Lines[i]
			if stale++; v.Best == nil || *l.ValLoss < *v.Best.ValLoss {
				v.Best, stale = v.Val, 0
			}
		case l.Prompt != "":
			g, ok := groups[l.Prompt]
			if !ok {
				g = len(v.Samples)
				groups[l.Prompt] = g
				v.Samples = append(v.Samples, sampleGroup{Prompt: l.Prompt})
			}
			text := strings.TrimPrefix(l.Text, l.Prompt)
			v.Samples[g].add(sampleView{l.Epoch, l.Step, text})
		default:
			v.Last = l
			if l.Skipped {
				v.Skipped++
			}
		}
	}
	var stop struct{ EarlyStop int } // options are settings' to check
	_ = json.Unmarshal(r.Info.Options, &stop)
	v.Done = v.Last.Step >= r.Info.Plan.Steps || stop.EarlyStop > 0 && stale >= stop.EarlyStop
	if v.Config, v.Options, err = settings(r.Info.Options); err != nil {
		return nil, err
	}
	for i, p := range r.Info.Plan.Parts {
		v.Parts = append(v.Parts, partView{p, 100 * float64(p.Bytes) / float64(max(1, r.Info.Plan.Bytes)), i})
	}
	return v, nil
}

// settings lists the options of a run, the model's config apart. Options that
// are off are left out.
func settings(options json.RawMessage) (config, rest []fact, err error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(options, &all); err != nil {
		return nil, nil, fault.Corrupt("run.json: its options cannot be read (%v)", err)
	}
	config, err = facts(all["Config"])
	if err != nil {
		return nil, nil, err
	}
	delete(all, "Config")
	delete(all, "Command")
	b, err := json.Marshal(all)
	if err != nil {
		return nil, nil, err
	}
	rest, err = facts(b)
	for i, f := range rest {
		rest[i] = asFlag(f)
	}
	return config, rest, err
}

// facts lists the fields of a JSON object that are not empty, in its order.
func facts(object json.RawMessage) ([]fact, error) {
	var out []fact
	dec := json.NewDecoder(bytes.NewReader(object))
	if _, err := dec.Token(); err != nil {
		return nil, fault.Corrupt("run.json: its options cannot be read (%v)", err)
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, fault.Corrupt("run.json: its options cannot be read (%v)", err)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, fault.Corrupt("run.json: its options cannot be read (%v)", err)
		}
		switch s := string(value); {
		case slices.Contains([]string{`""`, "null", "false", "0", "[]"}, s):
		case strings.HasPrefix(s, "{"): // options of one thing
			inner, err := facts(value)
			if err != nil {
				return nil, err
			}
			for _, f := range inner {
				out = append(out, fact{fmt.Sprint(key) + "." + f.Key, f.Value})
			}
		default:
			out = append(out, fact{fmt.Sprint(key), strings.Trim(s, `"`)})
		}
	}
	return out, nil
}
