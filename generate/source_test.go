package generate

import (
	"math"
	"slices"
	"testing"

	"promptgen/internal/kernel"
	"promptgen/model"
)

// Matrices that have adapters are read with them added, in whatever portions;
// the others as they are.
func TestSourceAddsAdapters(t *testing.T) {
	c := model.Config{VocabSize: 9, NPositions: 8, NCtx: 8, NEmbd: 12, NHead: 2, NLayer: 2, NInner: 20, LayerNormEpsilon: 1e-5, InitializerRange: 0.3}
	p := model.NewParams(c, false)
	p.Init(1)
	l := model.LoRA{Rank: 3, Alpha: 4, Targets: []string{"c_attn", "mlp.c_proj"}}
	p = p.Adapt(l, make([]float32, l.Len(c)))
	for i, tensor := range p.Adapters() {
		for j := range tensor.Data {
			tensor.Data[j] = float32(math.Sin(float64(1 + i + 3*j)))
		}
	}
	src := FromParams(p, nil)
	for _, tensor := range c.Tensors(false)[2:] {
		if len(tensor.Shape) != 2 {
			continue
		}
		k, n := tensor.Shape[0], tensor.Shape[1]
		low, adapted := p.Adapter(tensor.Name)
		if adapted != l.Adapts(tensor) {
			t.Errorf("%s: has an adapter %v", tensor.Name, adapted)
		}
		whole, err := src.Vector(tensor.Name)
		if err != nil {
			t.Fatal(err)
		}
		read := src.Parts(tensor.Name, k, n, kernel.FP32, 1)
		for lo := 0; lo < n; lo += 5 {
			hi := min(lo+5, n)
			part, err := read(0, lo, hi)
			if err != nil {
				t.Fatal(err)
			}
			for j := lo; j < hi; j++ {
				for r := range k {
					want := float64(whole[r*n+j])
					for i := 0; adapted && i < 3; i++ {
						want += 4.0 / 3 * float64(low.A[i*k+r]) * float64(low.B[j*3+i])
					}
					at := func() float32 {
						if part.Rows != nil {
							return part.Rows[r*part.LD+j-lo]
						}
						return part.Columns[(j-lo)*k+r]
					}
					if got := float64(at()); math.Abs(got-want) > 1e-5 {
						t.Fatalf("%s[%d,%d] is read as %v, not %v", tensor.Name, r, j, got, want)
					}
				}
			}
		}
	}
}

// Nothing of where weights came from is in use once they are packed, and each
// tensor is told to be done with: of a mapped file, nothing stays in memory.
func TestPackedWeightsAreCopies(t *testing.T) {
	const vocab = 50
	text := []int32{3, 1, 4, 1, 5, 9, 2, 6}
	cpu := newCPU(t, 2)
	for _, d := range []kernel.DType{kernel.FP32, kernel.BF16, kernel.Q8_0, kernel.Q4_0} {
		p := randomModel(23, vocab, 32)
		done := map[string]bool{}
		for _, tensor := range p.Tensors {
			done[tensor.Name] = false
		}
		r, err := NewReader(told{FromParams(p, nil), done}, cpu, d)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		want := slices.Clone(r.Read(Part{new(Text), text}))
		for _, tensor := range p.Tensors {
			if !done[tensor.Name] {
				t.Errorf("%v: %s is never done with", d, tensor.Name)
			}
			for i := range tensor.Data {
				tensor.Data[i] = float32(math.NaN())
			}
		}
		if got := r.Read(Part{new(Text), text}); !slices.Equal(got, want) {
			t.Errorf("%v: the logits changed with the weights they were packed of", d)
		}
	}
}

// told notes which tensors are done with.
type told struct {
	Source
	done map[string]bool
}

func (s told) Done(name string) { s.done[name] = true }
