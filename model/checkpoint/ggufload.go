package checkpoint

import (
	"encoding/json"
	"strings"

	"promptgen/internal/fault"
	"promptgen/model"
	"promptgen/model/checkpoint/blob"
	"promptgen/model/checkpoint/gguf"
	"promptgen/tokenizer"
)

// loadGGUF reads a GGUF file with a GPT-2 and a bert vocabulary.
func (m *Model) loadGGUF(path string, o LoadOptions) error {
	g, f, err := openGGUF(path)
	if err != nil {
		return err
	}
	m.files = append(m.files, f) // what is fp32 and not turned round stays where it lies
	c, err := ggufConfig(path, g)
	if err != nil {
		return err
	}
	if err := m.loadGGUFVocab(path, g, c, o); err != nil {
		return err
	}
	m.DType = weightType(g.Tensors)
	if m.Params, m.encoded, err = ggufParams(path, c, g.Tensors, o.KeepEncoded); err != nil {
		return err
	}
	m.stored = map[string]blob.DType{}
	byName := index(g.Tensors)
	for _, name := range ggufNames(c, !m.Params.HeadTied) {
		m.stored[name.ours] = byName[name.gguf].DType
	}
	return nil
}

// openGGUF reads the head of a GGUF file; g is valid until f is closed.
func openGGUF(path string) (g *gguf.File, f *blob.File, err error) {
	if f, err = blob.Open(path); err != nil {
		return nil, nil, err
	}
	if !strings.HasPrefix(string(f.Bytes[:min(len(f.Bytes), 4)]), gguf.Magic) {
		err = fault.Corrupt("%s: is no GGUF file; for weights in a folder, name the folder", path)
	} else {
		g, err = gguf.Parse(path, f.Bytes)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return g, f, nil
}

// ggufConfig is the shape: as this program wrote it, else of llama.cpp's keys.
func ggufConfig(path string, g *gguf.File) (model.Config, error) {
	var c model.Config
	if arch := g.String(keyArch); arch != "gpt2" {
		return c, fault.Corrupt("%s: holds a %s, and this program reads gpt2 only", path, blob.Clip(arch))
	}
	if text := g.String(keyConfig); text != "" {
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			return c, fault.Corrupt("%s: its %s is broken JSON (%v)", path, keyConfig, err)
		}
	} else {
		size := func(key string) int { return int(min(g.Int("gpt2."+key, 0), 1<<31-1)) }
		c = model.Config{
			NPositions: size("context_length"), NCtx: size("context_length"),
			NEmbd: size("embedding_length"), NLayer: size("block_count"),
			NHead: size("attention.head_count"), NInner: size("feed_forward_length"),
			LayerNormEpsilon: g.Float("gpt2.attention.layer_norm_epsilon", 1e-5),
			InitializerRange: 0.02, EmbdDrop: 0.1, AttnDrop: 0.1, ResidDrop: 0.1,
		}
		for _, t := range g.Tensors {
			if t.Name == "token_embd.weight" && len(t.Shape) == 2 {
				c.VocabSize = t.Shape[0]
			}
		}
	}
	faults := c.Faults()
	if c.VocabSize == 0 {
		faults.Addf("vocab_size must not be 0")
	}
	return c, fault.With(fault.CodeCorrupt, faults.Err(path))
}

func (m *Model) loadGGUFVocab(path string, g *gguf.File, c model.Config, o LoadOptions) error {
	if text := g.String(keyMeta); text != "" {
		if err := json.Unmarshal([]byte(text), &m.Meta); err != nil {
			return fault.Corrupt("%s: its %s is broken JSON (%v)", path, keyMeta, err)
		}
	}
	if err := m.Meta.check(path); err != nil {
		return err
	}
	var err error
	if o.VocabPath != "" {
		m.Vocab, err = tokenizer.ReadVocab(o.VocabPath)
	} else {
		m.Vocab, err = ggufVocab(path, g)
	}
	if err != nil {
		return err
	}
	if m.Vocab.Len() != c.VocabSize {
		return fault.Corrupt("%s: its model has %d tokens, and the vocabulary %d; they do not belong together", path, c.VocabSize, m.Vocab.Len())
	}
	if h := m.Meta.VocabHash; h != "" && h != m.Vocab.Hash() {
		return fault.Corrupt("%s: the vocabulary is not the one that its model was trained with", path)
	}
	if m.Meta.Format == 0 {
		m.Meta.Level, m.Meta.LowerCase = tokenizer.LevelBERT, m.Vocab.LowerCaseByDefault()
	}
	if text := g.String(keyUserDict); text != "" {
		m.UserDict = []byte(text)
	}
	id := func(key string) int32 {
		return tokenIDs{g.Int("tokenizer.ggml."+key+"_token_id", -1)}.first(c.VocabSize)
	}
	m.BOS, m.EOS, m.PAD = id("bos"), id("eos"), id("padding")
	return nil
}

// ggufVocab undoes ggufToken.
func ggufVocab(path string, g *gguf.File) (*tokenizer.Vocab, error) {
	tokens := g.Strings(keyVocab)
	if tokens == nil {
		if kind := g.String(keyTokKind); kind != "bert" {
			return nil, fault.Corrupt("%s: has a %s vocabulary, and this program reads bert's only", path, blob.Clip(kind))
		}
		tokens = g.Strings(keyTokens)
		types := g.Ints(keyTypes)
		for i, tok := range tokens {
			if i < len(types) && types[i] != tokenNormal {
				continue
			}
			if rest, ok := strings.CutPrefix(tok, wordMark); ok {
				tokens[i] = rest
			} else {
				tokens[i] = "##" + tok
			}
		}
	}
	v, err := tokenizer.NewVocab(tokens)
	if err != nil {
		return nil, fault.Corrupt("%s: %w", path, err)
	}
	return v, nil
}

// ggufParams gives the tensors our names, turns the matrices round and puts
// them together.
func ggufParams(path string, c model.Config, tensors []blob.Tensor, keep bool) (*model.Params, map[string]Encoded, error) {
	byName := index(tensors)
	_, untied := byName["output.weight"]
	specs := c.Tensors(untied)
	ours := make([]blob.Tensor, len(specs))
	for i, name := range ggufNames(c, untied) {
		want := specs[i]
		if name.flip {
			want.Shape = []int{want.Shape[1], want.Shape[0]}
		}
		t, ok := byName[name.gguf]
		want.Name = name.gguf
		if err := fits(path, want, t, ok); err != nil {
			return nil, nil, err
		}
		ours[i] = t
	}
	if err := disjoint(path, ours); err != nil {
		return nil, nil, err
	}
	data, names := make([][]float32, len(ours)), ggufNames(c, untied)
	encoded := map[string]Encoded{}
	for i, t := range ours {
		if keep && (names[i].flip || t.Name == "token_embd.weight" || t.Name == "output.weight") {
			encoded[names[i].ours] = Encoded{t, true}
		}
	}
	inParallel(len(ours), func(i int) {
		if _, kept := encoded[names[i].ours]; kept {
			return
		}
		if names[i].flip {
			data[i] = turned(ours[i])
		} else {
			data[i] = ours[i].Floats()
		}
	})
	return model.ParamsFrom(c, untied, data), encoded, nil
}
