package train_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/internal/tfevents/tfread"
	"promptgen/train"
	"promptgen/train/runlog"
)

// events reads the only event file of a folder, without its first record.
func events(t *testing.T, dir string) []tfread.Event {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "events.out.tfevents.*"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("event files %v (%v)", paths, err)
	}
	b, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	all, err := tfread.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	if all[0].Version != "brain.Event:2" {
		t.Errorf("first record %+v", all[0])
	}
	return all[1:]
}

// checkEvents compares an event file with metrics.jsonl, figure by figure.
func checkEvents(t *testing.T, lines []runlog.Line, events []tfread.Event) {
	t.Helper()
	next := func() (e tfread.Event) {
		if len(events) > 0 {
			e, events = events[0], events[1:]
		}
		return e
	}
	for _, l := range lines {
		for _, c := range runlog.Curves {
			if v := c.Of(l); v != nil {
				if e := next(); e.Tag != c.Tag || e.Step != int64(l.Step) || e.Value != float32(*v) {
					t.Errorf("event %+v, want %s %v at %d", e, c.Tag, *v, l.Step)
				}
			}
		}
		if l.Prompt != "" {
			if e := next(); e.Plugin != "text" || e.Tag != "samples/"+l.Prompt || e.Text != strings.ReplaceAll(l.Text, "\n", "  \n") {
				t.Errorf("event %+v, want the sample %q", e, l.Text)
			}
		}
	}
	if len(events) > 0 {
		t.Errorf("%d events more than figures", len(events))
	}
}

// What TensorBoard shows must be what metrics.jsonl says, also after an
// interruption, which must leave neither doubled nor missing steps.
func TestEventsAgreeWithMetrics(t *testing.T) {
	o := heldOutOptions(t)
	o.SamplePrompts, o.EvalEvery, o.BatchSize = []string{"一丁", "七"}, 3, 2
	o.WriterDir = filepath.Join(t.TempDir(), "board")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	rec := recorder{onStep: func(s train.StepInfo) {
		if s.Step == 4 {
			cancel()
		}
	}}
	if _, err := train.Run(ctx, o, &rec); fault.Code(err) != fault.CodeInterrupted {
		t.Fatal(err)
	}
	mustRun(t, o, &rec)
	lines, err := runlog.ReadLines(o.Out, 0)
	if err != nil {
		t.Fatal(err)
	}
	checkEvents(t, lines, events(t, o.WriterDir))
	var steps, vals, samples int
	for _, l := range lines {
		switch {
		case l.ValLoss != nil:
			vals++
		case l.Prompt != "":
			samples++
		default:
			if steps++; l.Step != steps {
				t.Errorf("step %d stands where %d should", l.Step, steps)
			}
		}
	}
	if steps != len(rec.steps) || vals != len(rec.vals) || samples != len(rec.samples) || samples != 2*vals || vals < 4 {
		t.Errorf("%d steps, %d validations, %d samples; told %d, %d, %d", steps, vals, samples, len(rec.steps), len(rec.vals), len(rec.samples))
	}
	if s := rec.samples[0]; !strings.HasPrefix(s.Text, "一丁") || len(s.Text) <= len("一丁") {
		t.Errorf("sample %+v", s)
	}
}

// Samples borrow the gradients' and activations' memory: the weights that a run
// ends with are the same with and without them, to the bit.
func TestSamplesChangeNothing(t *testing.T) {
	for _, d := range []kernel.DType{kernel.FP32, kernel.BF16} {
		var sums []string
		for _, prompts := range [][]string{nil, {"一丁", "七"}} {
			o := heldOutOptions(t)
			o.DType, o.EvalEvery, o.BatchSize, o.SamplePrompts = d, 1, 2, prompts
			var rec recorder
			mustRun(t, o, &rec)
			if len(prompts) > 0 && len(rec.samples) < 4 {
				t.Fatalf("%d samples", len(rec.samples))
			}
			weights, err := os.ReadFile(filepath.Join(o.Out, "final_model", "model.safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			sums = append(sums, fmt.Sprintf("%x", sha256.Sum256(weights)))
		}
		if sums[0] != sums[1] {
			t.Errorf("%v: samples changed the weights", d)
		}
	}
}

// Without a lower validation loss the run must end early, with the best model
// kept, and a run that goes on must end again at once.
func TestEarlyStop(t *testing.T) {
	o := heldOutOptions(t)
	o.Epochs, o.LR, o.EarlyStop = 40, 3e-2, 2
	var rec recorder
	res := mustRun(t, o, &rec)
	n := len(rec.vals)
	best := rec.vals[n-3]
	if !res.Stopped || n == o.Epochs || !best.Best || rec.vals[n-1].Best || rec.vals[n-2].Best || *res.BestValLoss != best.Loss {
		t.Fatalf("%d validations, the last of them %+v; %+v", n, rec.vals[max(0, n-3):], res)
	}
	for _, v := range rec.vals {
		if v.Loss < best.Loss {
			t.Errorf("step %d was better than the best", v.Step)
		}
	}
	kept, err := os.ReadFile(filepath.Join(res.BestModel, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	atBest, err := os.ReadFile(filepath.Join(train.EpochModel(o.Out, best.Epoch), "model.safetensors"))
	if err != nil || !bytes.Equal(kept, atBest) {
		t.Errorf("best_model is not that of epoch %d (%v)", best.Epoch, err)
	}
	again := mustRun(t, o, train.Silent{})
	if again.Steps != res.Steps || !again.Stopped {
		t.Errorf("went on to %+v", again)
	}
}

// A rate that is far too high must end the run with code 1 and name what to do,
// whether the loss becomes infinite or only enormous; no final model is left.
func TestDivergedRunStops(t *testing.T) {
	for _, lr := range []float64{1e3, 1e6} {
		o := testOptions(t, 16*400)
		o.LR, o.WarmupSteps = lr, 0
		_, err := train.Run(context.Background(), o, train.Silent{})
		if fault.Code(err) != fault.CodeFailed || !strings.Contains(err.Error(), "lower --lr") || !strings.Contains(err.Error(), "saved") {
			t.Errorf("lr %g: %v", lr, err)
		}
		if _, err := os.Stat(train.FinalModel(o.Out)); err == nil {
			t.Errorf("lr %g: a final model was written", lr)
		}
	}
}

// A smoothed target's loss is told as such: it cannot fall below its entropy,
// and the weights differ from those of a run without.
func TestLabelSmoothing(t *testing.T) {
	o := testOptions(t, 16*40)
	mustRun(t, o, train.Silent{})
	plain := weights(t, o.Out)
	o.Out, o.LabelSmoothing = filepath.Join(t.TempDir(), "smooth"), 0.3
	var rec recorder
	mustRun(t, o, &rec)
	if bytes.Equal(weights(t, o.Out), plain) {
		t.Error("no effect")
	}
	if first := rec.steps[0].Loss; math.Abs(first-math.Log(25)) > 1 {
		t.Errorf("first loss %v", first)
	}
}
