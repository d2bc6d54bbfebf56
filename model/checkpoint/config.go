package checkpoint

import (
	"encoding/json"
	"slices"

	"promptgen/internal/fault"
	"promptgen/model"
)

// hfConfig is config.json as transformers and its relatives write it. Pointers
// tell a missing key from a zero.
type hfConfig struct {
	Architectures []string `json:"architectures"`
	ModelType     *string  `json:"model_type"`

	VocabSize  *int `json:"vocab_size"`
	NPositions *int `json:"n_positions"`
	NCtx       *int `json:"n_ctx"`
	NEmbd      *int `json:"n_embd"`
	NHead      *int `json:"n_head"`
	NLayer     *int `json:"n_layer"`
	NInner     *int `json:"n_inner"`

	Activation       *string  `json:"activation_function"`
	LayerNormEpsilon *float64 `json:"layer_norm_epsilon"`
	InitializerRange *float64 `json:"initializer_range"`
	EmbdDrop         *float64 `json:"embd_pdrop"`
	AttnDrop         *float64 `json:"attn_pdrop"`
	ResidDrop        *float64 `json:"resid_pdrop"`

	BOS            tokenIDs `json:"bos_token_id"`
	EOS            tokenIDs `json:"eos_token_id"`
	PAD            tokenIDs `json:"pad_token_id"`
	TokenizerClass string   `json:"tokenizer_class"`

	Tied *bool `json:"tie_word_embeddings"`

	// What some GPT-2 variants have and this program does not.
	ScaleAttn      *bool           `json:"scale_attn_weights"`
	ScaleByLayer   *bool           `json:"scale_attn_by_inverse_layer_idx"`
	CrossAttention *bool           `json:"add_cross_attention"`
	Quantization   json.RawMessage `json:"quantization_config"`
}

// tokenIDs is a token id where files have a number, a list of them or null.
type tokenIDs []int64

func (t *tokenIDs) UnmarshalJSON(b []byte) error {
	*t = nil
	if string(b) == "null" {
		return nil
	}
	var one int64
	if json.Unmarshal(b, &one) == nil {
		*t = tokenIDs{one}
		return nil
	}
	return json.Unmarshal(b, (*[]int64)(t))
}

// first is the first id that a vocabulary of n tokens has, else NoToken: files
// that say nothing about their tokens carry GPT-2's 50256.
func (t tokenIDs) first(n int) int32 {
	for _, id := range t {
		if id >= 0 && id < int64(n) {
			return int32(id)
		}
	}
	return NoToken
}

// or is *p, or def where there is none.
func or[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}

// shape checks that the file describes a GPT-2 as this program computes it and
// returns its Config; what is missing gets the default it has in transformers.
func (h *hfConfig) shape(path string) (model.Config, error) {
	if err := h.refuse(path); err != nil {
		return model.Config{}, err
	}
	var missing fault.List
	need := func(key string, p *int) int {
		if p == nil {
			missing.Addf("%s is missing", key)
		}
		return or(p, 1)
	}
	c := model.Config{
		VocabSize: need("vocab_size", h.VocabSize),
		NEmbd:     need("n_embd", h.NEmbd),
		NHead:     need("n_head", h.NHead),
		NLayer:    need("n_layer", h.NLayer),
		NInner:    or(h.NInner, 0),

		Activation:       model.Activation(or(h.Activation, string(model.GELUNew))),
		LayerNormEpsilon: or(h.LayerNormEpsilon, 1e-5),
		InitializerRange: or(h.InitializerRange, 0.02),
		EmbdDrop:         or(h.EmbdDrop, 0.1),
		AttnDrop:         or(h.AttnDrop, 0.1),
		ResidDrop:        or(h.ResidDrop, 0.1),
	}
	c.NPositions = or(h.NPositions, or(h.NCtx, 0))
	c.NCtx = or(h.NCtx, c.NPositions)
	if c.VocabSize == 0 {
		missing.Addf("vocab_size must not be 0")
	}
	faults := append(missing, c.Faults()...)
	return c, fault.With(fault.CodeCorrupt, faults.Err(path))
}

// refuse names what this program does not have.
func (h *hfConfig) refuse(path string) error {
	kind := or(h.ModelType, "gpt2")
	switch {
	case kind != "gpt2":
		return fault.Corrupt("%s: describes a %q model, and this program reads GPT-2 (model_type gpt2) only", path, kind)
	case len(h.Architectures) > 0 && !slices.ContainsFunc(h.Architectures, isGPT2):
		return fault.Corrupt("%s: describes a %q, and this program reads GPT-2 language models only", path, h.Architectures[0])
	case !or(h.ScaleAttn, true):
		return fault.Corrupt("%s: scale_attn_weights false asks for attention without scaling, which this program does not have", path)
	case or(h.ScaleByLayer, false):
		return fault.Corrupt("%s: scale_attn_by_inverse_layer_idx is not supported; the model cannot be used here", path)
	case or(h.CrossAttention, false):
		return fault.Corrupt("%s: add_cross_attention is not supported; the model cannot be used here", path)
	case len(h.Quantization) > 0 && string(h.Quantization) != "null":
		return fault.Corrupt("%s: the weights are quantized (quantization_config); convert them to fp32, fp16 or bf16 first", path)
	}
	return nil
}

func isGPT2(arch string) bool {
	switch arch {
	case "GPT2LMHeadModel", "GPT2Model", "GPT2DoubleHeadsModel":
		return true
	}
	return false
}

// writtenConfig is config.json as this program writes it; the order of the
// fields is that of the file.
type writtenConfig struct {
	Architectures    []string         `json:"architectures"`
	ModelType        string           `json:"model_type"`
	VocabSize        int              `json:"vocab_size"`
	NPositions       int              `json:"n_positions"`
	NCtx             int              `json:"n_ctx"`
	NEmbd            int              `json:"n_embd"`
	NHead            int              `json:"n_head"`
	NLayer           int              `json:"n_layer"`
	NInner           *int             `json:"n_inner"`
	Activation       model.Activation `json:"activation_function"`
	ResidDrop        float64          `json:"resid_pdrop"`
	EmbdDrop         float64          `json:"embd_pdrop"`
	AttnDrop         float64          `json:"attn_pdrop"`
	LayerNormEpsilon float64          `json:"layer_norm_epsilon"`
	InitializerRange float64          `json:"initializer_range"`
	BOS              *int32           `json:"bos_token_id"`
	EOS              *int32           `json:"eos_token_id"`
	PAD              *int32           `json:"pad_token_id"`
	Tied             bool             `json:"tie_word_embeddings"`
	TorchDType       string           `json:"torch_dtype"`
	UseCache         bool             `json:"use_cache"`
}

// torchDTypes are PyTorch's names of the types that a folder's weights may have.
var torchDTypes = map[string]string{"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}

func (m *Model) config(dtype string) writtenConfig {
	c := m.Params.Config
	w := writtenConfig{
		Architectures: []string{"GPT2LMHeadModel"}, ModelType: "gpt2",
		VocabSize: c.VocabSize, NPositions: c.NPositions, NCtx: c.NCtx,
		NEmbd: c.NEmbd, NHead: c.NHead, NLayer: c.NLayer,
		Activation: c.Act(),
		ResidDrop:  c.ResidDrop, EmbdDrop: c.EmbdDrop, AttnDrop: c.AttnDrop,
		LayerNormEpsilon: c.LayerNormEpsilon, InitializerRange: c.InitializerRange,
		BOS: idOrNull(m.BOS), EOS: idOrNull(m.EOS), PAD: idOrNull(m.PAD),
		Tied: m.Params.HeadTied, TorchDType: torchDTypes[dtype], UseCache: true,
	}
	if c.NInner > 0 {
		w.NInner = &c.NInner
	}
	return w
}

func idOrNull(id int32) *int32 {
	if id < 0 {
		return nil
	}
	return &id
}
