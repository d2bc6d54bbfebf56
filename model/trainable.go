package model

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"promptgen/internal/fault"
)

// Trainable says which weights a training changes; the zero value: all of them.
// What it leaves as it is has neither a gradient nor moments, and the backward
// pass does nothing that only such weights would need.
type Trainable struct {
	// Freeze names weights that stay as they are: wte, wpe, ln_f, a layer (h.3),
	// layers (h.0-5), or what is inside of one (h.3.attn); a name may list
	// several, parted by commas.
	Freeze []string
	LoRA   LoRA // with adapters they alone are trained
}

var layerRange = regexp.MustCompile(`^h\.([0-9]{1,4})-([0-9]{1,4})$`)

// Tensors lists the parameters of a model, adapters included.
func (t Trainable) Tensors(c Config, untied bool) []TensorSpec {
	return append(c.Tensors(untied), t.LoRA.Tensors(c)...)
}

// Trained marks the tensors that change, in the order of Tensors. Names that
// mean nothing, or leave nothing to train, are a usage fault.
func (t Trainable) Trained(c Config, untied bool) ([]bool, error) {
	specs := c.Tensors(untied)
	if t.LoRA.On() || len(t.LoRA.Faults(c)) > 0 {
		faults := t.LoRA.Faults(c)
		if len(t.Freeze) > 0 {
			faults.Addf("freeze says nothing beside lora-rank, which freezes all weights but the adapters")
		}
		trained := make([]bool, len(t.Tensors(c, untied)))
		for i := len(specs); i < len(trained); i++ {
			trained[i] = true
		}
		return trained, faults.Err("adapters")
	}
	frozen := make([]bool, len(specs))
	var faults fault.List
	for _, name := range strings.FieldsFunc(strings.Join(t.Freeze, ","), func(r rune) bool { return r == ',' || r == ' ' }) {
		if !freeze(frozen, specs, name) {
			faults.Addf("%q names no weights: use wte, wpe, h.0-5, h.3, h.3.attn, ln_f", name)
		}
	}
	if !slices.Contains(frozen, false) {
		faults.Addf("nothing is left to train")
	}
	trained := make([]bool, len(specs))
	for i, f := range frozen {
		trained[i] = !f
	}
	return trained, faults.Err("--freeze")
}

// freeze marks what one name means, and says whether that is anything.
func freeze(out []bool, specs []TensorSpec, name string) (found bool) {
	prefixes := []string{name}
	if m := layerRange.FindStringSubmatch(name); m != nil {
		first, _ := strconv.Atoi(m[1])
		last, _ := strconv.Atoi(m[2])
		prefixes = nil
		for l := first; l <= last; l++ {
			prefixes = append(prefixes, fmt.Sprintf("h.%d", l))
		}
	}
	for _, p := range prefixes {
		hit := false
		for i, s := range specs {
			short := strings.TrimPrefix(s.Name, "transformer.")
			if short == p || strings.HasPrefix(short, p+".") {
				out[i], hit = true, true
			}
		}
		if !hit {
			return false
		}
		found = true
	}
	return found
}

// marks is Trained for names that were checked before.
func (t Trainable) marks(c Config, untied bool) []bool {
	trained, _ := t.Trained(c, untied)
	return trained
}

// all tells that every weight changes: then nothing need be looked up by name.
func (t Trainable) all() bool { return len(t.Freeze) == 0 && t.LoRA.Rank == 0 }

// Len is the number of weights that change.
func (t Trainable) Len(c Config, untied bool) (n int64) {
	if t.all() {
		n = c.NumParams()
		if untied {
			n += int64(c.VocabSize) * int64(c.NEmbd)
		}
		return n
	}
	trained := t.marks(c, untied)
	for i, s := range t.Tensors(c, untied) {
		if trained[i] {
			n += int64(s.Len())
		}
	}
	return n
}

// Over lays what belongs to the trained weights, gradients or moments, over an
// arena of Len elements; the tensors of the others have no data.
func (t Trainable) Over(c Config, untied bool, arena []float32) *Params {
	specs, trained := t.Tensors(c, untied), t.marks(c, untied)
	data := make([][]float32, len(specs))
	for i, s := range specs {
		if n := s.Len(); trained[i] {
			data[i], arena = arena[:n:n], arena[n:]
		}
	}
	return paramsFrom(c, untied, t.LoRA, data)
}

// reach says how far down the backward pass goes: to the lowest of the trained
// weights.
type reach struct {
	embedding bool
	attn, mlp int // the first layers whose sublayer takes part
}

func (t Trainable) reach(c Config, untied bool) reach {
	if t.all() {
		return reach{embedding: true}
	}
	if t.LoRA.On() {
		r := reach{}
		if !slices.ContainsFunc(t.LoRA.Tensors(c), func(s TensorSpec) bool { return strings.Contains(s.Name, ".attn.") }) {
			r.attn = 1
		}
		return r
	}
	trained := t.marks(c, untied)
	r := reach{embedding: trained[0] || trained[1]}
	if r.embedding {
		return r
	}
	const perLayer, ofMLP = 12, 6 // tensors of a layer, and where the MLP's begin
	first := slices.Index(trained[2:], true)
	r.attn = min(c.NLayer, first/perLayer)
	r.mlp = r.attn
	if r.attn < c.NLayer && first%perLayer >= ofMLP {
		r.attn++
	}
	return r
}
