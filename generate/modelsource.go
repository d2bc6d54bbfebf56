package generate

import (
	"promptgen/internal/kernel"
	"promptgen/model/checkpoint"
	"promptgen/model/checkpoint/blob"
)

// FromModel is the weights of a loaded model, whose pages are let go once they
// are packed. Matrices that were kept as a GGUF file encodes them are packed
// without being decoded where the engine wants that encoding.
func FromModel(m *checkpoint.Model) Source {
	return &modelSource{
		paramsSource: FromParams(m.Params, func(data []float32) { m.LetGo(blob.AsBytes(data)) }).(*paramsSource),
		m:            m,
	}
}

type modelSource struct {
	*paramsSource
	m *checkpoint.Model
}

func (s *modelSource) Columns(name string, k, n int, d kernel.DType, workers int) ColumnReader {
	t, ok := s.m.Encoded(name)
	if !ok {
		return s.paramsSource.Columns(name, k, n, d, workers)
	}
	size := len(t.Bytes) / n
	per := make([][]float32, workers)
	return func(worker, lo, hi int) ([][]byte, []float32, error) {
		if t.DType.Name() != d.String() {
			floats := grow(&per[worker], (hi-lo)*k)
			blob.Decode(floats, t.DType, t.Bytes[lo*size:hi*size])
			return nil, floats, nil
		}
		cols := make([][]byte, hi-lo)
		for j := range cols {
			cols[j] = t.Bytes[(lo+j)*size:][:size]
		}
		return cols, nil, nil
	}
}

func (s *modelSource) Done(name string) {
	if t, ok := s.m.Encoded(name); ok {
		s.m.LetGo(t.Bytes)
		return
	}
	s.paramsSource.Done(name)
}
