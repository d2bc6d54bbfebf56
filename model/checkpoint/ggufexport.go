package checkpoint

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"promptgen/internal/atomicdir"
	"promptgen/internal/fault"
	"promptgen/model"
	"promptgen/model/checkpoint/blob"
	"promptgen/model/checkpoint/gguf"
	"promptgen/tokenizer"
)

// What a GGUF file says of a GPT-2 in llama.cpp's terms, and beside it, under
// keys of our own that llama.cpp passes over, what this program wants back.
const (
	keyArch    = "general.architecture"
	keyTokens  = "tokenizer.ggml.tokens"
	keyTypes   = "tokenizer.ggml.token_type"
	keyTokKind = "tokenizer.ggml.model"

	keyMeta     = "promptgen.meta"      // promptgen.json
	keyConfig   = "promptgen.config"    // model.Config, to the last digit
	keyUserDict = "promptgen.user_dict" // text
	keyVocab    = "promptgen.vocab"     // tokens, where llama.cpp's list cannot hold them
)

// llama.cpp's kinds of tokens.
const (
	tokenNormal  int32 = 1
	tokenControl int32 = 3
	tokenUnused  int32 = 5
)

// wordMark opens a token that begins a word, in llama.cpp's bert tokenizer;
// those that go on with one lose their '##'.
const wordMark = "▁"

// ggufName pairs the name of a parameter in a GGUF file with ours; flip says
// that the matrix is stored transposed, [out, in].
type ggufName struct {
	gguf, ours string
	flip       bool
}

// ggufNames lists them in the order of Config.Tensors.
func ggufNames(c model.Config, untied bool) []ggufName {
	parts := []struct {
		gguf, ours string
		flip       bool
	}{
		{"attn_norm.weight", "ln_1.weight", false}, {"attn_norm.bias", "ln_1.bias", false},
		{"attn_qkv.weight", "attn.c_attn.weight", true}, {"attn_qkv.bias", "attn.c_attn.bias", false},
		{"attn_output.weight", "attn.c_proj.weight", true}, {"attn_output.bias", "attn.c_proj.bias", false},
		{"ffn_norm.weight", "ln_2.weight", false}, {"ffn_norm.bias", "ln_2.bias", false},
		{"ffn_up.weight", "mlp.c_fc.weight", true}, {"ffn_up.bias", "mlp.c_fc.bias", false},
		{"ffn_down.weight", "mlp.c_proj.weight", true}, {"ffn_down.bias", "mlp.c_proj.bias", false},
	}
	names := []ggufName{
		{"token_embd.weight", bodyPrefix + "wte.weight", false},
		{"position_embd.weight", bodyPrefix + "wpe.weight", false},
	}
	for l := range c.NLayer {
		for _, p := range parts {
			names = append(names, ggufName{fmt.Sprintf("blk.%d.%s", l, p.gguf), fmt.Sprintf("%sh.%d.%s", bodyPrefix, l, p.ours), p.flip})
		}
	}
	names = append(names,
		ggufName{"output_norm.weight", bodyPrefix + "ln_f.weight", false},
		ggufName{"output_norm.bias", bodyPrefix + "ln_f.bias", false})
	if untied {
		names = append(names, ggufName{"output.weight", headName, false})
	}
	return names
}

// exportGGUF writes the model as one GGUF file that llama.cpp loads.
func (m *Model) exportGGUF(ctx context.Context, path string, d blob.DType) error {
	if m.Vocab == nil {
		return fault.Usage("a GGUF file holds its vocabulary, and the model has none; name one with --vocab")
	}
	if a := m.Params.Config.Act(); a != model.GELUNew {
		return fault.Usage("the model's activation is %s, and llama.cpp's GPT-2 has gelu_new only; export it as hf or pytorch", a)
	}
	pairs, err := m.ggufPairs(d)
	if err != nil {
		return err
	}
	parts := m.ggufParts(d)
	err = atomicdir.WriteFile(ctx, path, func(w io.Writer) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return gguf.Write(w, pairs, parts)
	})
	if err != nil {
		return fmt.Errorf("exporting to %s: %w", path, err)
	}
	return nil
}

// ggufFileTypes are llama.cpp's numbers for what a file mostly consists of.
var ggufFileTypes = map[blob.DType]uint32{blob.F32: 0, blob.F16: 1, blob.Q4_0: 2, blob.Q8_0: 7, blob.BF16: 32}

func (m *Model) ggufPairs(d blob.DType) ([]gguf.Pair, error) {
	c := m.Params.Config
	meta, err := json.Marshal(m.writtenMeta(nil))
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	tokens, types, exact := m.ggufTokens()
	pairs := []gguf.Pair{
		{Key: keyArch, Value: "gpt2"},
		{Key: "general.name", Value: "promptgen"},
		{Key: "general.file_type", Value: ggufFileTypes[d]},
		{Key: "general.quantization_version", Value: uint32(2)},
		{Key: "gpt2.block_count", Value: uint32(c.NLayer)},
		{Key: "gpt2.context_length", Value: uint32(c.NPositions)},
		{Key: "gpt2.embedding_length", Value: uint32(c.NEmbd)},
		{Key: "gpt2.feed_forward_length", Value: uint32(c.Inner())},
		{Key: "gpt2.attention.head_count", Value: uint32(c.NHead)},
		{Key: "gpt2.attention.layer_norm_epsilon", Value: float32(c.LayerNormEpsilon)},
		{Key: keyTokKind, Value: "bert"},
		{Key: keyTokens, Value: tokens},
		{Key: keyTypes, Value: types},
		{Key: "tokenizer.ggml.add_bos_token", Value: m.BOS != NoToken},
		{Key: "tokenizer.ggml.add_eos_token", Value: false},
		{Key: "tokenizer.ggml.add_sep_token", Value: false},
		{Key: keyMeta, Value: string(meta)},
		{Key: keyConfig, Value: string(config)},
	}
	if !exact {
		pairs = append(pairs, gguf.Pair{Key: keyVocab, Value: m.Vocab.Tokens()})
	}
	if len(m.UserDict) > 0 {
		pairs = append(pairs, gguf.Pair{Key: keyUserDict, Value: string(m.UserDict)})
	}
	for _, id := range []struct {
		key string
		id  int32
	}{
		{"bos", m.BOS}, {"eos", m.EOS}, {"padding", m.PAD},
		{"unknown", tokenID(m.Vocab, tokenizer.UNK)}, {"seperator", tokenID(m.Vocab, tokenizer.SEP)}, // llama.cpp's spelling
		{"mask", tokenID(m.Vocab, tokenizer.MASK)}, {"cls", tokenID(m.Vocab, tokenizer.CLS)},
	} {
		if id.id != NoToken {
			pairs = append(pairs, gguf.Pair{Key: "tokenizer.ggml." + id.key + "_token_id", Value: uint32(id.id)})
		}
	}
	return pairs, nil
}

// ggufTokens is the vocabulary as llama.cpp's bert tokenizer wants it. exact is
// false where ggufVocab could not make the vocabulary of it again: llama.cpp
// takes no token twice, so of equals all but the last get a name of their own.
func (m *Model) ggufTokens() (tokens []string, types []int32, exact bool) {
	n := m.Vocab.Len()
	tokens, types, exact = make([]string, n), make([]int32, n), true
	owner := make(map[string]int, n)
	for id := range n {
		tokens[id], types[id] = ggufToken(m.Vocab.Token(int32(id)))
		if before, taken := owner[tokens[id]]; taken || tokens[id] == "" {
			exact = false
			if tokens[id] == "" {
				before = id
			}
			tokens[before], types[before] = fmt.Sprintf("[promptgen-unused-%d]", before), tokenUnused
		}
		owner[tokens[id]] = id
	}
	return tokens, types, exact
}

// ggufToken is one token's form and kind.
func ggufToken(tok string) (string, int32) {
	for _, s := range specialTokens {
		if tok == s {
			return tok, tokenControl
		}
	}
	if strings.HasPrefix(tok, "[unused") && strings.HasSuffix(tok, "]") {
		return tok, tokenUnused
	}
	if rest, ok := strings.CutPrefix(tok, "##"); ok {
		return rest, tokenNormal
	}
	return wordMark + tok, tokenNormal
}

// ggufParts describes the tensors. Matrices get the type asked for, or fp16
// where their rows are no whole number of blocks; vectors and the position
// table, which llama.cpp adds as they are, stay fp32.
func (m *Model) ggufParts(d blob.DType) []gguf.Part {
	p := m.Params
	parts := make([]gguf.Part, len(p.Tensors))
	for i, name := range ggufNames(p.Config, !p.HeadTied) {
		t := p.Tensors[i]
		part := gguf.Part{Name: name.gguf, DType: blob.F32, Shape: t.Shape}
		width := t.Shape[len(t.Shape)-1]
		part.Row = func(dst []float32, r int) { copy(dst, t.Data[r*width:]) }
		if name.flip {
			part.Shape = []int{t.Shape[1], t.Shape[0]}
			part.Row = func(dst []float32, r int) {
				for k := range dst {
					dst[k] = t.Data[k*width+r]
				}
			}
		}
		if len(t.Shape) == 2 && name.ours != bodyPrefix+"wpe.weight" {
			part.DType = d
			if _, whole := d.ByteLen(part.Shape[1]); !whole {
				part.DType = blob.F16
			}
		}
		parts[i] = part
	}
	return parts
}
