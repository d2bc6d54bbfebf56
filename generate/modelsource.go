package generate

import (
	"promptgen/internal/decode"
	"promptgen/internal/kernel"
	"promptgen/model/checkpoint"
	"promptgen/model/checkpoint/blob"
)

// FromModel is the weights of a loaded model, whose pages are let go once they
// are packed. Matrices that were kept as their file encodes them are converted
// a few columns at a time, or packed as they are where the engine wants that
// encoding.
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
	switch {
	case !ok:
		return s.paramsSource.Parts(name, k, n, d, workers)
	case !t.ByOutput:
		return rowParts(t, k, n, workers)
	}
	size := len(t.Bytes) / n
	drop := releaser(s.m.LetGo, workers)
	per := make([][]float32, workers)
	return func(worker, lo, hi int) (decode.Part, error) {
		columns := t.Tensor
		columns.Bytes = t.Bytes[lo*size : hi*size]
		drop(worker, columns.Bytes)
		if t.DType.Name() == d.String() && t.DType != blob.F32 && t.DType != blob.BF16 {
			return decode.Part{Blocks: columns.Bytes}, nil
		}
		floats, ok := blob.View(columns)
		if !ok {
			floats = grow(&per[worker], (hi-lo)*k)
			blob.Decode(floats, t.DType, columns.Bytes)
		}
		return decode.Part{Columns: floats}, nil
	}
}

// rowParts decodes the columns' piece of each of k rows.
func rowParts(t checkpoint.Encoded, k, n, workers int) decode.Parts {
	size := len(t.Bytes) / (k * n)
	per := make([][]float32, workers)
	return func(worker, lo, hi int) (decode.Part, error) {
		width := hi - lo
		rows := grow(&per[worker], k*width)
		for r := range k {
			blob.Decode(rows[r*width:][:width], t.DType, t.Bytes[(r*n+lo)*size:][:width*size])
		}
		return decode.Part{Rows: rows, LD: width}, nil
	}
}

func (s *modelSource) Done(name string) {
	if t, ok := s.m.Encoded(name); ok {
		s.m.LetGo(t.Bytes)
		return
	}
	s.paramsSource.Done(name)
}
