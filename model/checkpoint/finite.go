package checkpoint

import (
	"promptgen/internal/fault"
)

// CheckFinite is nil where every weight is a finite number, else fault.Corrupt
// that names the first tensor with another one: a file may be whole and hold
// what no training leaves. Tensors left encoded are passed over: who packs them
// looks at each value. The weights are read once, on all cores.
func (m *Model) CheckFinite() error {
	tensors := m.Params.Tensors
	bad := make([]int, len(tensors)) // the place of the first such value, from 1
	inParallel(len(tensors), func(i int) {
		for k, v := range tensors[i].Data {
			if v-v != 0 { // of NaN and the infinities alone
				bad[i] = k + 1
				return
			}
		}
	})
	for i, t := range tensors {
		if bad[i] > 0 {
			return fault.Corrupt("%stensor %s: value %d is not finite; the weights are damaged, copy the model again or take another one", m.where(), t.Name, bad[i]-1)
		}
	}
	return nil
}

// where begins a message about a model that was read.
func (m *Model) where() string {
	if m.path == "" {
		return ""
	}
	return m.path + ": "
}
