// Command decode writes the assembly of package internal/decode: micro-kernels
// that multiply a few rows of activations by a panel of 32 columns of packed
// weights. See that package for the layouts.
//
//	cd internal/kernel/gen && go run ./decode -out ../../decode/kernels_amd64.s -stubs ../../decode/kernels_amd64.go -pkg decode
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	constants()
	for m := 1; m <= 12; m++ {
		floatTile("tileF32x512", zmm, m, 4, fmaF32)
		floatTile("tileBF16x512", zmm, m, 4, dotBF16)
		floatTile("tileWiden512", zmm, m, 8, widen)
		squeezedTile("tileSqueezedBF16", m, pairs, false)
		squeezedTile("tileSqueezedWiden", m, widened, false)
		squeezedTile("tileSqueezedF32", m, floats, false)
	}
	squeezedTile("tileExpandBF16", 12, pairs, true)
	squeezedTile("tileExpandWiden", 12, widened, true)
	squeezedTile("tileExpandF32", 12, floats, true)
	for m := 1; m <= 6; m++ {
		quantTile("tileQ8x512", m, q8)
		quantTile("tileQ4x512", m, q4)
		quantTile("tileBare512", m, bare)
	}
	for m := 1; m <= 3; m++ {
		floatTile("tileF32x256", ymm, m, 4, fmaF32)
		floatTile("tileWiden256", ymm, m, 8, widen)
	}
	for m := 1; m <= 2; m++ {
		quantTileAVX2("tileQ8x256", m, q8)
		quantTileAVX2("tileQ4x256", m, q4)
		quantTileAVX2("tileBare256", m, bare)
	}
	for _, f := range []walkFormat{walkF32, walkBF16, walkWide, walkQ8, walkQ4, walkBare} {
		if f.aheadKeys > 0 {
			scores(f)
		}
		if f.aheadValues > 0 {
			values(f, 1)
			values(f, 2)
		}
	}
	quantize("quantizeAVX512", zmm)
	quantize("quantizeAVX2", ymm)
	scaled("quantizeScaledAVX2", ymm)
	softmax()
	storeQ4()
	storeKeyQ4()
	roundBF16()
	packF32()
	packBF16()
	packQ8()
	packQ4()
	squeeze()
	split()
	expand("expandBF16AVX512", zmm, pairs)
	expand("expandWidenAVX512", zmm, widened)
	expand("expandF32AVX512", zmm, floats)
	expand("expandBF16AVX2", ymm, pairs)
	expand("expandWidenAVX2", ymm, widened)
	Generate()
}

var (
	zmm = []VecPhysical{Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31}
	xmm = []VecPhysical{X0, X1, X2, X3, X4, X5, X6, X7, X8, X9, X10, X11, X12, X13, X14, X15}
	ymm = []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15}
)

func end() {
	VZEROUPPER()
	RET()
}
