package nearest

import "testing"

// A typing slip must be answered with the word that was meant.
func TestOf(t *testing.T) {
	words := []string{"epochs", "batch-size", "lr", "log-every", "n_embd", "n_head"}
	for typed, want := range map[string]string{
		"epoch": "epochs", "epcohs": "epochs", "batchsize": "batch-size",
		"n_emdb": "n_embd", "n_heads": "n_head", "log-evry": "log-every", "lr": "lr",
		"N_HEAD": "n_head", "Batch_Size": "batch-size",
	} {
		if got := Of(typed, words); got != want {
			t.Errorf("Of(%q) = %q, want %q", typed, got, want)
		}
	}
	if got := Of("x", nil); got != "" {
		t.Errorf("no words: %q", got)
	}
}

// A word that is far from all must not be answered with any: the reader would
// look for a connection that is not there.
func TestNear(t *testing.T) {
	words := []string{"n_ctx", "n_layer", "epochs", "device"}
	for typed, want := range map[string]string{
		"N_LAYER": "n_layer", "n_layers": "n_layer", "epoch": "epochs", "n_cxt": "n_ctx",
		"lr": "", "num-pieces": "", "colour": "", "": "",
	} {
		if got := Near(typed, words); got != want {
			t.Errorf("Near(%q) = %q, want %q", typed, got, want)
		}
	}
	if got := Near("x", nil); got != "" {
		t.Errorf("no words: %q", got)
	}
}
