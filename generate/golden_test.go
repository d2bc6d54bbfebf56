package generate

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"promptgen/internal/kernel"
	"promptgen/internal/testkit"
)

// The golden numbers were computed by transformers 2.1.1 on PyTorch. Every size
// comes from the files.

func TestGoldenFilter(t *testing.T) {
	dir := testkit.Golden(t)
	raw, probs := testkit.ReadNPY(t, dir, "filter_logits.npy").Floats, testkit.ReadNPY(t, dir, "filter_probs.npy")
	vocab := probs.Shape[1]
	var cases []struct {
		Row         int
		TopK        int     `json:"top_k"`
		TopP        float64 `json:"top_p"`
		Temperature float64
		Kept        []int32
	}
	testkit.ReadJSON(t, &cases, dir, "filter_cases.json")
	cpu := newCPU(t, 1)
	for _, c := range cases {
		row := filtered(newSampler(cpu, vocab), raw[c.Row*vocab:][:vocab], limits{temperature: c.Temperature, topK: c.TopK, topP: c.TopP})
		var kept []int32
		norm := logSumExp(row)
		for id, x := range row {
			if !math.IsInf(float64(x), -1) {
				kept = append(kept, int32(id))
			}
			got, want := math.Exp(float64(x)-norm), float64(probs.Floats[c.Row*vocab+id])
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
	dir := testkit.Golden(t)
	p := loadModel(t, dir)
	prefix := testkit.ReadNPY(t, dir, "gen_prefix.npy").Ints
	tokens := testkit.ReadNPY(t, dir, "gen_tokens.npy").Ints
	logits := testkit.ReadNPY(t, dir, "gen_logits.npy")
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
		want := logits.Floats[(i-1)*logits.Shape[1]:][:logits.Shape[1]]
		if d := testkit.MaxDiff(got, want); !(d <= 1e-4) {
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

// A model that nobody here made goes on as its makers say.
func TestThirdPartyGreedy(t *testing.T) {
	dir := filepath.Join(testkit.Root(t), "..", "shared", "fixtures", "third_party", "ort_tiny_random_gpt2")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("third-party model not beside the checkout: ", err)
	}
	e := newEngine(t, loadModel(t, dir), newCPU(t, 0), EngineOptions{})
	for _, c := range []struct{ prompt, want []int32 }{
		{[]int32{0, 0, 0, 52}, []int32{204, 204, 204, 204, 204, 204}},
		{[]int32{0, 0, 195, 731}, []int32{731, 114, 114, 114, 114, 114}},
	} {
		r, err := e.Generate(t.Context(), Request{PromptIDs: c.prompt, Length: len(c.want), Greedy: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Samples[0].Tokens; !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.prompt, got, c.want)
		}
	}
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
