package model

import (
	"promptgen/internal/kernel"
	"promptgen/internal/splitmix"
)

// DropKey names the random numbers of one micro-batch's dropout. A mask is a
// function of it and of the element's place, so it is computed again in the
// backward pass instead of being stored, and does not depend on how the
// effective batch is cut into micro-batches.
type DropKey struct {
	Seed, Step uint64
	Seq0       int // index in the effective batch of the first sequence given
}

// dropSite is a place in the model where values are dropped.
type dropSite uint64

const (
	dropEmbedding dropSite = iota
	dropAttention          // the softmax's weights
	dropAttnResidual
	dropMLPResidual
	roundMoments // not dropout: see RoundingKey
	dropLowAttn  // what goes into the adapters of c_attn, attn.c_proj, c_fc, mlp.c_proj
	dropLowProj
	dropLowFc
	dropLowOut
)

// key is what the random bits of a site follow from.
func key(seed, step, place uint64, site dropSite) uint64 {
	h := splitmix.Mix(seed + splitmix.Gamma)
	for _, v := range [...]uint64{step, place, uint64(site)} {
		h = splitmix.Mix((h ^ v) + splitmix.Gamma)
	}
	return h
}

// dropout is the mask of a site; off outside of training.
func (g *Graph) dropout(p float64, layer int, site dropSite) kernel.Dropout {
	if p == 0 || !g.run.training {
		return kernel.Dropout{}
	}
	k := g.run.drop
	return kernel.Dropout{P: float32(p), Key: key(k.Seed, k.Step, uint64(layer), site), Row0: k.Seq0 * g.opt.SeqLen}
}
