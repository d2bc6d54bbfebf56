package train

import (
	"fmt"
	"os"
	"strings"

	"promptgen/internal/fault"
	"promptgen/model/checkpoint"
	"promptgen/model/checkpoint/blob"
	"promptgen/model/reshape"
)

// drawn is the origin of a run that began with random weights.
const drawn = "none"

// initFrom takes over the weights of a model folder, carried over to this run's
// shape and vocabulary where they differ.
func (t *trainer) initFrom(dir string) error {
	m, err := t.load(dir)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := t.checkBase(dir, m); err != nil {
		return err
	}
	if err := m.CheckFinite(); err != nil {
		return err
	}
	if err := t.begunWith(checkpoint.WeightsHash(m.Params)); err != nil {
		return err
	}
	if err := t.takeMemory(!m.Params.HeadTied); err != nil {
		return err
	}
	letGo := func(w []float32) { m.LetGo(blob.AsBytes(w)) }
	r, err := reshape.Make(m.Params, t.cfg, t.oldIDs(m), letGo)
	if err != nil {
		return fault.Usage("%s: %w; change the config, or train new weights without --init-from", dir, err)
	}
	if err := r.Fill(t.params, t.o.Seed); err != nil {
		return err
	}
	if notes := r.Notes(); len(notes) > 0 {
		t.obs.Notice(fmt.Sprintf("weights of %s, carried over: %s", dir, strings.Join(notes, "; ")))
	}
	return t.foundBase(dir)
}

func (t *trainer) load(dir string) (*checkpoint.Model, error) {
	return checkpoint.Load(dir, checkpoint.LoadOptions{Kernel: t.computing()})
}

// begunWith notes the weights that the run began with, and refuses others than
// those of the training that is to be repeated.
func (t *trainer) begunWith(origin string) error {
	if t.o.BaseHash != "" && t.o.BaseHash != origin {
		return fault.Corrupt("%s: not the weights of the training that is to be repeated (hash %.12s, they had %.12s)", t.o.InitFrom, origin, t.o.BaseHash)
	}
	t.origin, t.o.BaseHash = origin, origin
	return nil
}

// asBegun finds out what InitFrom says that a run which goes on began with; was
// is what its state says.
func (t *trainer) asBegun(was string) error {
	switch {
	case was == "": // of a state of before it was kept: nothing to compare
		return nil
	case t.o.InitFrom == "":
		t.origin = drawn
		return nil
	}
	if _, err := os.Stat(t.o.InitFrom); err != nil && was != drawn {
		return t.begunWith(was) // moved or removed since, and not needed: the state has its own weights
	}
	m, err := t.load(t.o.InitFrom)
	if err != nil {
		return err
	}
	defer m.Close()
	return t.begunWith(checkpoint.WeightsHash(m.Params))
}

// oldIDs are the ids in a model's vocabulary of the data's tokens; nil where the
// two are the same, as far as is known.
func (t *trainer) oldIDs(m *checkpoint.Model) []int32 {
	if m.Vocab == nil || m.Vocab.Hash() == t.vocab.Hash() {
		return nil
	}
	ids := make([]int32, t.vocab.Len())
	for i := range ids {
		ids[i] = reshape.New
		if id, ok := m.Vocab.ID(t.vocab.Token(int32(i))); ok {
			ids[i] = id
		}
	}
	return ids
}
