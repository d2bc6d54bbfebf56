package kernel

import "unsafe"

//go:generate go -C gen run . -attention -out ../attention_amd64.s -stubs ../attention_amd64.go -pkg kernel

// The assembly finds fields at these offsets: a change of a struct must fail to
// compile.
var (
	_ = [1]int{}[unsafe.Offsetof(attnProduct{}.a)-24]
	_ = [1]int{}[unsafe.Offsetof(attnProduct{}.b)-48]
	_ = [1]int{}[unsafe.Offsetof(attnProduct{}.c)-72]
	_ = [1]int{}[unsafe.Offsetof(attnProduct{}.acc)-96]
	_ = [1]int{}[unsafe.Offsetof(attnProduct{}.later)-104]
	_ = [1]int{}[unsafe.Offsetof(ahead{}.rows)-40]
	_ = [1]int{}[unsafe.Offsetof(attnPass{}.lanes)-40]
	_ = [1]int{}[unsafe.Offsetof(attnPass{}.masked)-56]
	_ = [1]int{}[unsafe.Offsetof(attnPass{}.c)-64]
	_ = [1]int{}[unsafe.Offsetof(attnPass{}.j)-80]
	_ = [1]int{}[unsafe.Offsetof(attnLanes{}.keyA)-3*256]
	_ = [1]int{}[unsafe.Offsetof(attnLanes{}.dot)-6*256]
)

func attnAVX2(round bool) attnCode {
	return attnCode{
		tile: tile{mr: 6, nr: 16, round: round}, block: 48, grain: 16,
		rows:     product(attnRowsAVX2),
		cols:     product(attnColsAVX2),
		soft:     passes(attnSoftAVX2, attnSoftDropAVX2),
		softBack: passes(attnSoftBackAVX2, attnSoftBackDropAVX2),
		scale:    attnScaleAVX2, dots: attnDotsAVX2,
	}
}

func attnAVX512(round bool) attnCode {
	return attnCode{
		tile: tile{mr: 8, nr: 32, round: round}, block: 64, grain: 16,
		rows:     product(attnRowsAVX512),
		cols:     product(attnColsAVX512),
		rowsWide: product(attnRowsWideAVX512),
		colsWide: product(attnColsWideAVX512),
		soft:     passes(attnSoftAVX512, attnSoftDropAVX512),
		softBack: passes(attnSoftBackAVX512, attnSoftBackDropAVX512),
		scale:    attnScaleAVX512, dots: attnDotsAVX512, bf16: attnBF16,
	}
}

// attnPairs is AVX-512 with products of pairs of bf16.
func attnPairs() attnCode {
	a := attnAVX512(false)
	a.tile.pairs = true
	a.rows, a.cols = product(attnRowsBF16), product(attnColsBF16)
	a.rowsWide, a.colsWide = product(attnRowsWideBF16), product(attnColsWideBF16)
	a.soft = passes(attnSoftBF16, attnSoftDropBF16)
	a.softBack = passes(attnSoftBackBF16, attnSoftBackDropBF16)
	return a
}

func product(f func(p *byte)) func(*attnProduct) {
	return func(p *attnProduct) { f((*byte)(unsafe.Pointer(p))) }
}

func passes(plain, drop func(p *byte)) [2]func(*attnPass) {
	return [2]func(*attnPass){
		func(p *attnPass) { plain((*byte)(unsafe.Pointer(p))) },
		func(p *attnPass) { drop((*byte)(unsafe.Pointer(p))) },
	}
}

// turn8 is turn16 for AVX2: blocks of 8 rows by 8 values.
func turn8(dst []float32, width int, o operand, r, rows, k, kc int, _ *tile) int {
	blocks := kc / 8
	if blocks == 0 {
		return 0
	}
	for c := 0; c < width; c += 8 {
		first := min(c, rows-1)
		var offsets [8]int
		for i := range offsets {
			offsets[i] = min(i, rows-1-first) * o.ld * 4 // past the last row: that row again
		}
		packTurnAVX2(blocks, ptr(o.x, (r+first)*o.ld+k), &offsets, ptr(dst, c), width*4, min(8, width-c))
	}
	return blocks * 8
}
