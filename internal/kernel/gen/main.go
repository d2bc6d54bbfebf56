// Command gen writes the assembly of package kernel. It is a module of its own
// so that nobody who builds the program needs avo:
//
//	cd internal/kernel/gen && go run . -out ../kernels_amd64.s -stubs ../kernels_amd64.go -pkg kernel
//
// The loops over vectors are written once, over a level (AVX-512 or AVX2) that
// knows its registers and how to touch less than a whole one.
package main

import (
	"flag"
	"fmt"

	. "github.com/mmcloughlin/avo/build"
)

var attention = flag.Bool("attention", false, "write the kernels of attention instead of all others")

func main() {
	flag.Parse()
	ConstraintExpr("amd64")
	if *attention {
		attentionConstants()
		for _, l := range []level{avx512, avx2} {
			attentionProducts(l)
			attentionPasses(l)
			attentionRows(l)
		}
		packTurnAVX2()
		Generate()
		return
	}
	constants()

	tileAVX512("tile12x32", 12, 2, false)
	tileAVX512("tile8x48", 8, 3, false)
	tileAVX512("tileBF12x32", 12, 2, true)
	tileAVX512("tileBF8x48", 8, 3, true)
	tileAVX512("tileBF8x32", 8, 2, true)
	tileAVX2()
	directTile(avx512, "direct4x64", 4, 4)
	directTile(avx2, "direct4x24", 4, 3)

	packCopy(avx512)
	packCopy(avx2)
	packCopyBF16()
	for _, s := range []struct{ width, columns int }{{8, 48}, {12, 48}, {32, 96}, {48, 96}} {
		packSplit(fmt.Sprintf("packSplit%d", s.width), s.width, s.columns, false)
		packSplit(fmt.Sprintf("packSplit%dBF16", s.width), s.width, s.columns, true)
	}
	expPast()
	expPanels()
	turnPanels()
	fence()
	for _, bf16 := range []bool{false, true} {
		packTurn("packTurn", bf16, false)
		packTurn("packTurnPast", bf16, true)
	}

	for _, l := range []level{avx512, avx2} {
		l.add()
		l.scale()
		l.dot()
		l.maximum()
		l.exp()
		l.gelu()
		l.geluGrad()
		l.relu()
		l.reluGrad()
		l.erf()
		l.erfGrad()
		l.drop()
		l.normStat()
		l.norm()
		l.normBack()
		l.adam()
		l.adam16()
		l.squares()
		l.round()
	}
	fetch()
	limits()
	Generate()
}
