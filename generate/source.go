package generate

import (
	"slices"

	"promptgen/internal/decode"
	"promptgen/internal/kernel"
	"promptgen/model"
)

// Source is where an engine's weights come from. They are read once, one tensor
// after another, and packed: a Source need not have them in memory together.
// Tensors have the names of model.Config.Tensors.
type Source interface {
	// Config is the model's shape; untied says that it has a head of its own.
	Config() (c model.Config, untied bool)

	// Vector is a tensor that is not packed: a bias, a norm's gain, or the
	// position table. It is used as long as the engine.
	Vector(name string) ([]float32, error)

	// Parts reads a matrix [k, n] for products in d, on so many workers. The
	// embedding's columns are its tokens.
	Parts(name string, k, n int, d kernel.DType, workers int) decode.Parts

	// Done says that a tensor has been read.
	Done(name string)
}

// FromParams is parameters in memory, which must not change while an engine is
// made of them; adapters are added to their matrices as these are read. release,
// if not nil, is told of what has been read.
func FromParams(p *model.Params, release func([]float32)) Source {
	s := &paramsSource{p: p, release: release, byName: make(map[string][]float32, len(p.Tensors))}
	for _, t := range p.Tensors {
		s.byName[t.Name] = t.Data
	}
	return s
}

type paramsSource struct {
	p       *model.Params
	release func([]float32)
	byName  map[string][]float32
}

func (s *paramsSource) Config() (model.Config, bool) { return s.p.Config, !s.p.HeadTied }

func (s *paramsSource) Vector(name string) ([]float32, error) { return s.byName[name], nil }

func (s *paramsSource) Parts(name string, k, n int, _ kernel.DType, workers int) decode.Parts {
	data := s.byName[name]
	if low, ok := s.p.Adapter(name); ok {
		return adapted(data, low, k, n, s.p.LoRA, workers)
	}
	if !ofTokens(name) {
		return func(_, lo, hi int) (decode.Part, error) { return decode.Part{Rows: data[lo:], LD: n}, nil }
	}
	drop := releaser(s.release, workers)
	return func(worker, lo, hi int) (decode.Part, error) {
		part := data[lo*k : hi*k]
		drop(worker, part)
		return decode.Part{Columns: part}, nil
	}
}

// adapted reads a matrix [k, n] with its adapter added.
func adapted(data []float32, low model.LowRank, k, n int, l model.LoRA, workers int) decode.Parts {
	per := make([][]float32, workers)
	return func(worker, lo, hi int) (decode.Part, error) {
		columns := slices.Grow(per[worker][:0], (hi-lo)*k)[:(hi-lo)*k]
		per[worker] = columns
		for j := lo; j < hi; j++ {
			column := columns[(j-lo)*k:][:k]
			for r := range column {
				column[r] = data[r*n+j]
			}
			for i := range l.Rank {
				b := l.Scale() * low.B[j*l.Rank+i]
				for r, a := range low.A[i*k:][:k] {
					column[r] += b * a
				}
			}
		}
		return decode.Part{Columns: columns}, nil
	}
}

func (s *paramsSource) Done(name string) {
	if s.release != nil {
		s.release(s.byName[name])
	}
}

// releaser lets go of what a worker was given before, when it asks for more:
// of a large table only what is being read is then in memory.
func releaser[T any](release func([]T), workers int) func(worker int, part []T) {
	last := make([][]T, workers)
	return func(worker int, part []T) {
		if release != nil && last[worker] != nil {
			release(last[worker])
		}
		last[worker] = part
	}
}

// ofTokens says that a matrix is stored [n, k]: its columns are tokens.
func ofTokens(name string) bool { return name == embeddingName || name == headName }

// The names of the matrices that are not a layer's.
const (
	embeddingName = "transformer.wte.weight"
	headName      = "lm_head.weight"
	positionsName = "transformer.wpe.weight"
)
