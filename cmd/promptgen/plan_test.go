package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/internal/sysmem"
)

// A plan's parts make up its total, and each means that it names is worth what
// it says.
func TestPlan(t *testing.T) {
	s := newShell(t)
	s.write("tiny.json", tinyConfig)
	plan := func(args ...string) planReport {
		t.Helper()
		return decode[planReport](t, s.ok(append([]string{"plan", "--json", "--quiet", "--threads", "2"}, args...)...).out)
	}
	r := plan("--config", "tiny.json", "--batch-size", "4", "--grad-accum", "2", "--vocab-size", "100", "--dtype", "bf16", "--max-memory", "2GiB")
	p := r.Parts
	if sum := p.Weights + p.Gradients + p.Optimizer + p.Activations + p.Workspace + p.Runtime; sum != r.Planned || p.Optimizer != 2*p.Weights {
		t.Errorf("parts of %d bytes, planned %d: %+v", sum, r.Planned, p)
	}
	if s := r.Settings; s.MicroBatch != 4 || s.EffectiveBatch != 8 || s.DType != "bf16" || s.Recompute != "off" || !r.Fits || r.Limit != 2<<30 {
		t.Errorf("%+v", r)
	}
	if smaller := plan("--config", "tiny.json", "--vocab-size", "100", "--batch-size", "1", "--dtype", "bf16", "--max-memory", "2GiB"); r.Levers[0].Name != "micro-batches of 1" ||
		r.Levers[0].Saves != r.Planned-smaller.Planned {
		t.Errorf("%+v, and micro-batches of 1 take %d of %d bytes", r.Levers, smaller.Planned, r.Planned)
	}
	if all := plan("--config", "tiny.json", "--recompute", "on"); all.Settings.Recompute == "off" || all.Settings.RecomputeLayers != 1 {
		t.Errorf("--recompute on: %+v", all.Settings)
	}

	text := s.ok("plan", "--config", "small", "--batch-size", "8", "--max-memory", "3GiB", "--dtype", "bf16").out
	for _, want := range []string{"planned peak", "fits 3.00 GiB", "recompute", "would save"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	s.fails(fault.CodeUsage, []string{"--batch-size", "--grad-accum", "--recompute", "--max-memory", "--vocab-size"},
		"plan", "--batch-size", "0", "--grad-accum", "70000", "--recompute", "maybe", "--max-memory", "much", "--vocab-size", "-1")
}

// What fits nowhere ends with code 4 and one line that names the nearest config
// that does; it is written, and the same limit takes it.
func TestPlanThatDoesNotFit(t *testing.T) {
	s := newShell(t)
	limit := []string{"--max-memory", "300MiB", "--quiet"}
	o := s.run(append([]string{"plan", "--config", "small", "--write-config", "fits.json"}, limit...)...)
	if o.code != fault.CodeMemory || !strings.Contains(o.out, "would fit") || !strings.Contains(o.err, "n_embd") || !strings.Contains(o.err, "; train --shrink takes the first") || strings.Count(o.err, "\n") != 1 {
		t.Fatalf("code %d, %s%s", o.code, o.out, o.err)
	}
	if b, err := os.ReadFile("fits.json"); err != nil || strings.Contains(string(b), `"vocab_size": 21128`) {
		t.Errorf("%v: %s", err, b)
	}
	s.ok(append([]string{"plan", "--config", "fits.json"}, limit...)...)
}

// --max-memory of a training: what is too large is refused before the first
// step, and --shrink trains what fits.
func TestTrainShrinks(t *testing.T) {
	s := newShell(t)
	s.write("corpus.txt", strings.Repeat(corpus(), 2))
	s.write("deep.json", `{"n_ctx": 32, "n_embd": 256, "n_head": 4, "n_layer": 12, "n_positions": 32}`)
	s.ok("vocab", "--corpus", "corpus.txt", "--quiet")
	s.ok("tokenize", "--corpus", "corpus.txt", "--quiet")
	args := []string{"train", "--config", "deep.json", "--epochs", "1", "--batch-size", "1", "--max-memory", "100MiB", "--write-config", "fits.json"}
	s.fails(fault.CodeMemory, []string{"100 MiB are allowed", "n_layer"}, args...)
	s.absent("model/final_model")
	o := s.ok(append(args, "--shrink", "--json", "--quiet")...)
	if planned := number(t, o.out, "planned_peak_bytes"); planned <= 0 || planned > 100<<20 {
		t.Errorf("planned %s", o.out)
	}
	if o := s.ok("inspect", "model/final_model", "--json"); strings.Contains(o.out, `"n_layer": 12`) {
		t.Errorf("not smaller: %s", o.out)
	}
}

// A training keeps within 90 % of what is usable, also where next to nothing is
// left: 0 would be no limit. What doctor says fits is judged by the same.
func TestDefaultLimit(t *testing.T) {
	for usable, want := range map[int64]int64{0: 0, 1: 1, 1000: 900} {
		if got := defaultLimit(sysmem.Usable{Bytes: usable}); got != want {
			t.Errorf("%d of %d usable bytes", got, usable)
		}
	}
	judged := func(usable int64) preset {
		p, err := (&diagnosis{Usable: 1, Memory: sysmem.Usable{Bytes: usable}}).judge("mini", 0.5)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	least := judged(1).TrainBytes
	for share, fits := range map[float64]bool{1.02: false, 1.09: false, 1.12: true} {
		if p := judged(int64(share * float64(least))); p.Fits != fits {
			t.Errorf("with %g times the least that a training takes: fits %v", share, p.Fits)
		}
	}
}

// --save-every takes steps, or a time.
func TestSaveEvery(t *testing.T) {
	for text, want := range map[string]string{"100": "100 0s", "10m": "0 10m0s", "1h30m": "0 1h30m0s"} {
		var faults fault.List
		steps, interval := saveEvery(&faults, text)
		if got := fmt.Sprint(steps, " ", interval); got != want || len(faults) != 0 {
			t.Errorf("--save-every %s: %s, %v", text, got, faults)
		}
	}
	var faults fault.List
	if saveEvery(&faults, "often"); len(faults) != 1 || !strings.Contains(faults.Err("").Error(), `"often"`) {
		t.Errorf("%v", faults)
	}
}
