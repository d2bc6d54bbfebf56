package model_test

import (
	"fmt"
	"strings"
	"testing"

	"promptgen/internal/testkit"
	"promptgen/model"
)

// sum is the bytes of a part of a table.
func sum(table []model.Buffer, part model.Part) (n int64) {
	for _, b := range table {
		if b.Part == part {
			n += b.Bytes()
		}
	}
	return n
}

// Freezing weights changes no gradient of the others, to the bit, whatever is
// frozen, however values are kept, and the frozen ones have no gradient at all.
func TestFrozenWeightsChangeNoOtherGradient(t *testing.T) {
	c := tiny(0.15)
	const seqs, seqLen = 4, 9
	ids := randomIDs(seqs*seqLen, c.VocabSize, 3)
	key := model.DropKey{Seed: 1, Step: 2}
	for _, untied := range []bool{false, true} {
		p := randomParams(c, untied, 4)
		whole := newGraph(t, newCPU(t, 2), p, model.GraphOptions{Batch: 2, Sequences: seqs, SeqLen: seqLen})
		loss := gradients(t, whole, ids, seqLen, 2, key)
		want := whole.Grads().Tensors
		for _, names := range []string{
			"wte", "wpe", "wte,wpe", "wte,wpe,h.0", "wte,wpe,h.0,h.1.ln_1,h.1.attn", "wte,wpe,h.0-1", "h.0-1", "ln_f", "h.1",
			"wte,wpe,h.0.ln_1,h.0.attn.c_attn,h.0.mlp,h.1,ln_f", "wte,wpe,h.0,h.1.attn,h.1.ln_1,h.1.ln_2,h.1.mlp.c_fc,ln_f",
			"h.0.attn.c_attn.weight,h.0.attn.c_proj.bias,h.1.mlp.c_proj.weight", "wte,wpe,h.0-1,ln_f.weight",
			"wte,wpe,h.0,h.1.ln_1,h.1.attn,h.1.ln_2,h.1.mlp.c_fc.weight,h.1.mlp.c_proj,ln_f",
		} {
			for _, again := range []struct {
				level model.Recompute
				last  int
			}{{model.RecomputeOff, 0}, {model.RecomputeSublayers, 0}, {model.RecomputeLayers, 0}, {model.RecomputeLayers, 1}} {
				o := model.GraphOptions{Batch: 2, Sequences: seqs, SeqLen: seqLen, Recompute: again.level, RecomputeLast: again.last, Trainable: model.Trainable{Freeze: []string{names}}}
				g := newGraph(t, newCPU(t, 2), p, o)
				at := fmt.Sprintf("untied %v, %s frozen, recompute %v", untied, names, again)
				if got := gradients(t, g, ids, seqLen, 2, key); got != loss {
					t.Errorf("%s: the loss is %v, not %v", at, got, loss)
				}
				trained, err := o.Trainable.Trained(c, untied)
				if err != nil {
					t.Fatal(err)
				}
				var floats int64
				for i, tensor := range g.Grads().Tensors {
					switch {
					case !trained[i] && tensor.Data != nil:
						t.Errorf("%s: %s is frozen and has a gradient", at, tensor.Name)
					case trained[i]:
						floats += int64(tensor.Len())
						if d := testkit.MaxDiff(tensor.Data, want[i].Data); d != 0 {
							t.Errorf("%s: the gradient of %s differs by %g", at, tensor.Name, d)
						}
					}
				}
				if got := int64(len(g.GradArena())); got != floats || got != o.Trainable.Len(c, untied) {
					t.Errorf("%s: room for %d gradients, %d weights are trained", at, got, floats)
				}
			}
		}
	}
}

// What the backward pass does not reach keeps nothing for it.
func TestNothingIsKeptBelowTheLowestTrainedWeight(t *testing.T) {
	c := tiny(0)
	c.NLayer = 6
	kept := func(freeze ...string) (layers int, bytes int64) {
		table := model.Buffers(c, false, model.GraphOptions{Batch: 2, SeqLen: 9, Trainable: model.Trainable{Freeze: freeze}})
		for _, b := range table {
			if b.Name == "mlp pre-activation" && b.Part == model.Activations {
				layers++
			}
			if strings.HasPrefix(b.Name, "looked-up") && len(freeze) > 0 {
				t.Errorf("%v: room for the gradient of looked-up rows", freeze)
			}
		}
		return layers, sum(table, model.Activations)
	}
	_, most := kept()
	for _, v := range []struct {
		freeze string
		layers int
	}{{"wte,wpe,h.0-3", 2}, {"wte,wpe,h.0-2,h.3.attn,h.3.ln_1", 3}, {"wte,wpe,h.0-5", 0}, {"wte", 6}} {
		layers, bytes := kept(v.freeze)
		if layers != v.layers || v.layers < 6 && bytes >= most {
			t.Errorf("%s: the inside of %d MLPs is kept, %d are trained (%d bytes of activations, all trained %d)", v.freeze, layers, v.layers, bytes, most)
		}
	}
}
