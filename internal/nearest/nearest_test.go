package nearest

import "testing"

// A typing slip must be answered with the word that was meant.
func TestOf(t *testing.T) {
	words := []string{"epochs", "batch-size", "lr", "log-every", "n_embd", "n_head"}
	for typed, want := range map[string]string{
		"epoch": "epochs", "epcohs": "epochs", "batchsize": "batch-size",
		"n_emdb": "n_embd", "n_heads": "n_head", "log-evry": "log-every", "lr": "lr",
	} {
		if got := Of(typed, words); got != want {
			t.Errorf("Of(%q) = %q, want %q", typed, got, want)
		}
	}
	if got := Of("x", nil); got != "" {
		t.Errorf("no words: %q", got)
	}
}
