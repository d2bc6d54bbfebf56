package bench

import (
	"context"
	"math"
	"testing"
	"time"

	"promptgen/internal/kernel"
	"promptgen/train"
)

// The work of a token, in GFLOP, is what peers' figures are counted with.
func TestTokenFlops(t *testing.T) {
	for name, want := range map[string]float64{"test": 0.0115, "mini": 0.116, "small256": 0.621, "small1024": 0.664} {
		s, err := LoadShape(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := TokenFlops(s.Config) / 1e9; math.Abs(got-want) > 0.01*want {
			t.Errorf("%s: %.4f GFLOP a token, want %.4f", name, got, want)
		}
	}
}

// A config without a vocabulary can be measured all the same.
func TestLoadShapeFillsInTheVocabulary(t *testing.T) {
	s, err := LoadShape("small")
	if err != nil || s.Config.VocabSize != DefaultVocab || s.Batch != defaultBatch {
		t.Errorf("small: %+v, %v", s, err)
	}
	if _, err := LoadShape("no such shape"); err == nil {
		t.Error("a name that is neither a shape nor a file was taken")
	}
}

// What is measured trains: the loss over the same few batches falls, and more
// steps than there are different batches can be taken.
func TestTrain(t *testing.T) {
	s, err := LoadShape("test")
	if err != nil {
		t.Fatal(err)
	}
	o := train.DefaultOptions()
	o.Config, o.BatchSize, o.LR, o.Threads, o.Seed = s.Config, 2, 1e-2, 2, 7
	o.Config.VocabSize, o.Config.NCtx = 50, 16
	const steps = 40
	r, err := Train(context.Background(), TrainOptions{Train: o, Steps: steps})
	if err != nil {
		t.Fatal(err)
	}
	if r.Steps != steps || r.Tokens != 32 || !(r.TokensPerSec > 0) || !(r.LimitGFlops > 0) || !(r.MFU > 0) {
		t.Errorf("result %+v", r)
	}
	if atFirst := math.Log(50); !(r.Loss < atFirst-0.1) {
		t.Errorf("loss %v after %d steps, %v at first", r.Loss, steps+warmSteps, atFirst)
	}
}

// A cancelled context ends a measurement.
func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s, _ := LoadShape("test")
	if _, err := Gemm(ctx, GemmOptions{Config: s.Config, Batch: 1, DType: kernel.BF16, Threads: 1}); err == nil {
		t.Error("went on")
	}
}

// So does one that is cancelled while it measures.
func TestCancelledWhileMeasuring(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	runs := 0
	if _, err := timeOf(ctx, 1000, func() { runs++; cancel() }); err == nil || runs > 1 {
		t.Errorf("%d runs, %v", runs, err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	b := &inferBench{ctx: ctx}
	runs = 0
	b.speeds(timed{1, func() time.Duration {
		if runs++; runs == repeats+1 { // the last
			cancel()
		}
		return 1
	}})
	if b.err == nil {
		t.Error("a run that was cut short counts")
	}
}

// Generation can be measured, and a smaller format reads less.
func TestInfer(t *testing.T) {
	s, err := LoadShape("test")
	if err != nil {
		t.Fatal(err)
	}
	s.Config.VocabSize = 70
	cpu, err := kernel.New(kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cpu.Close()
	bytes := 0
	for _, d := range []kernel.DType{kernel.BF16, kernel.Q4_0} {
		r, err := Infer(context.Background(), InferOptions{Config: s.Config, DType: d, CPU: cpu})
		if err != nil {
			t.Fatal(err)
		}
		if !(r.Prefill > 0 && r.Decode > 0 && r.DecodeLong > 0 && r.Batch5 > 0 && r.Request > 0 && r.LimitBytes > 0) {
			t.Errorf("%v: %+v", d, r)
		}
		if bytes > 0 && r.DecodeBytes >= bytes {
			t.Errorf("%v reads %d bytes a token, the larger format %d", d, r.DecodeBytes, bytes)
		}
		bytes = r.DecodeBytes
	}
}
