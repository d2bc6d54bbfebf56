package generate

import (
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

	// Columns reads a matrix [k, n] for products in d, on so many workers. The
	// embedding's columns are its tokens.
	Columns(name string, k, n int, d kernel.DType, workers int) ColumnReader

	// Done says that a matrix has been read.
	Done(name string)
}

// ColumnReader gives columns [lo,hi) of a matrix: either encoded in the dtype
// asked for, as GGUF does, or one after another as float32. What it returns is
// used until its next call with the same worker; calls with different workers
// may run together.
type ColumnReader func(worker, lo, hi int) (encoded [][]byte, floats []float32, err error)

// FromParams is parameters in memory, which must not change while an engine is
// made of them. release, if not nil, is told of each matrix that has been read.
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

func (s *paramsSource) Done(name string) {
	if s.release != nil {
		s.release(s.byName[name])
	}
}

func (s *paramsSource) Columns(name string, k, n int, _ kernel.DType, workers int) ColumnReader {
	data := s.byName[name]
	if name == embeddingName || name == headName { // stored [n, k]
		return func(_, lo, hi int) ([][]byte, []float32, error) { return nil, data[lo*k : hi*k], nil }
	}
	per := make([][]float32, workers)
	return func(worker, lo, hi int) ([][]byte, []float32, error) {
		floats := grow(&per[worker], (hi-lo)*k)
		for r := range k {
			for j, v := range data[r*n+lo : r*n+hi] {
				floats[j*k+r] = v
			}
		}
		return nil, floats, nil
	}
}

// The names of the matrices that are not a layer's.
const (
	embeddingName = "transformer.wte.weight"
	headName      = "lm_head.weight"
	positionsName = "transformer.wpe.weight"
)
