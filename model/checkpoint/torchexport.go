package checkpoint

import (
	"context"
	"fmt"
	"io"

	"promptgen/internal/atomicdir"
	"promptgen/model/checkpoint/blob"
	"promptgen/model/checkpoint/torchfile"
)

// exportPyTorch writes a model folder whose weights are a pytorch_model.bin, in
// the key names of transformers 2.1.1: with the causal masks and the tied head
// that its state dictionary holds.
func (m *Model) exportPyTorch(ctx context.Context, dir string, d blob.DType) error {
	err := atomicdir.Write(ctx, dir, func(tmp string) error {
		out := newManifest(tmp)
		return m.writeFiles(out, d, func() error {
			return out.write(torchName, func(w io.Writer) error { return torchfile.Write(w, m.torchStorages(d)) })
		})
	})
	if err != nil {
		return fmt.Errorf("exporting to %s: %w", dir, err)
	}
	return nil
}

// torchStorages lists the storages of the file and the tensors in each. The head
// shares the embedding's when tied; one mask serves all layers.
func (m *Model) torchStorages(d blob.DType) []torchfile.Storage {
	p := m.Params
	var out []torchfile.Storage
	for _, t := range p.Tensors {
		size, _ := d.ByteLen(len(t.Data))
		s := torchfile.Storage{DType: d, Size: size, Write: func(w io.Writer) error { return blob.WriteFloats(w, d, t.Data) }}
		s.Tensors = []torchfile.Named{{Name: t.Name, Shape: t.Shape}}
		if t.Name == bodyPrefix+"wte.weight" && p.HeadTied {
			s.Tensors = append(s.Tensors, torchfile.Named{Name: headName, Shape: t.Shape})
		}
		out = append(out, s)
	}
	n := p.Config.NCtx
	size, _ := d.ByteLen(n * n)
	mask := torchfile.Storage{DType: d, Size: size, Write: func(w io.Writer) error { return writeMask(w, d, n) }}
	for l := range p.Config.NLayer {
		mask.Tensors = append(mask.Tensors, torchfile.Named{Name: fmt.Sprintf("%sh.%d.attn.bias", bodyPrefix, l), Shape: []int{1, 1, n, n}})
	}
	return append(out, mask)
}

// writeMask writes the lower triangle of ones that GPT-2's attention multiplies
// with.
func writeMask(w io.Writer, d blob.DType, n int) error {
	row := make([]float32, n)
	for i := range n {
		row[i] = 1
		if err := blob.WriteFloats(w, d, row); err != nil {
			return err
		}
	}
	return nil
}
