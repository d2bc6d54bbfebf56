package model

import (
	"fmt"
	"math"
)

// FirstNotFinite names the first sublayer of the last micro-batch's forward
// pass whose output has a value that is not finite; "" where all are. It reads
// what the forward pass has kept and costs about as much as a LayerNorm.
func (g *Graph) FirstNotFinite() string {
	bad := func(buf []float32, width int) bool {
		return g.run.rows > 0 && !IsFinite(g.cpu.SumSquares(g.rows(buf, width)))
	}
	width := g.cfg.NEmbd
	if bad(g.buf.embd, width) {
		return "the embedding"
	}
	for l := range g.cfg.NLayer {
		if bad(g.buf.attn[l].y, width) {
			return fmt.Sprintf("transformer.h.%d.attn", l)
		}
		if bad(g.buf.mlp[l].y, width) {
			return fmt.Sprintf("transformer.h.%d.mlp", l)
		}
	}
	if !IsFinite(g.cpu.SumSquares(g.p.LNFGain) + g.cpu.SumSquares(g.p.LNFBias)) {
		return "transformer.ln_f"
	}
	if bad(g.buf.losses, 1) {
		return "the head (logits and loss)"
	}
	return ""
}

// IsFinite says whether v is neither infinite nor NaN.
func IsFinite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
