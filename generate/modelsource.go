package generate

import (
	"promptgen/internal/decode"
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

func (s *modelSource) Parts(name string, k, n int, d kernel.DType, workers int) decode.Parts {
	t, ok := s.m.Encoded(name)
	if !ok {
		return s.paramsSource.Parts(name, k, n, d, workers)
	}
	size := len(t.Bytes) / n
	per := make([][]float32, workers)
	drop := releaser(s.m.LetGo, workers)
	return func(worker, lo, hi int) (decode.Part, error) {
		bytes := t.Bytes[lo*size : hi*size]
		drop(worker, bytes)
		if t.DType.Name() != d.String() {
			floats := grow(&per[worker], (hi-lo)*k)[:(hi-lo)*k]
			blob.Decode(floats, t.DType, bytes)
			return decode.Part{Columns: floats}, nil
		}
		cols := make([][]byte, hi-lo)
		for j := range cols {
			cols[j] = bytes[j*size:][:size]
		}
		return decode.Part{Encoded: cols}, nil
	}
}

func (s *modelSource) Done(name string) {
	if t, ok := s.m.Encoded(name); ok {
		s.m.LetGo(t.Bytes)
		return
	}
	s.paramsSource.Done(name)
}
