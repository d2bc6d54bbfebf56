package train_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/train"
	"promptgen/train/report"
	"promptgen/train/runlog"
)

// watchedOptions are a run with everything that a report shows.
func watchedOptions(t *testing.T) train.Options {
	o := heldOutOptions(t)
	o.SamplePrompts, o.BatchSize, o.Command = []string{"一丁"}, 2, "promptgen train --data x"
	return o
}

func readReport(t *testing.T, out string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(out, report.Name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The report must hold the very figures of metrics.jsonl, and no resource from
// elsewhere.
func TestReportAgreesWithMetrics(t *testing.T) {
	o := watchedOptions(t)
	mustRun(t, o, train.Silent{})
	page := readReport(t, o.Out)
	_, rest, ok := strings.Cut(page, `<script type="application/json" id="promptgen-series">`)
	text, _, closed := strings.Cut(rest, "</script>")
	var series []report.Series
	if err := json.Unmarshal([]byte(text), &series); !ok || !closed || err != nil {
		t.Fatalf("%v: %.200s", err, text)
	}
	lines, err := runlog.ReadLines(o.Out, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(series) != 1 || !equalLines(series[0].Lines, lines) {
		t.Error("the report has other figures than metrics.jsonl")
	}
	last := lines[len(lines)-1]
	if last.Text == "" || !strings.Contains(page, strings.TrimPrefix(last.Text, last.Prompt)) {
		t.Errorf("the last sample %q is not in the report", last.Text)
	}
	for _, want := range []string{"promptgen train --data x", "验证损失", "<svg", "n_embd", "prefers-color-scheme: dark", "[UNK]", "peak memory"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in the report", want)
		}
	}
	if outside := regexp.MustCompile(`(?i)(src|href)=|url\(|@import|https?://`).FindString(page); outside != "" {
		t.Errorf("the report asks for a resource: %s", outside)
	}
}

func equalLines(a, b []runlog.Line) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return len(a) > 0 && bytes.Equal(x, y)
}

// withoutTimes is a run with all that depends on the moment and the machine's
// load taken out.
func withoutTimes(t *testing.T, out string) *report.Run {
	t.Helper()
	r, err := report.Read(out)
	if err != nil {
		t.Fatal(err)
	}
	for i := range r.Lines {
		r.Lines[i].TokensPerSec, r.Lines[i].PeakRSS, r.Lines[i].Elapsed = 0, 0, 0
	}
	return r
}

// The same run twice must leave the same weights, the same figures and the same
// report, times and memory apart.
func TestSameRunTwice(t *testing.T) {
	o := watchedOptions(t)
	o.Out = "out" // the same in both
	var pages [][]byte
	var lines [][]runlog.Line
	var saved [][]byte
	for range 2 {
		t.Chdir(t.TempDir())
		mustRun(t, o, train.Silent{})
		r := withoutTimes(t, o.Out)
		var page bytes.Buffer
		if err := report.Render(&page, r); err != nil {
			t.Fatal(err)
		}
		pages, lines, saved = append(pages, page.Bytes()), append(lines, r.Lines), append(saved, weights(t, o.Out))
	}
	if !bytes.Equal(saved[0], saved[1]) {
		t.Error("other weights")
	}
	if !equalLines(lines[0], lines[1]) {
		t.Error("other figures")
	}
	if !bytes.Equal(pages[0], pages[1]) {
		t.Error("another report")
	}
}

// A report must hold all that repeats its run: the options read from it must
// give the same weights to the bit.
func TestRepeatFromReport(t *testing.T) {
	o := watchedOptions(t)
	drop, floor := 0.2, 1e-4
	o.Dropout, o.MinLR, o.Schedule, o.LabelSmoothing, o.DecayAll, o.Stride = &drop, &floor, train.Cosine, 0.1, true, 9
	res := mustRun(t, o, train.Silent{})
	for _, from := range []string{filepath.Join(o.Out, report.Name), o.Out, filepath.Join(o.Out, runlog.RunName), res.Model} {
		again, err := train.FromReport(from)
		if err != nil {
			t.Fatalf("%s: %v", from, err)
		}
		again.Out = filepath.Join(t.TempDir(), "again")
		mustRun(t, again, train.Silent{})
		if !bytes.Equal(weights(t, again.Out), weights(t, o.Out)) {
			t.Errorf("%s: other weights", from)
		}
	}
	again, err := train.FromReport(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	again.Data, again.Out = heldOutOptions(t).Data, filepath.Join(t.TempDir(), "other")
	again.DataHash = strings.Repeat("0", 64)
	if _, err := train.Run(t.Context(), again, train.Silent{}); fault.Code(err) != fault.CodeCorrupt {
		t.Errorf("other data was taken: %v", err)
	}
}

// What a single run cannot repeat must be refused, never give other weights: a
// run that grew, also where it went on once more, one that went on with another
// batch, and one whose first weights have been replaced since.
func TestReportThatCannotBeRepeated(t *testing.T) {
	base := testOptions(t, 16*20)
	model := mustRun(t, base, train.Silent{}).Model
	o := base
	o.Out, o.InitFrom, o.Epochs = filepath.Join(t.TempDir(), "out"), model, 1
	mustRun(t, o, train.Silent{})
	again, err := train.FromReport(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	again.Out, again.InitFrom = filepath.Join(t.TempDir(), "again"), train.EpochModel(base.Out, 1)
	if _, err := train.Run(t.Context(), again, train.Silent{}); fault.Code(err) != fault.CodeCorrupt || !strings.Contains(err.Error(), "not the weights of the training") {
		t.Errorf("other first weights were taken: %v", err)
	}

	o.Epochs = 3 // grown, and cut once more
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := train.Run(ctx, o, &recorder{onStep: func(train.StepInfo) { cancel() }}); fault.Code(err) != fault.CodeInterrupted {
		t.Fatal(err)
	}
	grown := mustRun(t, o, train.Silent{}).Model
	other := base
	other.Out, other.Resume, other.Epochs, other.BatchSize = filepath.Join(t.TempDir(), "other"), base.Out, 3, 2
	mustRun(t, other, train.Silent{})
	for from, word := range map[string]string{grown: "epochs 1, now 3", filepath.Join(o.Out, report.Name): "epochs 1, now 3", other.Out: "sequences_per_step 8, now 2"} {
		if _, err := train.FromReport(from); fault.Code(err) != fault.CodeUsage || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", from, err)
		}
	}

	// A state that was named and goes on as its run would have is repeated.
	same := base
	same.Out, same.Resume = filepath.Join(t.TempDir(), "same"), firstState(t, base.Out)
	mustRun(t, same, train.Silent{})
	if again, err = train.FromReport(same.Out); err != nil {
		t.Fatal(err)
	}
	again.Out = filepath.Join(t.TempDir(), "again")
	mustRun(t, again, train.Silent{})
	if !bytes.Equal(weights(t, again.Out), weights(t, same.Out)) {
		t.Error("other weights than those of a run that a state was named for")
	}
}

// firstState is the oldest state in out.
func firstState(t testing.TB, out string) string {
	t.Helper()
	states, err := filepath.Glob(filepath.Join(out, "state", "step-*"))
	if err != nil || len(states) == 0 {
		t.Fatal(states, err)
	}
	return states[0]
}

// Several runs side by side, a run without validation, and a page that is none.
func TestReportOfSeveralRuns(t *testing.T) {
	a := watchedOptions(t)
	mustRun(t, a, train.Silent{})
	b := testOptions(t, 16*40)
	mustRun(t, b, train.Silent{})
	var runs []*report.Run
	for i, out := range []string{a.Out, b.Out} {
		r, err := report.Read(out)
		if err != nil {
			t.Fatal(err)
		}
		r.Name = []string{"first", "<second>"}[i]
		runs = append(runs, r)
	}
	path := filepath.Join(t.TempDir(), "comparison.html")
	if err := report.WriteFile(t.Context(), path, runs...); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(page, []byte("first")) || !bytes.Contains(page, []byte("&lt;second&gt;")) || bytes.Contains(page, []byte("<second>")) {
		t.Error("the runs are not named, or a name is not escaped")
	}
	if _, err := report.Recipe(path); fault.Code(err) != fault.CodeCorrupt {
		t.Errorf("a comparison is no recipe: %v", err)
	}
	if _, err := report.Recipe(filepath.Join(t.TempDir(), "none.html")); fault.Code(err) != fault.CodeUsage {
		t.Errorf("%v", err)
	}
	if _, err := report.Read(t.TempDir()); fault.Code(err) != fault.CodeUsage {
		t.Errorf("%v", err)
	}
}

// Of a long run the report holds some of the steps, the last one among them,
// and everything that is rare.
func TestLongRunIsThinned(t *testing.T) {
	out := t.TempDir()
	log, err := runlog.Open(t.Context(), out, runlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	loss := 1.5
	for step := 1; step <= 1000; step++ {
		if err := log.Add(runlog.Line{Step: step, Loss: &loss, Skipped: step == 500}); err != nil {
			t.Fatal(err)
		}
		if step%300 == 0 {
			if err := log.Add(runlog.Line{Step: step, ValLoss: &loss}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	lines, err := runlog.ReadLines(out, 50)
	if err != nil {
		t.Fatal(err)
	}
	vals := 0
	for _, l := range lines {
		if l.ValLoss != nil {
			vals++
		}
	}
	skipped := slices.ContainsFunc(lines, func(l runlog.Line) bool { return l.Skipped })
	if n := len(lines); n > 120 || n < 50 || lines[n-1].Step != 1000 || lines[0].Step != 1 || vals != 3 || !skipped {
		t.Errorf("%d lines of 1003, from step %d to %d, %d validations, skipped there: %v", n, lines[0].Step, lines[n-1].Step, vals, skipped)
	}
}
