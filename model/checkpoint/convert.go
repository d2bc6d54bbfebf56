package checkpoint

import (
	"runtime"
	"sync"
	"sync/atomic"

	"promptgen/model/checkpoint/blob"
)

// This file turns the tensors of a file into the float32 that we compute with,
// on all cores: that is most of the time it takes to open a model, where the
// file's numbers are not already what is wanted.

// floats are the values of all tensors: views of the file where they can be,
// else copies. The zero Tensor has none.
func floats(tensors []blob.Tensor) [][]float32 {
	data := make([][]float32, len(tensors))
	inParallel(len(tensors), func(i int) {
		if tensors[i].Bytes != nil {
			data[i] = tensors[i].Floats()
		}
	})
	return data
}

// inParallel calls do for 0 to n-1, each once, on as many goroutines as there
// are cores.
func inParallel(n int, do func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	wg.Wait()
}

// turned are the values of a [rows, cols] matrix as [cols, rows].
func turned(t blob.Tensor) []float32 {
	rows, cols := t.Shape[0], t.Shape[1]
	dst := make([]float32, rows*cols)
	const tile = 32 // both sides of a tile stay in the cache
	whole, mapped := blob.View(t)
	width, _ := t.DType.ByteLen(cols) // of a row; fits has checked the whole
	var scratch []float32
	if !mapped {
		scratch = make([]float32, tile*cols)
	}
	for r0 := 0; r0 < rows; r0 += tile {
		r1 := min(r0+tile, rows)
		src := scratch[:min(len(scratch), (r1-r0)*cols)]
		if mapped {
			src = whole[r0*cols : r1*cols]
		} else {
			blob.Decode(src, t.DType, t.Bytes[r0*width:r1*width])
		}
		for c0 := 0; c0 < cols; c0 += tile {
			for r := r0; r < r1; r++ {
				row := src[(r-r0)*cols:]
				for c := c0; c < min(c0+tile, cols); c++ {
					dst[c*rows+r] = row[c]
				}
			}
		}
	}
	return dst
}
