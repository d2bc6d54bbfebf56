package model

import (
	"promptgen/internal/fault"
)

// Activation is the MLP's non-linearity, by its Hugging Face name.
type Activation string

// The activations that GPT-2 files use.
const (
	GELUNew Activation = "gelu_new" // tanh approximation, GPT-2's own
	GELU    Activation = "gelu"     // exact, by the error function
	ReLU    Activation = "relu"
)

// Config is the shape of a GPT-2 and the few constants of its arithmetic. The
// JSON names are those of Hugging Face's config.json and of the original's
// model_config_*.json.
type Config struct {
	VocabSize  int `json:"vocab_size,omitempty"` // 0: taken from the data
	NPositions int `json:"n_positions"`          // rows of the position table, >= NCtx
	NCtx       int `json:"n_ctx"`                // tokens the model sees at once
	NEmbd      int `json:"n_embd"`               // width of the residual stream
	NHead      int `json:"n_head"`
	NLayer     int `json:"n_layer"`
	NInner     int `json:"n_inner,omitempty"` // width of the MLP; 0: 4*NEmbd

	Activation       Activation `json:"activation_function,omitempty"` // empty: gelu_new
	LayerNormEpsilon float64    `json:"layer_norm_epsilon"`
	InitializerRange float64    `json:"initializer_range"`

	EmbdDrop  float64 `json:"embd_pdrop"`
	AttnDrop  float64 `json:"attn_pdrop"`
	ResidDrop float64 `json:"resid_pdrop"`
}

// Limits of a Config: above them a file is broken or hostile, not large.
const (
	maxDim   = 1 << 22 // any width, length or vocabulary
	maxLayer = 1 << 12
)

// Inner is the width of the MLP's hidden layer.
func (c Config) Inner() int {
	if c.NInner > 0 {
		return c.NInner
	}
	return 4 * c.NEmbd
}

// HeadDim is the width of one attention head.
func (c Config) HeadDim() int { return c.NEmbd / c.NHead }

// Act is the activation with its default filled in.
func (c Config) Act() Activation {
	if c.Activation == "" {
		return GELUNew
	}
	return c.Activation
}

// Faults lists everything that is wrong with the config; vocab_size 0 (not yet
// known) is no fault here.
func (c Config) Faults() fault.List {
	var l fault.List
	size := func(name string, v, limit int) {
		if v < 1 || v > limit {
			l.Addf("%s must be between 1 and %d, not %d", name, limit, v)
		}
	}
	size("n_positions", c.NPositions, maxDim)
	size("n_ctx", c.NCtx, maxDim)
	size("n_embd", c.NEmbd, maxDim)
	size("n_head", c.NHead, maxDim)
	size("n_layer", c.NLayer, maxLayer)
	if c.VocabSize < 0 || c.VocabSize > maxDim {
		l.Addf("vocab_size must be between 1 and %d, not %d", maxDim, c.VocabSize)
	}
	if c.NInner < 0 || c.NInner > maxDim {
		l.Addf("n_inner must be between 1 and %d, not %d", maxDim, c.NInner)
	}
	if c.NHead > 0 && c.NEmbd > 0 && c.NEmbd%c.NHead != 0 {
		l.Addf("n_embd (%d) must be a multiple of n_head (%d)", c.NEmbd, c.NHead)
	}
	if c.NCtx > 0 && c.NPositions > 0 && c.NPositions < c.NCtx {
		l.Addf("n_positions (%d) must not be smaller than n_ctx (%d)", c.NPositions, c.NCtx)
	}
	switch c.Act() {
	case GELUNew, GELU, ReLU:
	default:
		l.Addf("activation_function %q is not known: use gelu_new, gelu or relu", c.Activation)
	}
	if !(c.LayerNormEpsilon > 0 && c.LayerNormEpsilon < 1) {
		l.Addf("layer_norm_epsilon must be between 0 and 1, not %g", c.LayerNormEpsilon)
	}
	if !(c.InitializerRange >= 0 && c.InitializerRange < 10) {
		l.Addf("initializer_range must be between 0 and 10, not %g", c.InitializerRange)
	}
	drop := func(name string, p float64) {
		if !(p >= 0 && p < 1) {
			l.Addf("%s must be at least 0 and below 1, not %g", name, p)
		}
	}
	drop("embd_pdrop", c.EmbdDrop)
	drop("attn_pdrop", c.AttnDrop)
	drop("resid_pdrop", c.ResidDrop)
	return l
}
