package train

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"gorgonia.org/gorgonia"

	"promptgen/internal/fault"
	"promptgen/model"
)

// Frozen weights are not changed: no update, no decay, and no share in the
// gradient's norm. Their gradients are still computed, and they have room for
// moments: one arena holds those of all weights.

var layerRange = regexp.MustCompile(`^h\.([0-9]{1,4})-([0-9]{1,4})$`)

// frozen says which of the tensors the names freeze: wte, wpe, ln_f, a layer
// (h.3), layers (h.0-5), or what is inside of one (h.3.attn). A name may list
// several, parted by commas. What names nothing, or everything, is a usage
// fault.
func frozen(tensors []model.Tensor, names []string) ([]bool, error) {
	out := make([]bool, len(tensors))
	var faults fault.List
	for _, name := range strings.FieldsFunc(strings.Join(names, ","), func(r rune) bool { return r == ',' || r == ' ' }) {
		if !freeze(out, tensors, name) {
			faults.Addf("%q names no weights: use wte, wpe, h.0-5, h.3, h.3.attn, ln_f", name)
		}
	}
	left := 0
	for _, f := range out {
		if !f {
			left++
		}
	}
	if left == 0 {
		faults.Addf("nothing is left to train")
	}
	return out, faults.Err("--freeze")
}

// freeze marks what one name means, and says whether that is anything.
func freeze(out []bool, tensors []model.Tensor, name string) (found bool) {
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
		for i, t := range tensors {
			short := strings.TrimPrefix(t.Name, "transformer.")
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

// frozen says which tensors stay as they are; nil: none.
func (t *trainer) frozen() ([]bool, error) {
	if len(t.o.Freeze) == 0 {
		return nil, nil
	}
	return frozen(t.params.Tensors, t.o.Freeze)
}

// trained are the parameters that the optimizer changes.
func (a *AdamW) trained(params []gorgonia.ValueGrad) []gorgonia.ValueGrad {
	if a.Frozen == nil {
		return params
	}
	var out []gorgonia.ValueGrad
	for i, p := range params {
		if !a.Frozen[i] {
			out = append(out, p)
		}
	}
	return out
}

// Trained is the number of weights that the optimizer changes.
func (a *AdamW) Trained() (n int64) {
	for i, t := range a.M.Tensors {
		if a.Frozen == nil || !a.Frozen[i] {
			n += int64(t.Len())
		}
	}
	return n
}
