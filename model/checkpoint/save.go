package checkpoint

import (
	"context"
	"fmt"

	"promptgen/internal/atomicdir"
	"promptgen/model"
	"promptgen/model/checkpoint/blob"
	"promptgen/tokenizer"
)

// wordNote is what a word-level folder says of itself to those who read it with
// other programs.
const wordNote = "Word level: the vocabulary holds whole words. tokenizer.json expects text whose words are separated by spaces; promptgen finds the words itself."

// Save writes m as a model folder at dir, whole or not at all, in fp32; a model
// whose parameters have adapters as a folder of these alone. A model folder
// that is there is replaced, and whoever reads it meanwhile keeps the old one;
// one that holds other files is refused (MayReplace).
func Save(ctx context.Context, dir string, m *Model) error {
	if err := MayReplace(dir); err != nil {
		return err
	}
	if m.Params.LoRA.On() {
		return saveAdapter(ctx, dir, m)
	}
	return saveFolder(ctx, dir, m, blob.F32)
}

func saveFolder(ctx context.Context, dir string, m *Model, d blob.DType) error {
	err := atomicdir.Write(ctx, dir, func(tmp string) error {
		out := newManifest(tmp)
		return m.writeFiles(out, d, func() error { return writeTensors(out, safetensorsName, m.Params, d) })
	})
	if err != nil {
		return fmt.Errorf("saving the model: %w", err)
	}
	return nil
}

// writeFiles writes every file of a folder, the weights by the function given
// and promptgen.json with the others' sums last.
func (m *Model) writeFiles(out *manifest, d blob.DType, weights func() error) error {
	if err := out.writeJSON(configName, m.config(d.Name())); err != nil {
		return err
	}
	if err := out.writeJSON(generationName, m.generationConfig()); err != nil {
		return err
	}
	if err := weights(); err != nil {
		return err
	}
	if m.Vocab != nil {
		if err := m.writeTokenizer(out); err != nil {
			return err
		}
	}
	return out.writeJSON(metaName, m.writtenMeta(out))
}

// writtenMeta is promptgen.json for a folder whose other files are written.
func (m *Model) writtenMeta(out *manifest) Meta {
	meta := m.Meta
	meta.Format = formatVersion
	meta.BOS, meta.EOS, meta.PAD = tokenName(m.Vocab, m.BOS), tokenName(m.Vocab, m.EOS), tokenName(m.Vocab, m.PAD)
	if m.Vocab != nil {
		meta.VocabHash = m.Vocab.Hash()
	}
	meta.UserDict, meta.Note, meta.Base = "", "", nil
	if m.Params.LoRA.On() {
		meta.Base = m.Base
	}
	if len(m.UserDict) > 0 {
		meta.UserDict = userDictName
	}
	if meta.Level == tokenizer.LevelWord {
		meta.Note = wordNote
	}
	if meta.Training != nil { // JSON has no word for a loss that is not a number
		t := *meta.Training
		t.FinalLoss, t.ValLoss = finite(t.FinalLoss), finite(t.ValLoss)
		meta.Training = &t
	}
	if out != nil {
		meta.Files = out.files
	}
	return meta
}

func finite(x float64) float64 {
	if !model.IsFinite(x) {
		return 0
	}
	return x
}

// generationConfig is generation_config.json: the sampling that generate does
// by default, and the tokens that it never samples.
func (m *Model) generationConfig() any {
	g := struct {
		BOS      *int32  `json:"bos_token_id"`
		EOS      *int32  `json:"eos_token_id"`
		PAD      *int32  `json:"pad_token_id"`
		DoSample bool    `json:"do_sample"`
		TopK     int     `json:"top_k"`
		TopP     float64 `json:"top_p"`
		Suppress []int32 `json:"suppress_tokens,omitempty"`
	}{idOrNull(m.BOS), idOrNull(m.EOS), idOrNull(m.PAD), true, 30, 1, nil}
	for _, tok := range []string{tokenizer.PAD, tokenizer.UNK, tokenizer.MASK} {
		if id := tokenID(m.Vocab, tok); id != NoToken && id != m.EOS {
			g.Suppress = append(g.Suppress, id)
		}
	}
	return g
}
