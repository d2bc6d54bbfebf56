package decode

import "golang.org/x/sys/cpu"

// findKernels returns what goes with an instruction set of package kernel.
func findKernels(isa string) *kernels {
	switch isa {
	case "avx2":
		return avx2Kernels()
	case "avx512":
		k := avx512Kernels([]tile{
			tileWiden512_1, tileWiden512_2, tileWiden512_3, tileWiden512_4, tileWiden512_5, tileWiden512_6,
			tileWiden512_7, tileWiden512_8, tileWiden512_9, tileWiden512_10, tileWiden512_11, tileWiden512_12,
		})
		k.widenBF16(expansion{run: expandWidenAVX512, first: tileExpandWiden_12})
		k.bf16.squeezing.tiles = []squeezedTile{
			tileSqueezedWiden_1, tileSqueezedWiden_2, tileSqueezedWiden_3, tileSqueezedWiden_4, tileSqueezedWiden_5, tileSqueezedWiden_6,
			tileSqueezedWiden_7, tileSqueezedWiden_8, tileSqueezedWiden_9, tileSqueezedWiden_10, tileSqueezedWiden_11, tileSqueezedWiden_12,
		}
		k.bf16.scores, k.bf16.values = scoresWiden512, [2]walk{valuesWiden512_1, valuesWiden512_2}
		return k
	case "avx512bf16":
		k := avx512Kernels([]tile{
			tileBF16x512_1, tileBF16x512_2, tileBF16x512_3, tileBF16x512_4, tileBF16x512_5, tileBF16x512_6,
			tileBF16x512_7, tileBF16x512_8, tileBF16x512_9, tileBF16x512_10, tileBF16x512_11, tileBF16x512_12,
		})
		k.bf16.squeezing.tiles = []squeezedTile{
			tileSqueezedBF16_1, tileSqueezedBF16_2, tileSqueezedBF16_3, tileSqueezedBF16_4, tileSqueezedBF16_5, tileSqueezedBF16_6,
			tileSqueezedBF16_7, tileSqueezedBF16_8, tileSqueezedBF16_9, tileSqueezedBF16_10, tileSqueezedBF16_11, tileSqueezedBF16_12,
		}
		k.bf16.squeezing.many = expansion{run: expandBF16AVX512, first: tileExpandBF16_12}
		k.bf16.scores, k.bf16.values = scoresBF16x512, [2]walk{valuesBF16x512_1, valuesBF16x512_2}
		k.round = roundBF16AVX512
		return k
	}
	return goKernels()
}

func avx2Kernels() *kernels {
	k := newKernels(
		[]tile{tileF32x256_1, tileF32x256_2, tileF32x256_3},
		[]tile{tileWiden256_1, tileWiden256_2, tileWiden256_3},
		[]tile{tileQ8x256_1, tileQ8x256_2},
		[]tile{tileQ4x256_1, tileQ4x256_2},
		[]tile{tileBare256_1, tileBare256_2},
	)
	k.bf16.squeezing = squeezingBF16(squeezeGo)
	k.bf16.squeezing.few.run = expandBF16AVX2
	k.widenBF16(expansion{run: expandWidenAVX2})
	k.quantize, k.quantizeScaled = quantizeAVX2, quantizeScaledAVX2
	return k
}

// avx512Kernels is a level with such tiles of bf16; what else is its own is for
// the caller.
func avx512Kernels(bf16 []tile) *kernels {
	k := newKernels(
		[]tile{
			tileF32x512_1, tileF32x512_2, tileF32x512_3, tileF32x512_4, tileF32x512_5, tileF32x512_6,
			tileF32x512_7, tileF32x512_8, tileF32x512_9, tileF32x512_10, tileF32x512_11, tileF32x512_12,
		},
		bf16,
		[]tile{tileQ8x256_1, tileQ8x256_2},
		[]tile{tileQ4x256_1, tileQ4x256_2},
		[]tile{tileBare256_1, tileBare256_2},
	)
	k.f32.scores, k.f32.values = scoresF32x512, [2]walk{valuesF32x512_1, valuesF32x512_2}
	k.f32.pack, k.bf16.pack, k.q8.pack, k.q4.pack = packF32AVX512, packBF16AVX512, packQ8AVX512, packQ4AVX512
	halves, floats := squeezingBF16(squeezeAVX512), squeezingF32(splitAVX512, squeezeAVX512)
	halves.few.run, floats.few.run = expandBF16AVX512, expandF32AVX512
	floats.tiles = []squeezedTile{
		tileSqueezedF32_1, tileSqueezedF32_2, tileSqueezedF32_3, tileSqueezedF32_4, tileSqueezedF32_5, tileSqueezedF32_6,
		tileSqueezedF32_7, tileSqueezedF32_8, tileSqueezedF32_9, tileSqueezedF32_10, tileSqueezedF32_11, tileSqueezedF32_12,
	}
	floats.many = expansion{run: expandF32AVX512, first: tileExpandF32_12}
	k.bf16.squeezing, k.f32.squeezing = halves, floats
	k.quantize, k.softmax = quantizeAVX512, softmaxAVX512
	k.storeQ4, k.storeKeyQ4 = storeQ4AVX512, storeKeyQ4AVX512
	if cpu.X86.HasAVX512VNNI {
		k.q8.tiles = []tile{tileQ8x512_1, tileQ8x512_2, tileQ8x512_3, tileQ8x512_4, tileQ8x512_5, tileQ8x512_6}
		k.q8.scores, k.q4.scores, k.bare.values = scoresQ8x512, scoresQ4x512, [2]walk{valuesBare512_1, valuesBare512_2}
		k.q4.tiles = []tile{tileQ4x512_1, tileQ4x512_2, tileQ4x512_3, tileQ4x512_4, tileQ4x512_5, tileQ4x512_6}
		k.bare.tiles = []tile{tileBare512_1, tileBare512_2, tileBare512_3, tileBare512_4, tileBare512_5, tileBare512_6}
	}
	return k
}
