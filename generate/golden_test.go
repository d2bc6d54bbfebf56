package generate

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"promptgen/internal/kernel"
)

// The golden tests read testdata/gpt2_golden, computed by transformers 2.1.1 on
// PyTorch, or the folder of the same layout that PROMPTGEN_GOLDEN names. Every
// size comes from the files.

func TestGoldenFilter(t *testing.T) {
	dir := goldenDir()
	raw, probs := readNPY[float32](t, dir, "filter_logits.npy"), readNPY[float32](t, dir, "filter_probs.npy")
	vocab := raw.shape[1]
	var cases []struct {
		Row, TopK   int
		TopP        float64
		Temperature float64
		Kept        []int32
	}
	var fields []map[string]json.RawMessage
	b, err := os.ReadFile(filepath.Join(dir, "filter_cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &fields); err != nil {
		t.Fatal(err)
	}
	cases = slices.Grow(cases, len(fields))[:len(fields)]
	for i, f := range fields {
		for key, to := range map[string]any{
			"row": &cases[i].Row, "top_k": &cases[i].TopK, "top_p": &cases[i].TopP,
			"temperature": &cases[i].Temperature, "kept": &cases[i].Kept,
		} {
			if err := json.Unmarshal(f[key], to); err != nil {
				t.Fatalf("case %d, %s: %v", i, key, err)
			}
		}
	}
	cpu := newCPU(t, 1)
	for _, c := range cases {
		row := filtered(newSampler(cpu, vocab), raw.data[c.Row*vocab:][:vocab], limits{temperature: c.Temperature, topK: c.TopK, topP: c.TopP})
		var kept []int32
		norm := logSumExp(row)
		for id, x := range row {
			if !math.IsInf(float64(x), -1) {
				kept = append(kept, int32(id))
			}
			got, want := math.Exp(float64(x)-norm), float64(probs.data[c.Row*vocab+id])
			if math.Abs(got-want) > 1e-5 {
				t.Errorf("row %d, token %d: probability %g, want %g", c.Row, id, got, want)
			}
		}
		if !slices.Equal(kept, c.Kept) {
			t.Errorf("row %d (top_k %d, top_p %g, temperature %g): kept %v, want %v",
				c.Row, c.TopK, c.TopP, c.Temperature, kept, c.Kept)
		}
	}
}

// Greedy decoding with the cache: the same tokens, and the logits that chose
// them within 1e-4.
func TestGoldenGreedy(t *testing.T) {
	dir := goldenDir()
	p := loadGolden(t, dir)
	prefix := readNPY[int32](t, dir, "gen_prefix.npy").data
	tokens := readNPY[int32](t, dir, "gen_tokens.npy").data
	logits := readNPY[float32](t, dir, "gen_logits.npy")
	cpu := newCPU(t, 0)

	f := newTestForwarder(t, cpu, p, kernel.FP32)
	var c cache
	steps := [][]int32{prefix[:len(prefix)-1]}
	for i := len(prefix) - 1; i < len(tokens)-1; i++ {
		steps = append(steps, tokens[i:i+1])
	}
	for i, ids := range steps {
		got := f.run([]segment{{&c, ids}})
		if i == 0 {
			continue
		}
		want := logits.data[(i-1)*logits.shape[1]:][:logits.shape[1]]
		if d := maxDiff(got, want); d > 1e-4 {
			t.Errorf("step %d: logits differ by %g", i, d)
		}
	}

	e := newEngine(t, p, cpu, EngineOptions{})
	r, err := e.Generate(t.Context(), Request{PromptIDs: prefix, Length: len(tokens) - len(prefix), Greedy: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Samples[0].Tokens; !slices.Equal(got, tokens[len(prefix):]) {
		t.Errorf("greedy tokens %v, want %v", got, tokens[len(prefix):])
	}
}

func maxDiff(a, b []float32) float64 {
	worst := 0.0
	for i := range a {
		d := math.Abs(float64(a[i] - b[i]))
		if !(d <= worst) { // NaN too
			worst = d
		}
	}
	return worst
}

func newCPU(t testing.TB, threads int) *kernel.CPU {
	t.Helper()
	cpu, err := kernel.New(kernel.Options{Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cpu.Close)
	return cpu
}
