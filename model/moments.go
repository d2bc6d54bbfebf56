package model

import "promptgen/internal/kernel"

// Moment is a running mean that an optimizer keeps for one parameter. One of
// its two slices is in use, and neither where the parameter is not trained.
type Moment struct {
	TensorSpec
	F32  []float32
	BF16 []uint16 // bfloat16: the upper halves of float32
}

// Kept tells that there is such a mean.
func (m Moment) Kept() bool { return m.F32 != nil || m.BF16 != nil }

// Moments are one of the means for all parameters, in the order of
// Params.Tensors.
type Moments struct{ Tensors []Moment }

// NewMoments allocates zeroed moments for the parameters of a config.
func NewMoments(c Config, untied, bf16 bool) *Moments {
	n := 0
	for _, s := range c.Tensors(untied) {
		n += s.Len()
	}
	if bf16 {
		return Trainable{}.Moments(c, untied, nil, make([]uint16, n))
	}
	return Trainable{}.Moments(c, untied, kernel.Alloc(n), nil)
}

// Moments lays those of the trained weights over memory of the caller's, Len
// elements in the one or the other; the other is nil. The weights that are not
// trained have none.
func (t Trainable) Moments(c Config, untied bool, f32 []float32, bf16 []uint16) *Moments {
	specs, trained := t.Tensors(c, untied), t.marks(c, untied)
	m := &Moments{make([]Moment, len(specs))}
	for i, s := range specs {
		m.Tensors[i].TensorSpec = s
		switch n := s.Len(); {
		case !trained[i]:
		case bf16 != nil:
			m.Tensors[i].BF16, bf16 = bf16[:n:n], bf16[n:]
		default:
			m.Tensors[i].F32, f32 = f32[:n:n], f32[n:]
		}
	}
	return m
}

// RoundingKey is what the random rounding of a tensor's moments in bfloat16
// follows from in an optimizer step (kernel.CPU.AdamW16).
func RoundingKey(seed uint64, step, tensor int) uint64 {
	return key(seed, uint64(step), uint64(tensor), roundMoments)
}
