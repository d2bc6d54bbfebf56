package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// attnPass is a pass over a block of scores, two rows at a time: a panel of two
// registers wide of a buffer whose rows are attnBlock floats apart. Rows before
// field full count for all lanes, row r of the masked ones for lanes r and up.
type attnPass struct {
	l          level
	drop, bf16 bool

	p, s, ds, lanes Register
	p16, rows, cols Register
}

// Registers of a pass. Those from passOut on hold results to be joined to bf16.
const (
	passX, passN, passT, passY           = 0, 1, 2, 3
	passRC, passRScale, passRBelow       = 4, 5, 6
	passRKeep, passRJ, passRR, passRMask = 7, 8, 9, 10
	passAcc                              = 11 // to 14
	passRDrop                            = 15
	passOut                              = 16
)

// attentionPasses emits both directions, with and without dropout.
func attentionPasses(l level) {
	for _, bf16 := range []bool{false, true} {
		if bf16 && !l.wide() {
			continue
		}
		for _, drop := range []bool{false, true} {
			(&attnPass{l: l, drop: drop, bf16: bf16}).forward()
			(&attnPass{l: l, drop: drop, bf16: bf16}).backward()
		}
	}
}

func (t *attnPass) begin(name string) {
	TEXT(passName(name, t.drop, t.bf16, t.l), NOSPLIT, "func(p *byte)")
	Pragma("noescape")
	t.p = Load(Param("p"), GP64())
	t.s, t.lanes = t.get(passS), t.get(passLanes)
	r := t.l.reg
	VBROADCASTSS(t.field(passC), r[passRC])
	VPBROADCASTD(t.field(passJ), r[passRJ])
	if t.drop {
		VPBROADCASTD(t.field(passBelow), r[passRBelow])
		VBROADCASTSS(t.field(passKeep), r[passRKeep])
	}
}

func (t *attnPass) field(off int) Mem { return Mem{Base: t.p, Disp: off} }

func (t *attnPass) get(off int) Register {
	r := GP64()
	MOVQ(t.field(off), r)
	return r
}

func (t *attnPass) stride() int { return 4 * t.l.attnBlock() }

// lane is a field of attnLanes for register v of a row.
func (t *attnPass) lane(field, v int) Mem {
	return Mem{Base: t.lanes, Disp: field + v*t.l.bytes}
}

// score is register v of row u in the buffer at p.
func (t *attnPass) score(p Register, u, v int) Mem {
	return Mem{Base: p, Disp: u*t.stride() + v*t.l.bytes}
}

// pairs runs body for pairs of rows, first the full ones, then the masked, of
// which register passRR tells the number; body advances pointers by itself.
func (t *attnPass) pairs(body func(masked bool)) {
	n := GP64()
	for _, masked := range []bool{false, true} {
		loops++
		top, done := fmt.Sprintf("pair%d", loops), fmt.Sprintf("end%d", loops)
		off := passFull
		if masked {
			off = passMasked
			t.l.zero(passRR)
		}
		MOVQ(t.field(off), n)
		TESTQ(n, n)
		JZ(LabelRef(done))
		Label(top)
		body(masked)
		SUBQ(Imm(2), n)
		JNZ(LabelRef(top))
		Label(done)
	}
}

// select sets the mask (K1, or register passRMask) to the lanes of register v
// that the masked row at hand counts for.
func (t *attnPass) selectLanes(v int) {
	lanes := laneNumbers[v*t.l.lanes()/8]
	if t.l.wide() {
		VMOVDQU32(lanes, zmm[passRMask])
		VPCMPD(U8(5), zmm[passRR], zmm[passRMask], K1) // lane not less than row
		return
	}
	VMOVDQU(lanes, ymm[passRDrop])
	VPCMPGTD(ymm[passRDrop], ymm[passRR], ymm[passRMask]) // row beyond lane
	VPCMPEQD(ymm[passRDrop], ymm[passRDrop], ymm[passRDrop])
	VPXOR(ymm[passRDrop], ymm[passRMask], ymm[passRMask])
}

// clear clears what the mask leaves out.
func (t *attnPass) clear(x int) {
	if t.l.wide() {
		VMOVAPS_Z(zmm[x], K1, zmm[x])
		return
	}
	VANDPS(ymm[passRMask], ymm[x], ymm[x])
}

// exp2 replaces register x by 2 to its power, using n and y.
func (t *attnPass) exp2(x, n, y int) {
	if t.l.wide() {
		t.l.exp2(x, n, y)
		return
	}
	r := t.l.reg
	VROUNDPS(U8(9), r[x], r[y])
	VSUBPS(r[y], r[x], r[n])
	t.l.exp2Fraction(n, passRDrop)
	VCVTPS2DQ(r[y], r[y])
	VPSLLD(U8(23), r[y], r[y])
	VPADDD(r[y], r[passRDrop], r[passRDrop])
	VCMPPS(U8(5), val("e_least"), r[x], r[x]) // not less: NaN stays
	VANDPS(r[passRDrop], r[x], r[x])
}

// keep decides which lanes of register v dropout keeps, as kernel.dropRow.keeps
// does: in K2 or register passRDrop. It uses n and y.
func (t *attnPass) keep(v, n, y int) {
	r := t.l.reg
	xor := func(a, b, dst Op) {
		if t.l.wide() {
			VPXORD(a, b, dst)
		} else {
			VPXOR(a, b, dst)
		}
	}
	VPADDD(t.lane(laneKeyA, v), r[passRJ], r[n])
	VPSRLD(U8(16), r[n], r[y])
	xor(r[y], r[n], r[n])
	VPMULLD(val("mul1"), r[n], r[n])
	xor(t.lane(laneKeyB, v), r[n], r[n])
	VPSRLD(U8(15), r[n], r[y])
	xor(r[y], r[n], r[n])
	VPMULLD(val("mul2"), r[n], r[n])
	VPSRLD(U8(16), r[n], r[y])
	xor(r[y], r[n], r[n])
	if t.l.wide() {
		VPCMPUD(U8(5), r[passRBelow], r[n], K2)
		return
	}
	VPMAXUD(r[passRBelow], r[n], r[y])
	VPCMPEQD(r[n], r[y], r[passRDrop])
}

// dropped sets register to to register x after dropout.
func (t *attnPass) dropped(x, to int) {
	r := t.l.reg
	if t.l.wide() {
		VMULPS_Z(r[passRKeep], r[x], K2, r[to])
		return
	}
	VMULPS(r[passRKeep], r[x], r[to])
	VANDPS(r[passRDrop], r[to], r[to])
}

// nextRow counts on.
func (t *attnPass) nextRow(masked bool) {
	r := t.l.reg
	if t.drop {
		VPADDD(val("bit0"), r[passRJ], r[passRJ])
	}
	if masked {
		VPADDD(val("bit0"), r[passRR], r[passRR])
	}
}

// forward turns scores into probabilities that are not yet divided by their
// sum, and carries on the maximum and the sum of each lane.
func (t *attnPass) forward() {
	t.begin("attnSoft")
	r := t.l.reg
	for i := range 2 * attnVectors {
		VMOVUPS(t.lane(laneMax, i%attnVectors), r[passAcc+i])
	}
	cur := GP64()
	MOVQ(t.s, cur)
	t.pairs(func(masked bool) {
		for u := range 2 {
			for v := range attnVectors {
				acc := passAcc + u*attnVectors + v
				switch {
				case !masked:
					VMAXPS(t.score(cur, u, v), r[acc], r[acc])
				case t.l.wide():
					t.selectLanes(v)
					VMAXPS(t.score(cur, u, v), r[acc], K1, r[acc])
				default:
					t.selectLanes(v)
					VMOVUPS(t.score(cur, u, v), r[passX])
					VBLENDVPS(r[passRMask], r[passX], r[acc], r[passX])
					VMAXPS(r[passX], r[acc], r[acc])
				}
			}
			if masked {
				VPADDD(val("bit0"), r[passRR], r[passRR])
			}
		}
		ADDQ(U32(uint32(2*t.stride())), cur)
	})
	for v := range attnVectors {
		top, sum := passAcc+v, passAcc+attnVectors+v
		VMAXPS(r[sum], r[top], r[top])
		VMOVUPS(t.lane(laneMax, v), r[passX])
		VSUBPS(r[top], r[passX], r[passX])
		VMULPS(r[passRC], r[passX], r[passX])
		t.exp2(passX, passN, passY)
		VMOVUPS(r[passX], t.lane(laneGrow, v))
		VMOVUPS(r[top], t.lane(laneMax, v))
		VMULPS(t.lane(laneSum, v), r[passX], r[sum])
		VMULPS(r[passRC], r[top], r[top]) // from now on the maximum is scaled
	}
	if t.bf16 {
		t.p16 = t.get(passP)
		VMOVUPS(zip, Z31)
	}
	t.pairs(func(masked bool) {
		for u := range 2 {
			for v := range attnVectors {
				VMOVUPS(t.score(t.s, u, v), r[passX])
				VFMSUB213PS(r[passAcc+v], r[passRC], r[passX])
				t.exp2(passX, passN, passY)
				if masked {
					t.selectLanes(v)
					t.clear(passX)
				}
				VADDPS(r[passX], r[passAcc+attnVectors+v], r[passAcc+attnVectors+v])
				if t.drop {
					t.keep(v, passN, passY)
					t.dropped(passX, passX)
				}
				if t.bf16 {
					VMOVAPS(r[passX], r[passOut+u*attnVectors+v])
				} else {
					VMOVUPS(r[passX], t.score(t.s, u, v))
				}
			}
			t.nextRow(masked)
		}
		if t.bf16 {
			t.joinRows(passOut, t.p16)
			ADDQ(U32(uint32(t.stride())), t.p16)
		}
		ADDQ(U32(uint32(2*t.stride())), t.s)
	})
	for v := range attnVectors {
		VMOVUPS(r[passAcc+attnVectors+v], t.lane(laneSum, v))
	}
	end()
}

// joinRows stores the two rows in registers first… as rows of pairs of bf16.
func (t *attnPass) joinRows(first int, to Register) {
	for v := range attnVectors {
		cvtBF16(passX, first+attnVectors+v, first+v)
		VPERMW(zmm[passX], Z31, zmm[passX])
		VMOVUPS(zmm[passX], Mem{Base: to, Disp: v * t.l.bytes})
	}
}

// splitRows stores the same rows one after the other, rounded to bf16.
func (t *attnPass) splitRows(first int, to Register) {
	for u := range 2 {
		cvtBF16(passX, first+u*attnVectors+1, first+u*attnVectors)
		VMOVUPS(zmm[passX], Mem{Base: to, Disp: u * t.stride() / 2})
	}
}

// backward turns scores and the gradients of the probabilities into the
// probabilities after dropout and the gradients of the scores.
func (t *attnPass) backward() {
	t.begin("attnSoftBack")
	r := t.l.reg
	t.ds = t.get(passDS)
	VBROADCASTSS(t.field(passScale), r[passRScale])
	if t.bf16 {
		t.p16, t.rows, t.cols = t.get(passP), t.get(passDSRows), t.get(passDSCols)
		VMOVUPS(zip, Z31)
	}
	const grads = passOut + 2*attnVectors
	t.pairs(func(masked bool) {
		for u := range 2 {
			for v := range attnVectors {
				VMOVUPS(t.score(t.s, u, v), r[passX])
				VMULPS(r[passRC], r[passX], r[passX])
				VSUBPS(t.lane(laneLSE, v), r[passX], r[passX])
				t.exp2(passX, passN, passY)
				if masked {
					t.selectLanes(v)
					t.clear(passX)
				}
				VMULPS(r[passRScale], r[passX], r[passT])
				VMOVUPS(t.score(t.ds, u, v), r[passAcc])
				if t.drop {
					t.keep(v, passN, passY)
					t.dropped(passX, passX)
					t.dropped(passAcc, passAcc)
				}
				VSUBPS(t.lane(laneDelta, v), r[passAcc], r[passAcc])
				VMULPS(r[passT], r[passAcc], r[passAcc])
				if masked {
					t.clear(passAcc)
				}
				if t.bf16 {
					VMOVAPS(r[passX], r[passOut+u*attnVectors+v])
					VMOVAPS(r[passAcc], r[grads+u*attnVectors+v])
				} else {
					VMOVUPS(r[passX], t.score(t.s, u, v))
					VMOVUPS(r[passAcc], t.score(t.ds, u, v))
				}
			}
			t.nextRow(masked)
		}
		if t.bf16 {
			t.splitRows(passOut, t.p16)
			t.splitRows(grads, t.rows)
			t.joinRows(grads, t.cols)
			for _, p := range []Register{t.p16, t.rows, t.cols} {
				ADDQ(U32(uint32(t.stride())), p)
			}
		}
		ADDQ(U32(uint32(2*t.stride())), t.s)
		ADDQ(U32(uint32(2*t.stride())), t.ds)
	})
	end()
}
