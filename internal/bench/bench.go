// Package bench measures how fast this program is on the machine it runs on, as
// a share of what the machine can do at most. Both are measured in the same
// process, one right after the other, since a machine's speed drifts.
package bench

import (
	"embed"
	"slices"
	"time"

	"promptgen/configs"
	"promptgen/internal/kernel"
	"promptgen/model"
)

//go:embed shapes/*.json
var shapes embed.FS

// Shape is a model and a batch that figures are quoted for.
type Shape struct {
	Config model.Config
	Batch  int // sequences in a step
}

// batches are the shapes that other programs' figures exist for.
var batches = map[string]int{"test": 8, "mini": 8, "small256": 4, "small1024": 1}

// Names lists the shapes that are known by name.
func Names() []string { return []string{"test", "mini", "small256", "small1024"} }

// DefaultVocab stands in for the vocabulary of a config that names none: that of
// bert-base-chinese, the original's.
const DefaultVocab = 21128

// defaultBatch is the train command's.
const defaultBatch = 8

// LoadShape reads a config file, a preset of configs, or one of Names.
func LoadShape(nameOrPath string) (Shape, error) {
	if slices.Contains(Names(), nameOrPath) {
		text, err := shapes.ReadFile("shapes/" + nameOrPath + ".json")
		if err != nil {
			return Shape{}, err
		}
		cfg, err := configs.Parse(nameOrPath, text)
		return Shape{cfg, batches[nameOrPath]}, err
	}
	cfg, err := configs.Load(nameOrPath)
	if cfg.VocabSize == 0 {
		cfg.VocabSize = DefaultVocab
	}
	return Shape{cfg, defaultBatch}, err
}

// TokenFlops is the number of floating-point operations that training on one
// token takes: three products of 2 operations with every matrix, forward and
// twice backward, and attention's causal half.
func TokenFlops(c model.Config) float64 {
	l, e, t := float64(c.NLayer), float64(c.NEmbd), float64(c.NCtx)
	matrices := l*(4*e*e+2*e*float64(c.Inner())) + float64(c.VocabSize)*e
	return 6*matrices + 6*l*t*e
}

// Machine is what the machine can do at most, as measured.
type Machine struct {
	FP32  float64 `json:"fp32_gflops"`
	BF16  float64 `json:"bf16_gflops"`
	Bytes float64 `json:"read_bytes_per_s"`
}

// limitTime is how long each limit is measured for.
const limitTime = 300 * time.Millisecond

// MeasureMachine measures the limits of cpu's threads, up to three times if the
// limit of a format is less than a rate that was reached: a virtual machine's
// two processors may share a core for a second and have one each in the next.
func MeasureMachine(cpu *kernel.CPU, d kernel.DType, reached float64) Machine {
	var m Machine
	for range 3 {
		l := kernel.MeasureLimits(cpu, limitTime)
		m.FP32, m.BF16, m.Bytes = max(m.FP32, l.FP32GFlops), max(m.BF16, l.BF16GFlops), max(m.Bytes, l.ReadGBs*1e9)
		if m.Limit(d) >= reached {
			break
		}
	}
	return m
}

// Limit is the rate, in GFLOP/s, that products of a format cannot exceed.
func (m Machine) Limit(d kernel.DType) float64 {
	if d == kernel.BF16 {
		return m.BF16
	}
	return m.FP32
}

// median of at least one value.
func median(x []time.Duration) time.Duration {
	x = slices.Clone(x)
	slices.Sort(x)
	return x[len(x)/2]
}
