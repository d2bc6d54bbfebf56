package ref

import "math"

// HeadLoss returns -log softmax(h·wᵀ)[r, targets[r]] for each row, 0 where the
// target is negative, and the gradients of scale*sum(losses): dh and dw. A share
// smooth of each target is divided evenly among all tokens (label smoothing,
// Szegedy et al. 2016).
func HeadLoss(h, w []float64, targets []int32, width, vocab int, scale, smooth float64) (losses, dh, dw []float64) {
	rows := len(targets)
	losses = make([]float64, rows)
	logits := Gemm(rows, vocab, width, false, true, h, w, nil)
	for r, target := range targets {
		row := logits[r*vocab : (r+1)*vocab]
		if target < 0 {
			clear(row)
			continue
		}
		top, sum, mean := math.Inf(-1), 0.0, 0.0
		for _, v := range row {
			top = math.Max(top, v)
			mean += v / float64(vocab)
		}
		for _, v := range row {
			sum += math.Exp(v - top)
		}
		losses[r] = top + math.Log(sum) - (1-smooth)*row[target] - smooth*mean
		for j, v := range row {
			row[j] = scale * (math.Exp(v-top)/sum - smooth/float64(vocab))
		}
		row[target] -= scale * (1 - smooth)
	}
	dh = Gemm(rows, width, vocab, false, false, logits, w, nil)
	dw = Gemm(vocab, width, rows, true, false, logits, h, nil)
	return losses, dh, dw
}

// SumSquares is Σx².
func SumSquares(x []float64) float64 {
	s := 0.0
	for _, v := range x {
		s += v * v
	}
	return s
}

// AdamW is one step of the optimizer.
type AdamW struct {
	LR, Beta1, Beta2, Eps, WeightDecay, GradScale float64

	Step int
}

// moments updates m and v.
func (o *AdamW) moments(g, m, v []float64) {
	for i, x := range g {
		x *= o.GradScale
		m[i] = o.Beta1*m[i] + (1-o.Beta1)*x
		v[i] = o.Beta2*v[i] + (1-o.Beta2)*x*x
	}
}

// Torch is torch.optim.AdamW: decay first, eps after the bias correction.
func (o *AdamW) Torch(w, g, m, v []float64) {
	o.moments(g, m, v)
	fix1, fix2 := 1-math.Pow(o.Beta1, float64(o.Step)), 1-math.Pow(o.Beta2, float64(o.Step))
	for i := range w {
		w[i] -= o.LR * o.WeightDecay * w[i]
		w[i] -= o.LR / fix1 * m[i] / (math.Sqrt(v[i])/math.Sqrt(fix2) + o.Eps)
	}
}

// HF is AdamW of transformers 2.1.1: eps before the bias correction, decay last.
func (o *AdamW) HF(w, g, m, v []float64) {
	o.moments(g, m, v)
	fix1, fix2 := 1-math.Pow(o.Beta1, float64(o.Step)), 1-math.Pow(o.Beta2, float64(o.Step))
	for i := range w {
		w[i] -= o.LR * math.Sqrt(fix2) / fix1 * m[i] / (math.Sqrt(v[i]) + o.Eps)
		w[i] -= o.LR * o.WeightDecay * w[i]
	}
}
