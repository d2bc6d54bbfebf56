package train_test

import (
	"math"
	"testing"

	"promptgen/train"
)

// Clipping shortens a gradient that is too long to the limit and leaves every
// other as it is.
func TestClipScale(t *testing.T) {
	for _, c := range []struct{ norm, limit, want float64 }{
		{0.5, 1, 1}, {1, 0, 1}, {100, 0, 1}, {0, 1, 1}, {4, 1, 0.25}, {3, 1.5, 0.5},
	} {
		if got := train.ClipScale(c.norm, c.limit); math.Abs(got-c.want) > 1e-6 {
			t.Errorf("a norm of %g under a limit of %g: %g, want %g", c.norm, c.limit, got, c.want)
		}
	}
}
