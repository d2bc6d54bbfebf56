package train_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"promptgen/data"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model"
	"promptgen/model/checkpoint"
	"promptgen/model/plan"
	"promptgen/tokenizer"
	"promptgen/train"
	"promptgen/train/runlog"
)

// writeTokens makes a folder of the original's token files, n tokens of a
// repeating pattern that a model can learn, and the vocabulary for it.
func writeTokens(t testing.TB, n int) (dir, vocab string) {
	t.Helper()
	dir = t.TempDir()
	vocab = filepath.Join(dir, "vocab.txt")
	words := "[SEP]\n[CLS]\n[MASK]\n[PAD]\n[UNK]\n"
	for i := range 20 {
		words += fmt.Sprintf("%c\n", '一'+i)
	}
	var ids strings.Builder
	for i := range n {
		fmt.Fprintf(&ids, "%d ", 5+(i*i/3+i)%20)
	}
	write(t, vocab, words)
	write(t, filepath.Join(dir, "tokenized_train_0.txt"), ids.String())
	return dir, vocab
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

// testOptions train a tiny model for two epochs, dropout on.
func testOptions(t testing.TB, tokens int) train.Options {
	o := train.DefaultOptions()
	o.Data, o.Vocab = writeTokens(t, tokens)
	o.Out = filepath.Join(t.TempDir(), "out")
	o.Config = model.Config{NPositions: 16, NCtx: 16, NEmbd: 16, NHead: 2, NLayer: 2,
		LayerNormEpsilon: 1e-5, InitializerRange: 0.1, EmbdDrop: 0.1, AttnDrop: 0.1, ResidDrop: 0.1}
	o.Epochs, o.LR, o.Seed = 2, 1e-2, 7
	return o
}

// recorder notes what a run tells.
type recorder struct {
	steps   []train.StepInfo
	vals    []train.ValidationInfo
	samples []train.SampleInfo
	saved   []string
	notices []string
	warned  []string
	onStep  func(train.StepInfo)
}

func (r *recorder) Step(s train.StepInfo) {
	r.steps = append(r.steps, s)
	if r.onStep != nil {
		r.onStep(s)
	}
}
func (r *recorder) Validation(v train.ValidationInfo) { r.vals = append(r.vals, v) }
func (r *recorder) Sample(s train.SampleInfo)         { r.samples = append(r.samples, s) }
func (r *recorder) Saved(dir string)                  { r.saved = append(r.saved, filepath.Base(dir)) }
func (r *recorder) Notice(s string)                   { r.notices = append(r.notices, s) }
func (r *recorder) Warning(s string)                  { r.warned = append(r.warned, s) }

func mustRun(t testing.TB, o train.Options, obs train.Observer) *train.Result {
	t.Helper()
	res, err := train.Run(context.Background(), o, obs)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func weights(t testing.TB, out string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(train.FinalModel(out), "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A run takes the steps it says, learns, and leaves a usable model after each
// epoch and at the end.
func TestRun(t *testing.T) {
	o := testOptions(t, 16*20+5) // 21 windows: steps of 8, 8 and 5
	var rec recorder
	res := mustRun(t, o, &rec)
	if res.Steps != 6 || len(rec.steps) != 6 || res.Tokens != 2*21*16 {
		t.Errorf("%d steps, %d told, %d tokens", res.Steps, len(rec.steps), res.Tokens)
	}
	if want := "model_epoch1 model_epoch2 final_model"; strings.Join(rec.saved, " ") != want {
		t.Errorf("saved %v", rec.saved)
	}
	if first := rec.steps[0].Loss; !(res.FinalLoss < first-0.1) || math.Abs(first-math.Log(25)) > 1 {
		t.Errorf("loss from %v to %v", first, res.FinalLoss)
	}
	b, err := os.ReadFile(filepath.Join(o.Out, "metrics.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	var info runlog.Line
	if len(lines) != 6 || json.Unmarshal(lines[5], &info) != nil || info.Step != 6 || *info.Loss != rec.steps[5].Loss {
		t.Errorf("metrics.jsonl:\n%s", b)
	}
	if entries, _ := os.ReadDir(filepath.Join(o.Out, "state")); len(entries) == 0 {
		t.Error("no state was saved")
	}
}

// heldOutOptions are testOptions on characters of which a part is held out.
func heldOutOptions(t testing.TB) train.Options {
	t.Helper()
	o := testOptions(t, 1)
	words, text := []string{"[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]"}, ""
	for i := range 600 {
		if i < 20 {
			words = append(words, string(rune('一'+i)))
		}
		text += string(rune('一' + (i*i/7+i)%20))
		if i%30 == 29 {
			text += "\n\n"
		}
	}
	corpus := filepath.Join(t.TempDir(), "corpus.txt")
	write(t, corpus, text)
	v, err := tokenizer.NewVocab(words)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.New(v, tokenizer.Options{Level: tokenizer.LevelChar})
	if err != nil {
		t.Fatal(err)
	}
	o.Data = filepath.Join(t.TempDir(), "tokens")
	if _, err := data.Tokenize(context.Background(), data.TokenizeOptions{Corpus: []string{corpus}, Out: o.Data, Tokenizer: tok, ValFraction: 0.3}); err != nil {
		t.Fatal(err)
	}
	return o
}

// Documents held out are validated on after each epoch and when asked for; what
// is told, written down and returned is what Evaluate says of the saved model.
func TestRunValidates(t *testing.T) {
	o := heldOutOptions(t)
	o.BatchSize, o.EvalEvery = 2, 2
	var rec recorder
	res := mustRun(t, o, &rec)
	perEpoch := res.Steps / o.Epochs
	if want := o.Epochs * ((perEpoch-1)/2 + 1); len(rec.vals) != want {
		t.Errorf("%d validations in %d steps, want %d", len(rec.vals), res.Steps, want)
	}
	m, err := checkpoint.Load(res.Model, checkpoint.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	set, err := data.OpenSet(o.Data)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	cpu, err := kernel.New(kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cpu.Close()
	want, err := train.Evaluate(context.Background(), cpu, m.Params, set.Val)
	if err != nil {
		t.Fatal(err)
	}
	last := rec.vals[len(rec.vals)-1]
	if res.ValLoss == nil || *res.ValLoss != last.Loss || math.Abs(last.Loss-want.Loss) > 1e-6 || last.Step != res.Steps || last.Epoch != o.Epochs {
		t.Errorf("last validation %+v, want %+v", last, want)
	}
	if m.Meta.Training == nil || m.Meta.Training.ValLoss != last.Loss || m.Meta.Training.Steps != int64(res.Steps) {
		t.Errorf("promptgen.json says %+v", m.Meta.Training)
	}
	metrics, _ := os.ReadFile(filepath.Join(o.Out, "metrics.jsonl"))
	if n := bytes.Count(metrics, []byte(`"val_loss"`)); n != len(rec.vals) {
		t.Errorf("%d validation lines:\n%s", n, metrics)
	}
}

// The weights are equal to the bit whatever the threads and however the
// effective batch is cut into micro-batches, with values computed again, with
// moments in either format.
func TestRunRepeatable(t *testing.T) {
	o := testOptions(t, 16*20)
	var wide []byte
	for _, o.OptimizerBF16 = range []bool{false, true} {
		o.Out = filepath.Join(t.TempDir(), "out")
		o.BatchSize, o.GradAccum, o.Recompute = 8, 1, plan.Off
		mustRun(t, o, train.Silent{})
		want := weights(t, o.Out)
		if bytes.Equal(want, wide) {
			t.Error("the moments' format changes nothing")
		}
		wide = want
		for _, v := range []struct{ batch, accum, threads int }{{8, 1, 3}, {1, 8, 1}, {2, 4, 2}} {
			o.Out = filepath.Join(t.TempDir(), "again")
			o.BatchSize, o.GradAccum, o.Threads, o.Recompute = v.batch, v.accum, v.threads, plan.On
			mustRun(t, o, train.Silent{})
			if !bytes.Equal(weights(t, o.Out), want) {
				t.Errorf("%+v: other weights", v)
			}
		}
	}
	o.Seed++
	o.Out = filepath.Join(t.TempDir(), "other")
	mustRun(t, o, train.Silent{})
	if bytes.Equal(weights(t, o.Out), wide) {
		t.Error("another seed gives the same weights")
	}
}

// A run that is interrupted, at an epoch's end or within one, and goes on ends
// with the weights and the figures of one that was not.
func TestResumeEqualsUninterrupted(t *testing.T) {
	o := testOptions(t, 16*20)
	var whole recorder
	want := mustRun(t, o, &whole)
	wantWeights := weights(t, o.Out)

	o.Out = filepath.Join(t.TempDir(), "interrupted")
	var seen []train.StepInfo
	for _, stop := range []int{2, 3, 5} {
		ctx, cancel := context.WithCancel(context.Background())
		rec := recorder{onStep: func(s train.StepInfo) {
			if s.Step == stop {
				cancel()
			}
		}}
		_, err := train.Run(ctx, o, &rec)
		if fault.Code(err) != fault.CodeInterrupted {
			t.Fatalf("stopped at step %d: %v", stop, err)
		}
		seen = append(seen, rec.steps...)
	}
	var rec recorder
	got := mustRun(t, o, &rec)
	seen = append(seen, rec.steps...)
	if !bytes.Equal(weights(t, o.Out), wantWeights) {
		t.Error("other weights")
	}
	if got.FinalLoss != want.FinalLoss || got.Steps != want.Steps || got.Tokens != want.Tokens {
		t.Errorf("%+v, want %+v", got, want)
	}
	if len(seen) != len(whole.steps) {
		t.Fatalf("%d steps, want %d", len(seen), len(whole.steps))
	}
	for i, s := range seen {
		w := whole.steps[i]
		if s.Step != w.Step || s.Epoch != w.Epoch || s.Loss != w.Loss || s.LR != w.LR || s.GradNorm != w.GradNorm || s.Tokens != w.Tokens {
			t.Errorf("step %+v, want %+v", s, w)
		}
	}
	lines, _ := os.ReadFile(filepath.Join(o.Out, "metrics.jsonl"))
	if n := bytes.Count(lines, []byte("\n")); n != len(seen) {
		t.Errorf("%d lines of metrics for %d steps", n, len(seen))
	}

	o.LR *= 2
	if _, err := train.Run(context.Background(), o, train.Silent{}); fault.Code(err) != fault.CodeUsage {
		t.Errorf("a state of another run was taken: %v", err)
	}
	o.Resume, o.MaxSteps = "never", 1
	mustRun(t, o, train.Silent{})
}

// Data that allows no step is refused with what to change, and nothing is left.
func TestRunRefusesDataWithoutAStep(t *testing.T) {
	o := testOptions(t, 10)
	_, err := train.Run(context.Background(), o, train.Silent{})
	if fault.Code(err) != fault.CodeData || !strings.Contains(err.Error(), "n_ctx") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(o.Out); err == nil {
		t.Error("an output folder was made")
	}
}

// A rate that breaks the model ends the run after three skipped steps, names
// the tensor, and writes no final model.
func TestRunStopsWhenNotFinite(t *testing.T) {
	o := testOptions(t, 16*80)
	o.LR, o.WarmupSteps, o.MaxGradNorm = 1e6, 0, 0
	o.Config.InitializerRange = 9
	o.Config.NLayer = 3
	o.WeightDecay = 1 // w -= lr*w: grows a millionfold each step
	var rec recorder
	_, err := train.Run(context.Background(), o, &rec)
	if fault.Code(err) != fault.CodeFailed || !strings.Contains(err.Error(), "lower --lr") {
		t.Fatalf("%v", err)
	}
	last := rec.steps[len(rec.steps)-1]
	if !last.Skipped || len(rec.notices) < 3 {
		t.Errorf("last step %+v, notices %q", last, rec.notices)
	}
	if _, err := os.Stat(train.FinalModel(o.Out)); err == nil {
		t.Error("a final model was written")
	}
}

// Every fault of the options is named at once.
func TestOptionsValidate(t *testing.T) {
	o := train.Options{Config: model.Config{NEmbd: 7, NHead: 2}, Epochs: -1, LR: math.NaN(), Schedule: "step"}
	err := o.Validate()
	if fault.Code(err) != fault.CodeUsage {
		t.Fatal(err)
	}
	for _, want := range []string{"n_ctx", "multiple of n_head", "epochs", "lr", "schedule", "data", "out"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}

// Training from a finished model starts at its loss, not at random.
func TestInitFrom(t *testing.T) {
	o := testOptions(t, 16*40)
	o.Epochs = 6
	first := mustRun(t, o, train.Silent{})
	o.InitFrom, o.Out, o.Epochs = first.Model, filepath.Join(t.TempDir(), "second"), 1
	var rec recorder
	mustRun(t, o, &rec)
	if rec.steps[0].Loss > first.FinalLoss+0.3 {
		t.Errorf("starts at %v, the model was at %v", rec.steps[0].Loss, first.FinalLoss)
	}
	// Weights that are no numbers are a fault of the model, not of the training.
	bad, err := checkpoint.Load(first.Model, checkpoint.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bad.Params.Tensors[3].Data = slices.Clone(bad.Params.Tensors[3].Data)
	bad.Params.Tensors[3].Data[1] = float32(math.NaN())
	o.InitFrom, o.Out = filepath.Join(t.TempDir(), "bad"), filepath.Join(t.TempDir(), "from bad")
	if err := checkpoint.Save(t.Context(), o.InitFrom, bad); err != nil {
		t.Fatal(err)
	}
	bad.Close()
	if _, err := train.Run(t.Context(), o, train.Silent{}); fault.Code(err) != fault.CodeCorrupt || !strings.Contains(err.Error(), bad.Params.Tensors[3].Name) {
		t.Errorf("NaN in %s: %v", bad.Params.Tensors[3].Name, err)
	}
	o.InitFrom = first.Model
	// A smaller shape and another vocabulary begin better than new weights.
	o.Out, o.Config.NCtx, o.Config.NPositions, o.Config.NLayer = filepath.Join(t.TempDir(), "smaller"), 8, 8, 1
	o.Vocab = filepath.Join(t.TempDir(), "vocab.txt")
	words, err := os.ReadFile(filepath.Join(o.Data, "vocab.txt"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, o.Vocab, string(words)+"新\n")
	rec = recorder{}
	mustRun(t, o, &rec)
	if guess := math.Log(26); rec.steps[0].Loss > guess-0.3 {
		t.Errorf("the smaller model starts at %v, guessing is %v", rec.steps[0].Loss, guess)
	}
	told := strings.Join(rec.notices, " ")
	for _, want := range []string{"positions 16 to 8", "layers 2 to 1", "25 tokens are carried, 1 are new"} {
		if !strings.Contains(told, want) {
			t.Errorf("%q is not told: %q", want, told)
		}
	}
	o.Config.NEmbd, o.Out = 32, filepath.Join(t.TempDir(), "third")
	if _, err := train.Run(context.Background(), o, train.Silent{}); fault.Code(err) != fault.CodeUsage {
		t.Errorf("a model of another shape was taken: %v", err)
	}
}

// A run that starts afresh where another has left models tells of each that it
// may leave there: nobody shall take it for its own. It removes none.
func TestFormerModelsAreTold(t *testing.T) {
	o := heldOutOptions(t)
	var rec recorder
	mustRun(t, o, &rec)
	if len(rec.warned) > 0 {
		t.Errorf("in a new folder: %q", rec.warned)
	}
	o.Resume, o.Epochs = "never", 1
	mustRun(t, o, &rec)
	told := strings.Join(rec.warned, "\n")
	for _, name := range []string{o.Out, "best_model", "final_model", "model_epoch1", "model_epoch2"} {
		if !strings.Contains(told, name) {
			t.Errorf("no %s in %q", name, told)
		}
	}
	if _, err := os.Stat(train.EpochModel(o.Out, 2)); err != nil {
		t.Errorf("removed: %v", err)
	}
}

// A run in bf16 on kernels that do not multiply it says so, once.
func TestBF16WithoutItsProducts(t *testing.T) {
	o := testOptions(t, 16*20)
	for _, isa := range kernel.ISAs() {
		for _, dt := range []kernel.DType{kernel.FP32, kernel.BF16} {
			o.ISA, o.DType, o.Out = isa, dt, filepath.Join(t.TempDir(), "out")
			var rec recorder
			mustRun(t, o, &rec)
			told := 0
			for _, line := range rec.notices {
				if strings.HasPrefix(line, "bf16: ") {
					told++
				}
			}
			want := 0
			if dt == kernel.BF16 && isa != "avx512bf16" {
				want = 1
			}
			if told != want {
				t.Errorf("%s, %v: told %d times, %q", isa, dt, told, rec.notices)
			}
		}
	}
}

// A run that steps end, not epochs, is as quick to begin whatever the epochs; and a
// warm-up that it never leaves is told.
func TestStepsEndManyEpochs(t *testing.T) {
	o := testOptions(t, 16*20)
	o.Epochs, o.MaxSteps, o.WarmupSteps = 1_000_000_000, 2, 2
	var rec recorder
	if res := mustRun(t, o, &rec); res.Steps != 2 {
		t.Errorf("%d steps", res.Steps)
	}
	if len(rec.warned) != 1 || !strings.Contains(rec.warned[0], "never reaches its peak") {
		t.Errorf("warnings: %q", rec.warned)
	}
	o.Epochs++
	if err := o.Validate(); fault.Code(err) != fault.CodeUsage {
		t.Errorf("more epochs than steps can be counted: %v", err)
	}
}
