package train

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"promptgen/internal/atomicdir"
)

// metricsName is the file of a run's figures: one JSON object a line.
const metricsName = "metrics.jsonl"

// metricsLog writes metrics.jsonl.
type metricsLog struct{ f *os.File }

// openMetrics starts the file with what a resumed run had written, which may be
// less than what the file holds: the steps after its last state are done again.
func openMetrics(out string, written []byte) (*metricsLog, error) {
	path := filepath.Join(out, metricsName)
	err := atomicdir.WriteFile(path, func(w io.Writer) error { _, err := w.Write(written); return err })
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return &metricsLog{f}, nil
}

func (m *metricsLog) step(s StepInfo) error { return m.line(s) }

func (m *metricsLog) validation(v ValidationInfo) error {
	return m.line(struct {
		Step       int     `json:"step"`
		Epoch      int     `json:"epoch"`
		Loss       float64 `json:"val_loss"`
		Perplexity float64 `json:"val_perplexity"`
		Bits       float64 `json:"val_bits_per_char,omitempty"`
	}{v.Step, v.Epoch, v.Loss, v.Perplexity, v.BitsPerChar})
}

func (m *metricsLog) line(v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		_, err = m.f.Write(append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", m.f.Name(), err)
	}
	return nil
}

func (m *metricsLog) close() error { return m.f.Close() }

// MarshalJSON writes null for what is not a number, which JSON cannot say.
func (s StepInfo) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Step         int      `json:"step"`
		Epoch        int      `json:"epoch"`
		Loss         *float64 `json:"loss"`
		LR           float64  `json:"lr"`
		GradNorm     *float64 `json:"grad_norm"`
		Tokens       int64    `json:"tokens"`
		TokensPerSec float64  `json:"tokens_per_s"`
		PeakRSS      int64    `json:"peak_rss_bytes"`
		Skipped      bool     `json:"skipped,omitempty"`
	}{s.Step, s.Epoch, finite(s.Loss), s.LR, finite(s.GradNorm), s.Tokens, s.TokensPerSec, s.PeakRSS, s.Skipped})
}

func finite(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// peakRSS is the largest resident size that this process has had, in bytes; 0
// where the system does not tell.
func peakRSS() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(status), "VmHWM:")
	if !ok {
		return 0
	}
	kb, err := strconv.ParseInt(strings.TrimSpace(strings.SplitN(rest, "kB", 2)[0]), 10, 64)
	if err != nil {
		return 0
	}
	return kb << 10
}
