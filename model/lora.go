package model

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"promptgen/internal/fault"
	"promptgen/internal/kernel"
)

// LoRA describes low-rank adapters (Hu et al. 2021). A matrix W [in, out] that
// is a target stays as it is, and x·W becomes x·W + s·(x·Aᵀ)·Bᵀ, s being
// Alpha/Rank; only A [Rank, in] and B [out, Rank] are trained. B begins as zero,
// and so with it what is added.
type LoRA struct {
	Rank    int      `json:"rank"` // 0: no adapters
	Alpha   float64  `json:"alpha,omitempty"`
	Dropout float64  `json:"dropout,omitempty"` // of the x that A is applied to, in training
	Targets []string `json:"targets,omitempty"` // ends of matrices' names: c_attn, c_proj, c_fc, mlp.c_proj, …
}

// DefaultTargets are all matrices of the layers, by the names that PEFT has for
// them.
func DefaultTargets() []string { return []string{"c_attn", "c_proj", "c_fc"} }

// MaxRank is more than any adapter has.
const MaxRank = 1 << 12

// On says whether there are adapters.
func (l LoRA) On() bool { return l.Rank > 0 }

// WithDefaults fills in what was left out of adapters: an alpha of twice the
// rank, and all targets.
func (l LoRA) WithDefaults() LoRA {
	if !l.On() || l.Rank > MaxRank {
		return l // without a rank there is nothing to go by
	}
	if l.Alpha == 0 {
		l.Alpha = 2 * float64(l.Rank)
	}
	if len(l.Targets) == 0 {
		l.Targets = DefaultTargets()
	}
	return l
}

// Scale is what the adapters' product is multiplied by.
func (l LoRA) Scale() float32 { return float32(l.Alpha / float64(l.Rank)) }

// Faults lists what is wrong with the adapters for models of a shape.
func (l LoRA) Faults(c Config) (faults fault.List) {
	if l.Rank < 0 || l.Rank > MaxRank {
		faults.Addf("lora-rank must be between 1 and %d, not %d", MaxRank, l.Rank)
		l.Rank = 1 // what was left out is no fault beside this one
		l = l.WithDefaults()
	}
	if l.Rank == 0 {
		if l.Alpha != 0 || l.Dropout != 0 || len(l.Targets) > 0 {
			faults.Addf("lora-alpha, lora-dropout and lora-target take a lora-rank")
		}
		return faults
	}
	if !(l.Alpha > 0 && l.Alpha <= 1e6) {
		faults.Addf("lora-alpha must be above 0 and at most 1e6, not %g", l.Alpha)
	}
	if !(l.Dropout >= 0 && l.Dropout < 1) {
		faults.Addf("lora-dropout must be at least 0 and below 1, not %g", l.Dropout)
	}
	for _, t := range l.Targets {
		if !slices.ContainsFunc(c.Tensors(false), func(s TensorSpec) bool { return isTarget(s, t) }) {
			faults.Addf("lora-target %q names no matrix of a layer: use c_attn, c_proj (attn.c_proj, mlp.c_proj) or c_fc", t)
		}
	}
	if len(l.Targets) == 0 {
		faults.Addf("lora-target: no matrix is named")
	}
	return faults
}

// isTarget says whether a tensor is a matrix of a layer that a target means.
func isTarget(s TensorSpec, target string) bool {
	return len(s.Shape) == 2 && strings.HasPrefix(s.Name, "transformer.h.") && strings.HasSuffix(s.Name, "."+target+".weight")
}

// Adapts says whether a tensor of the model has an adapter.
func (l LoRA) Adapts(s TensorSpec) bool {
	return l.On() && slices.ContainsFunc(l.Targets, func(t string) bool { return isTarget(s, t) })
}

// Tensors lists the adapters' weights, A and B of each matrix in the order of
// Config.Tensors, by PEFT's names.
func (l LoRA) Tensors(c Config) (specs []TensorSpec) {
	if !l.On() {
		return nil
	}
	for _, s := range c.Tensors(false) {
		if l.Adapts(s) {
			a, b := AdapterNames(s.Name)
			specs = append(specs, TensorSpec{a, []int{l.Rank, s.Shape[0]}}, TensorSpec{b, []int{s.Shape[1], l.Rank}})
		}
	}
	return specs
}

// AdapterNames are PEFT's names of the two weights beside a matrix.
func AdapterNames(matrix string) (a, b string) {
	stem := "base_model.model." + strings.TrimSuffix(matrix, ".weight")
	return stem + ".lora_A.weight", stem + ".lora_B.weight"
}

// Len is the number of the adapters' weights.
func (l LoRA) Len(c Config) (n int64) {
	for _, s := range l.Tensors(c) {
		n += int64(s.Len())
	}
	return n
}

// LowRank is the adapter of one matrix [in, out]; nil slices: it has none.
type LowRank struct {
	A []float32 // [rank, in]
	B []float32 // [out, rank]
}

// Adapt is the parameters p, which it shares, with adapters that lie in an arena
// of LoRA.Len elements.
func (p *Params) Adapt(l LoRA, arena []float32) *Params {
	data := make([][]float32, 0, len(p.Tensors))
	for _, t := range p.Tensors {
		data = append(data, t.Data)
	}
	for _, s := range l.Tensors(p.Config) {
		n := s.Len()
		data, arena = append(data, arena[:n:n]), arena[n:]
	}
	return paramsFrom(p.Config, !p.HeadTied, l, data)
}

// Adapters are the tensors of p that belong to adapters.
func (p *Params) Adapters() []Tensor {
	return p.Tensors[len(p.Tensors)-len(p.LoRA.Tensors(p.Config)):]
}

// InitAdapters draws A uniformly from ±1/√in, as PEFT does, and clears B.
func (p *Params) InitAdapters(seed uint64) {
	first := len(p.Tensors) - len(p.Adapters())
	for i, t := range p.Adapters() {
		if i%2 == 1 {
			clear(t.Data)
			continue
		}
		r := rand.New(rand.NewPCG(seed, uint64(first+i)))
		bound := 1 / math.Sqrt(float64(t.Shape[1]))
		for j := range t.Data {
			t.Data[j] = float32(bound * (2*r.Float64() - 1))
		}
	}
}

// Adapter is the adapter of a matrix, by its name; ok is false where it has none.
func (p *Params) Adapter(matrix string) (low LowRank, ok bool) {
	nameA, _ := AdapterNames(matrix)
	all := p.Adapters()
	i := slices.IndexFunc(all, func(t Tensor) bool { return t.Name == nameA })
	if i < 0 {
		return low, false
	}
	return LowRank{all[i].Data, all[i+1].Data}, true
}

// Add adds s·Aᵀ·Bᵀ to a matrix in place.
func (l LowRank) Add(cpu *kernel.CPU, matrix Tensor, rank int, s float32) {
	scaled := make([]float32, len(l.B))
	cpu.RowScale(scaled, l.B, s)
	cpu.Gemm(&kernel.Gemm{
		M: matrix.Shape[0], N: matrix.Shape[1], K: rank, TransA: true, TransB: true, Accumulate: true,
		A: l.A, B: scaled, C: matrix.Data,
	})
}
