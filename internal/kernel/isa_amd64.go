package kernel

import (
	"math"
	"sync"
	"time"

	"golang.org/x/sys/cpu"
)

// available lists the instruction sets of this machine, the best first.
func available() []*isa {
	sets := []*isa{goISA()}
	better := func(s *isa) { sets = append([]*isa{s}, sets...) }
	x := &cpu.X86
	if !x.HasAVX2 || !x.HasFMA || !x.HasBMI2 {
		return sets
	}
	better(avx2ISA())
	if !x.HasAVX512F || !x.HasAVX512BW || !x.HasAVX512DQ || !x.HasAVX512VL {
		return sets
	}
	better(avx512ISA())
	if x.HasAVX512BF16 {
		better(bf16ISA())
		if !bf16Pays() {
			sets[0], sets[1] = sets[1], sets[0]
		}
	}
	return sets
}

// bf16Pays tells whether products of bf16 pairs are faster than fp32's. On
// AMD's Zen 4 and 5 an instruction takes as long as a multiply-add and does
// twice the work; on Intel's cores, which leave bf16 to AMX, it takes four times
// as long. Between these two there is nothing to mistake, so a few microseconds
// of measuring decide, the best of several: one burst may be interrupted.
var bf16Pays = sync.OnceValue(func() bool {
	const rounds, bursts = 200, 8
	best := func(f func(int)) time.Duration {
		least := time.Duration(math.MaxInt64)
		for range bursts {
			start := time.Now()
			f(rounds)
			least = min(least, time.Since(start))
		}
		return least
	}
	return best(peakBF16) < 2*best(peakAVX512)
})

func avx2ISA() *isa {
	t := tile{mr: 6, nr: 16, run: tile6x16}
	v := goVectors()
	v.add, v.scale, v.dot, v.maximum, v.exp, v.fetch = addAVX2, scaleAVX2, dotAVX2, maximumAVX2, expAVX2, fetch
	v.norm, v.normBack = normAVX2, normBackAVX2
	v.act, v.actGrad = actBy(geluAVX2, erfGELUAVX2, reluAVX2, actGo), actBy(geluGradAVX2, erfGELUGradAVX2, reluGradAVX2, actGradGo)
	v.drop = func(y, x []float32, d dropRow, j int) { dropAVX2(y, x, uint32(j)+d.a, d.b, d.below, d.scale) }
	v.normStat = func(x []float32, eps float32) (float32, float32) { return normStat(x, eps, momentsAVX2) }
	v.adam = func(s *adamStep, w, g, m, v []float32) { adamAVX2(&s.gradScale, w, g, m, v) }
	v.adam16 = adam16By(8, adam16AVX2)
	v.squares = func(x []float32) float64 { return squaresBy(x, 4, squaresAVX2) }
	v.round = roundAVX2
	return &isa{
		name: "avx2", expRow: expRowBy(expAVX2), fence: func() {}, direct: tile{mr: 4, nr: 24, runDirect: direct4x24}, tile: t, wide: t, bf16: rounding(t), bf16Wide: rounding(t), vectors: v,
		pack: packers{copyRows: copyRowsBy(8, packCopyAVX2), turn: turn8},
		attn: attnAVX2(false), attnBF16: attnAVX2(true),
		peak: peakOf{flops: 12 * 8 * 2, fp32: peakAVX2, read: readAVX2},
	}
}

func avx512ISA() *isa {
	t := tile{mr: 12, nr: 32, run: tile12x32, splitA: packSplit12, splitB: packSplit32}
	wide := tile{mr: 8, nr: 48, run: tile8x48, splitA: packSplit8, splitB: packSplit48}
	v := goVectors()
	v.add, v.scale, v.dot, v.maximum, v.exp, v.fetch = addAVX512, scaleAVX512, dotAVX512, maximumAVX512, expAVX512, fetch
	v.norm, v.normBack = normAVX512, normBackAVX512
	v.act, v.actGrad = actBy(geluAVX512, erfGELUAVX512, reluAVX512, actGo), actBy(geluGradAVX512, erfGELUGradAVX512, reluGradAVX512, actGradGo)
	v.drop = func(y, x []float32, d dropRow, j int) { dropAVX512(y, x, uint32(j)+d.a, d.b, d.below, d.scale) }
	v.normStat = func(x []float32, eps float32) (float32, float32) { return normStat(x, eps, momentsAVX512) }
	v.adam = func(s *adamStep, w, g, m, v []float32) { adamAVX512(&s.gradScale, w, g, m, v) }
	v.adam16 = adam16By(16, adam16AVX512)
	v.squares = func(x []float32) float64 { return squaresBy(x, 8, squaresAVX512) }
	v.round = roundAVX512
	return &isa{
		name: "avx512", expRow: expRowPast, fence: fence, direct: tile{mr: 4, nr: 64, runDirect: direct4x64}, tile: t, wide: wide, bf16: rounding(t), bf16Wide: rounding(wide), vectors: v,
		pack: packers{copyRows: copyRowsBy(16, packCopyAVX512), turn: turn16},
		attn: attnAVX512(false), attnBF16: attnAVX512(true),
		peak: peakOf{flops: 24 * 16 * 2, fp32: peakAVX512, read: readAVX512},
	}
}

// bf16ISA is AVX-512 with its bf16 products.
func bf16ISA() *isa {
	s := avx512ISA()
	s.name = "avx512bf16"
	s.bf16 = tile{mr: 12, nr: 32, pairs: true, run: tileBF12x32, splitA: packSplit12BF16, splitB: packSplit32BF16}
	s.bf16Wide = tile{mr: 8, nr: 48, pairs: true, run: tileBF8x48, splitA: packSplit8BF16, splitB: packSplit48BF16}
	s.attnBF16 = attnPairs()
	s.bf16Low = tile{mr: 8, nr: 32, pairs: true, run: tileBF8x32, splitB: packSplit32BF16}
	s.expPanels = expPanels
	s.peak.bf16 = peakBF16
	return s
}

// rounding is t with operands rounded to bf16, for machines that cannot
// multiply bf16.
func rounding(t tile) tile {
	t.round = true
	return t
}

// actBy applies the activations, or their gradients, by the loops given and what
// is left by rest.
func actBy(geluNew, gelu, relu func(y, x []float32), rest func(y, x []float32, a Act)) func(y, x []float32, a Act) {
	return func(y, x []float32, a Act) {
		switch a {
		case ActGELUNew:
			geluNew(y, x)
		case ActGELU:
			gelu(y, x)
		case ActReLU:
			relu(y, x)
		default:
			rest(y, x, a)
		}
	}
}

// normStat takes the mean first and the variance about it.
func normStat(x []float32, eps float32, moments func(x []float32, centre float32) (sum, sq float32)) (mean, rstd float32) {
	n := float32(len(x))
	sum, _ := moments(x, 0)
	mean = sum / n
	_, sq := moments(x, mean)
	return mean, float32(1 / math.Sqrt(float64(sq/n)+float64(eps)))
}

// squaresBy sums whole registers by f and the rest in Go.
func squaresBy(x []float32, lanes int, f func([]float32) float64) float64 {
	n := len(x) / lanes * lanes
	return f(x[:n]) + squaresGo(x[n:])
}

// adam16By updates whole registers by f and the rest in Go, which gives the same
// to the bit.
func adam16By(lanes int, f func(consts *float32, w, g []float32, m, v []uint16, start, b uint32)) func(*adamStep, []float32, []float32, []uint16, []uint16, draw, int) {
	return func(s *adamStep, w, g []float32, m, v []uint16, d draw, j int) {
		n := len(w) / lanes * lanes
		f(&s.gradScale, w[:n], g[:n], m[:n], v[:n], uint32(j)+d.a, d.b)
		adam16Go(s, w[n:], g[n:], m[n:], v[n:], d, j+n)
	}
}

// expRowPast writes whole blocks past the caches.
func expRowPast(y, x []float32, off float32) float32 {
	blocks := len(x) / 32
	var sum float32
	if blocks > 0 {
		sum = expPast(blocks, &y[0], &x[0], off)
	}
	n := blocks * 32
	return sum + expAVX512(y[n:len(x)], x[n:], 1, off)
}
