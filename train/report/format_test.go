package report

import "testing"

// A report names a run's options as the flags that set them, with their values
// as they are written there; what is off is left out.
func TestOptionsAreShownAsFlags(t *testing.T) {
	_, rest, err := settings([]byte(`{"Config":{"n_ctx":8},"BatchSize":4,"DType":2,"OptimizerBF16":true,"MaxMemory":3221225472,"LR":0.001,"Stride":0,
		"SamplePrompts":["春","夏"],"Dist":{"Mode":"auto","Timeout":120000000000},"LoRA":{"rank":8,"targets":["c_attn","c_fc"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"batch-size": "4", "dtype": "bf16", "optimizer-state": "bf16", "max-memory": "3.00 GiB", "lr": "0.001",
		"sample-prompt": "春, 夏", "dist": "auto", "dist-timeout": "2m0s", "lora-rank": "8", "lora-target": "c_attn, c_fc"}
	for _, f := range rest {
		if want[f.Key] != f.Value {
			t.Errorf("%s is shown as %q, not %q", f.Key, f.Value, want[f.Key])
		}
		delete(want, f.Key)
	}
	if len(want) > 0 {
		t.Errorf("not shown: %v", want)
	}
}
