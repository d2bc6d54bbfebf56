package ref

import (
	"math"
	"math/rand/v2"
	"testing"
)

func random(r *rand.Rand, n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = r.NormFloat64()
	}
	return x
}

// checkGrad compares grad with central differences of f with respect to x.
func checkGrad(t *testing.T, name string, x, grad []float64, f func() float64) {
	t.Helper()
	const h = 1e-5
	for i := range x {
		old := x[i]
		x[i] = old + h
		up := f()
		x[i] = old - h
		down := f()
		x[i] = old
		if want := (up - down) / (2 * h); math.Abs(want-grad[i]) > 1e-6*(1+math.Abs(want)) {
			t.Errorf("%s: gradient %d is %g, by differences %g", name, i, grad[i], want)
		}
	}
}

func inner(x, y []float64) float64 {
	s := 0.0
	for i := range x {
		s += x[i] * y[i]
	}
	return s
}

func TestActivationGradients(t *testing.T) {
	for _, a := range []struct {
		name    string
		f, grad func(float64) float64
	}{{"gelu_new", GELUNew, GELUNewGrad}, {"gelu", GELU, GELUGrad}, {"relu", ReLU, ReLUGrad}} {
		for x := -5.05; x < 5; x += 0.1 {
			at := []float64{x}
			checkGrad(t, a.name, at, []float64{a.grad(x)}, func() float64 { return a.f(at[0]) })
		}
	}
}

func TestLayerNormGradients(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const rows, width = 3, 5
	x, gain, bias, dy := random(r, rows*width), random(r, width), random(r, width), random(r, rows*width)
	loss := func() float64 {
		y, _, _ := LayerNormForward(x, gain, bias, rows, width, 1e-5)
		return inner(y, dy)
	}
	_, mean, rstd := LayerNormForward(x, gain, bias, rows, width, 1e-5)
	dx, dgain, dbias := LayerNormBackward(dy, x, mean, rstd, gain, rows, width)
	checkGrad(t, "dx", x, dx, loss)
	checkGrad(t, "dgain", gain, dgain, loss)
	checkGrad(t, "dbias", bias, dbias, loss)
}

func TestAttentionGradients(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	a := Attention{Batch: 2, SeqLen: 4, Heads: 2, HeadDim: 3}
	a.QKV = random(r, 2*4*3*6)
	a.Mask = Mask(0.3, 7, 0, 2*2*4, 4)
	dout := random(r, 2*4*6)
	checkGrad(t, "dqkv", a.QKV, a.Backward(dout), func() float64 {
		out, _ := a.Forward()
		return inner(out, dout)
	})
}

func TestHeadGradients(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	const width, vocab, scale = 4, 7, 0.3
	h, w, targets := random(r, 5*width), random(r, vocab*width), []int32{3, -1, 0, 6, 6}
	for _, smooth := range []float64{0, 0.1} {
		loss := func() float64 {
			losses, _, _ := HeadLoss(h, w, targets, width, vocab, scale, smooth)
			return scale * inner(losses, []float64{1, 1, 1, 1, 1})
		}
		_, dh, dw := HeadLoss(h, w, targets, width, vocab, scale, smooth)
		checkGrad(t, "dh", h, dh, loss)
		checkGrad(t, "dw", w, dw, loss)
	}
}

func TestEmbedGradients(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	const vocab, seqLen, width = 5, 3, 2
	ids := []int32{1, 4, 1, 0, 1, 2}
	wte, wpe, dy := random(r, vocab*width), random(r, seqLen*width), random(r, len(ids)*width)
	mask := Mask(0.4, 9, 0, len(ids), width)
	loss := func() float64 { return inner(EmbedForward(ids, wte, wpe, mask, seqLen, width), dy) }
	dwte, dwpe := EmbedBackward(dy, ids, mask, vocab, seqLen, width)
	checkGrad(t, "dwte", wte, dwte, loss)
	checkGrad(t, "dwpe", wpe, dwpe, loss)
}

// The mask keeps a share of 1-p, in any direction and for any key.
func TestDropoutShare(t *testing.T) {
	const n = 400
	for _, p := range []float32{0.1, 0.5, 0.9} {
		for key := range uint64(4) {
			kept := 0.0
			for r := range n {
				for j := range n {
					if keeps(p, key, r, j) {
						kept++
					}
				}
			}
			if share := kept / n / n; math.Abs(share-float64(1-p)) > 5*math.Sqrt(float64(p*(1-p)))/n {
				t.Errorf("p %g key %d: %g kept", p, key, share)
			}
		}
	}
}

// Label smoothing must be PyTorch's: torch.nn.functional.cross_entropy(x, y,
// label_smoothing=0.1, reduction='none') and its gradient, in float64.
func TestLabelSmoothingAgainstPyTorch(t *testing.T) {
	logits := []float64{1, -2, 0.5, 3, 0.25, 0, -1, 2}
	one := []float64{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}
	losses, dh, _ := HeadLoss(logits, one, []int32{2, 0}, 4, 4, 1, 0.1)
	got := append(losses, dh...)
	for i, want := range []float64{2.689753447679352, 2.0504228225110754, 0.08555375036173923, -0.01949585287241633, -0.8579457608593886,
		0.7918878633700657, -0.7971212618778818, 0.07459206138768881, 0.01163787188841494, 0.710891328601778} {
		if math.Abs(got[i]-want) > 1e-12 {
			t.Errorf("%d: %v, want %v", i, got[i], want)
		}
	}
}
