//go:build amd64 && !purego

package native

import (
	"github.com/klauspost/cpuid/v2"

	"github.com/temper-ml/temper/core/tensor"
)

// levels tells which of the assembly levels this machine and its operating system support.
func levels() []string {
	var l []string
	if cpuid.CPU.Supports(cpuid.AVX2, cpuid.FMA3, cpuid.F16C, cpuid.BMI2) {
		l = append(l, avx2.level)
	} else {
		return nil
	}
	if cpuid.CPU.Supports(cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512DQ, cpuid.AVX512VL) {
		l = append(l, avx512.level)
		if cpuid.CPU.Has(cpuid.AVX512VNNI) {
			l = append(l, avx512VNNI.level)
			if cpuid.CPU.Has(cpuid.AVX512BF16) {
				l = append(l, avx512BF16.level)
				if cpuid.CPU.Supports(cpuid.AMXTILE, cpuid.AMXINT8, cpuid.AMXBF16) && offersAMX() {
					l = append(l, amxTiles.level)
				}
			}
		}
	}
	return l
}

func table(level string) *ops {
	switch level {
	case avx2.level:
		return &avx2
	case avx512.level:
		return &avx512
	case avx512VNNI.level:
		return &avx512VNNI
	case amxTiles.level:
		return &amxTiles
	}
	return &avx512BF16
}

// avx512VNNI is avx512 with VPDPBUSD for integer products.
var avx512VNNI = func() ops {
	o := avx512
	o.level, o.group, o.quantizeBytes = "avx512vnni", 4, quantizeBytesAVX512
	o.quantizeWords, o.sumInt8 = nil, sumInt8AVX512
	o.int8Tile = [15]int8Func{nil, int8VNNI1AVX512, int8VNNI2AVX512, int8VNNI3AVX512, int8VNNI4AVX512, int8VNNI5AVX512, int8VNNI6AVX512, int8VNNI7AVX512, int8VNNI8AVX512, int8VNNI9AVX512, int8VNNI10AVX512, int8VNNI11AVX512, int8VNNI12AVX512, int8VNNI13AVX512, int8VNNI14AVX512}
	o.rowWidth, o.blockRow = 16, map[tensor.DType]blockRowFunc{
		tensor.Q4_0: rowQ4_0AVX512, tensor.Q4_1: rowQ4_1AVX512, tensor.Q5_0: rowQ5_0AVX512, tensor.Q5_1: rowQ5_1AVX512, tensor.Q8_0: rowQ8_0AVX512,
		tensor.Q4_K: rowQ4_KAVX512, tensor.Q5_K: rowQ5_KAVX512, tensor.Q6_K: rowQ6_KAVX512,
	}
	o.fillPanel = map[tensor.DType]panelFunc{
		tensor.Q4_0: panelQ4_0AVX512, tensor.Q4_1: panelQ4_1AVX512, tensor.Q5_0: panelQ5_0AVX512, tensor.Q5_1: panelQ5_1AVX512, tensor.Q8_0: panelQ8_0AVX512,
		tensor.Q4_K: panelQ4_KAVX512, tensor.Q5_K: panelQ5_KAVX512, tensor.Q6_K: panelQ6_KAVX512,
	}
	o.blockRows = 6
	o.blocks = [2][2][7]blockFunc{{{nil, blocksVNNI16x1AVX512, blocksVNNI16x2AVX512, blocksVNNI16x3AVX512, blocksVNNI16x4AVX512, blocksVNNI16x5AVX512, blocksVNNI16x6AVX512}, {nil, blocksVNNI32x1AVX512, blocksVNNI32x2AVX512, blocksVNNI32x3AVX512, blocksVNNI32x4AVX512, blocksVNNI32x5AVX512, blocksVNNI32x6AVX512}}, {{nil, blocksVNNI16Minx1AVX512, blocksVNNI16Minx2AVX512, blocksVNNI16Minx3AVX512, blocksVNNI16Minx4AVX512, blocksVNNI16Minx5AVX512, blocksVNNI16Minx6AVX512}, {nil, blocksVNNI32Minx1AVX512, blocksVNNI32Minx2AVX512, blocksVNNI32Minx3AVX512, blocksVNNI32Minx4AVX512, blocksVNNI32Minx5AVX512, blocksVNNI32Minx6AVX512}}}
	return o
}()

// avx512BF16 is avx512VNNI with VDPBF16PS for Options.BF16.
var avx512BF16 = func() ops {
	o := avx512VNNI
	o.level, o.pairBF16, o.toBF16 = "avx512bf16", pairBF16AVX512, toBF16AVX512
	o.bf16Tile = &[2][15]tileFunc{
		{nil, bf16x1x1AVX512, bf16x2x1AVX512, bf16x3x1AVX512, bf16x4x1AVX512, bf16x5x1AVX512, bf16x6x1AVX512, bf16x7x1AVX512, bf16x8x1AVX512, bf16x9x1AVX512, bf16x10x1AVX512, bf16x11x1AVX512, bf16x12x1AVX512, bf16x13x1AVX512, bf16x14x1AVX512},
		{nil, bf16x1x2AVX512, bf16x2x2AVX512, bf16x3x2AVX512, bf16x4x2AVX512, bf16x5x2AVX512, bf16x6x2AVX512, bf16x7x2AVX512, bf16x8x2AVX512, bf16x9x2AVX512, bf16x10x2AVX512, bf16x11x2AVX512, bf16x12x2AVX512, bf16x13x2AVX512, bf16x14x2AVX512},
	}
	return o
}()

// amxTiles is avx512BF16 with products in tile registers.
var amxTiles = func() ops {
	o := avx512BF16
	o.level, o.amxInt8, o.amxBF16, o.scaleInt8 = "amx", int8AMX, bf16AMX, scaleInt8AVX512
	o.bf16Tile = nil
	clear(o.int8Tile[amxFew:])
	return o
}()

var expandAVX2 = map[tensor.DType]expandFunc{
	tensor.Q4_0: expandQ4_0AVX2, tensor.Q4_1: expandQ4_1AVX2, tensor.Q5_0: expandQ5_0AVX2, tensor.Q5_1: expandQ5_1AVX2, tensor.Q8_0: expandQ8_0AVX2,
	tensor.Q4_K: expandQ4_KAVX2, tensor.Q5_K: expandQ5_KAVX2, tensor.Q6_K: expandQ6_KAVX2,
}

var blockRowAVX2 = map[tensor.DType]blockRowFunc{
	tensor.Q4_0: rowQ4_0AVX2, tensor.Q4_1: rowQ4_1AVX2, tensor.Q5_0: rowQ5_0AVX2, tensor.Q5_1: rowQ5_1AVX2, tensor.Q8_0: rowQ8_0AVX2,
	tensor.Q4_K: rowQ4_KAVX2, tensor.Q5_K: rowQ5_KAVX2, tensor.Q6_K: rowQ6_KAVX2,
}

var avx2 = ops{
	level: "avx2", w: 8, rows: 6,
	tile: [2][15]tileFunc{
		{nil, gemm1x1AVX2, gemm2x1AVX2, gemm3x1AVX2, gemm4x1AVX2, gemm5x1AVX2, gemm6x1AVX2},
		{nil, gemm1x2AVX2, gemm2x2AVX2, gemm3x2AVX2, gemm4x2AVX2, gemm5x2AVX2, gemm6x2AVX2},
	},
	strip:           [4]stripFunc{nil, gemmStrip1AVX2},
	transpose8:      transpose8AVX2,
	add:             addAVX2,
	mul:             mulAVX2,
	addBiasResidual: addBiasResidualAVX2,
	axpy:            axpyAVX2,
	scale:           scaleAVX2,
	sum:             sumAVX2,
	maxOf:           maxOfAVX2,
	dot:             dotAVX2,
	squares64:       squares64AVX2,
	centredSquares:  centredSquaresAVX2,
	expSum:          expSumAVX2,
	mulSub:          mulSubAVX2,
	softRows:        softRowsAVX2,
	scaleRows:       scaleRowsAVX2,
	layerNormRow:    layerNormRowAVX2,
	normRow:         normRowAVX2,
	normBackSums:    normBackSumsAVX2,
	normBackDX:      normBackDXAVX2,
	normBackParams:  normBackParamsAVX2,
	adamW:           adamWAVX2,
	dots:            dotsAVX2,
	peakFMA:         peakFMAAVX2,
	copyStrided:     copyStridedAVX2,
	minMax:          minMaxAVX2,
	quantizeWords:   quantizeWordsAVX2,
	quantizeBlocks:  quantizeBlocksAVX2,
	expand:          expandAVX2,
	blockRow:        blockRowAVX2,
	rowWidth:        8,
	group:           2,
	int8Tile:        [15]int8Func{nil, int8Words1AVX2, int8Words2AVX2, int8Words3AVX2, int8Words4AVX2, int8Words5AVX2, int8Words6AVX2},
	blockRows:       2,
	blocks:          [2][2][7]blockFunc{{{nil, blocks16x1AVX2, blocks16x2AVX2}, {nil, blocks32x1AVX2, blocks32x2AVX2}}, {{nil, blocks16Minx1AVX2, blocks16Minx2AVX2}, {nil, blocks32Minx1AVX2, blocks32Minx2AVX2}}},
	act:             [8]func(dst, x *float32, n int){nil, geluAVX2, geluTanhAVX2, quickGELUAVX2, reluAVX2, siluAVX2, tanhAVX2, sigmoidAVX2},
	actGrad:         [8]func(dx, dy, x *float32, n int){nil, geluGradAVX2, geluTanhGradAVX2, quickGELUGradAVX2, reluGradAVX2, siluGradAVX2, tanhGradAVX2, sigmoidGradAVX2},
}

var avx512 = ops{
	level: "avx512", w: 16, rows: 14,
	tile: [2][15]tileFunc{
		{nil, gemm1x1AVX512, gemm2x1AVX512, gemm3x1AVX512, gemm4x1AVX512, gemm5x1AVX512, gemm6x1AVX512, gemm7x1AVX512, gemm8x1AVX512, gemm9x1AVX512, gemm10x1AVX512, gemm11x1AVX512, gemm12x1AVX512, gemm13x1AVX512, gemm14x1AVX512},
		{nil, gemm1x2AVX512, gemm2x2AVX512, gemm3x2AVX512, gemm4x2AVX512, gemm5x2AVX512, gemm6x2AVX512, gemm7x2AVX512, gemm8x2AVX512, gemm9x2AVX512, gemm10x2AVX512, gemm11x2AVX512, gemm12x2AVX512, gemm13x2AVX512, gemm14x2AVX512},
	},
	strip:           [4]stripFunc{nil, gemmStrip1AVX512, gemmStrip2AVX512, gemmStrip3AVX512},
	transpose8:      transpose8AVX512,
	add:             addAVX512,
	mul:             mulAVX512,
	addBiasResidual: addBiasResidualAVX512,
	axpy:            axpyAVX512,
	scale:           scaleAVX512,
	sum:             sumAVX512,
	maxOf:           maxOfAVX512,
	dot:             dotAVX512,
	squares64:       squares64AVX512,
	centredSquares:  centredSquaresAVX512,
	expSum:          expSumAVX512,
	mulSub:          mulSubAVX512,
	softRows:        softRowsAVX512,
	scaleRows:       scaleRowsAVX512,
	layerNormRow:    layerNormRowAVX512,
	normRow:         normRowAVX512,
	normBackSums:    normBackSumsAVX512,
	normBackDX:      normBackDXAVX512,
	normBackParams:  normBackParamsAVX512,
	adamW:           adamWAVX512,
	dots:            dotsAVX512,
	peakFMA:         peakFMAAVX512,
	copyStrided:     copyStridedAVX512,
	minMax:          minMaxAVX512,
	quantizeWords:   quantizeWordsAVX512,
	quantizeBlocks:  quantizeBlocksAVX512,
	dropRow:         dropRowAVX512,
	expand:          expandAVX2,
	blockRow:        blockRowAVX2,
	rowWidth:        8,
	group:           2,
	int8Tile:        [15]int8Func{nil, int8Words1AVX512, int8Words2AVX512, int8Words3AVX512, int8Words4AVX512, int8Words5AVX512, int8Words6AVX512, int8Words7AVX512, int8Words8AVX512, int8Words9AVX512, int8Words10AVX512, int8Words11AVX512, int8Words12AVX512, int8Words13AVX512, int8Words14AVX512},
	blockRows:       5,
	blocks:          [2][2][7]blockFunc{{{nil, blocks16x1AVX512, blocks16x2AVX512, blocks16x3AVX512, blocks16x4AVX512, blocks16x5AVX512}, {nil, blocks32x1AVX512, blocks32x2AVX512, blocks32x3AVX512, blocks32x4AVX512, blocks32x5AVX512}}, {{nil, blocks16Minx1AVX512, blocks16Minx2AVX512, blocks16Minx3AVX512, blocks16Minx4AVX512, blocks16Minx5AVX512}, {nil, blocks32Minx1AVX512, blocks32Minx2AVX512, blocks32Minx3AVX512, blocks32Minx4AVX512, blocks32Minx5AVX512}}},
	act:             [8]func(dst, x *float32, n int){nil, geluAVX512, geluTanhAVX512, quickGELUAVX512, reluAVX512, siluAVX512, tanhAVX512, sigmoidAVX512},
	actGrad:         [8]func(dx, dy, x *float32, n int){nil, geluGradAVX512, geluTanhGradAVX512, quickGELUGradAVX512, reluGradAVX512, siluGradAVX512, tanhGradAVX512, sigmoidGradAVX512},
}
