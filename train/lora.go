package train

import (
	"path/filepath"

	"promptgen/internal/fault"
	"promptgen/model/checkpoint"
)

// checkBase refuses models that adapters cannot be trained on: they belong to a
// whole model as it lies in its folder.
func (t *trainer) checkBase(dir string, m *checkpoint.Model) error {
	if !t.o.LoRA.On() {
		return nil
	}
	if m.Base != nil {
		return fault.Usage("%s: is a folder of adapters, and adapters are trained on a whole model; write one with export --merge", dir)
	}
	if m.Vocab != nil && m.Vocab.Hash() != t.vocab.Hash() {
		return fault.Corrupt("%s: its vocabulary is not the one of %s, and adapters keep it; tokenize the corpus with the model's vocab.txt", dir, t.o.Data)
	}
	was, now := m.Params.Config, t.cfg
	if was.VocabSize != now.VocabSize || was.NPositions != now.NPositions || was.NEmbd != now.NEmbd || was.NHead != now.NHead ||
		was.NLayer != now.NLayer || was.Inner() != now.Inner() || was.Act() != now.Act() {
		return fault.Usage("%s: its shape is not that of the config, and adapters keep it; leave --config out, or change n_ctx and the dropouts alone", dir)
	}
	return nil
}

// foundBase readies the adapters beside the weights that were taken over.
func (t *trainer) foundBase(dir string) (err error) {
	if !t.o.LoRA.On() {
		return nil
	}
	if t.base.Path, err = filepath.Abs(dir); err != nil {
		return err
	}
	t.base.Hash = t.origin
	t.params.InitAdapters(t.o.Seed)
	return nil
}
