package train

import (
	"os"
	"strconv"
	"strings"
	"time"

	"promptgen/train/runlog"
)

// line is a step as metrics.jsonl has it.
func (s StepInfo) line() runlog.Line {
	return runlog.Line{
		Step: s.Step, Epoch: s.Epoch, Loss: runlog.Number(s.Loss), LR: &s.LR, GradNorm: runlog.Number(s.GradNorm),
		Tokens: s.Tokens, TokensPerSec: s.TokensPerSec, PeakRSS: s.PeakRSS, Skipped: s.Skipped,
	}
}

// line is a validation as metrics.jsonl has it.
func (v ValidationInfo) line() runlog.Line {
	return runlog.Line{
		Step: v.Step, Epoch: v.Epoch, ValLoss: runlog.Number(v.Loss), ValPerplexity: runlog.Number(v.Perplexity), ValBits: v.BitsPerChar,
	}
}

// rssEvery is how old a reading of the process's memory may be: a reading costs
// some 50 µs, which small steps would notice.
const rssEvery = 250 * time.Millisecond

// memoryGauge reads the process's memory now and then.
type memoryGauge struct {
	last time.Time
	peak int64
}

func (g *memoryGauge) read() int64 {
	if now := time.Now(); now.Sub(g.last) > rssEvery {
		g.last, g.peak = now, PeakRSS()
	}
	return g.peak
}

// PeakRSS is the largest resident size that this process has had, in bytes; 0
// where the system does not tell.
func PeakRSS() int64 {
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
