package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// aheadCode fetches what a kernel.ahead says, a line at a time.
type aheadCode struct {
	pointer        func() Register // loads that to the ahead
	at, step, left Register
	lines          int // that code was emitted for
}

// Fields of kernel.ahead.
const aheadAt, aheadStep, aheadLeft, aheadLines, aheadJump, aheadRows = 0, 8, 16, 24, 32, 40

func (f *aheadCode) field(off int) Mem { return Mem{Base: f.pointer(), Disp: off} }

func (f *aheadCode) load(pointer func() Register) {
	f.pointer = pointer
	f.at, f.step, f.left = GP64(), GP64(), GP64()
	MOVQ(f.field(aheadAt), f.at)
	MOVQ(f.field(aheadStep), f.step)
	MOVQ(f.field(aheadLeft), f.left)
}

// line fetches a line. Behind the last of a row, what end emits has it go on.
func (f *aheadCode) line() {
	PREFETCHT1(Mem{Base: f.at})
	ADDQ(f.step, f.at)
	DECQ(f.left)
	JZ(LabelRef(fmt.Sprint("row_ends", f.lines)))
	Label(fmt.Sprint("goes_on", f.lines))
	f.lines++
}

// end emits the function's end.
func (f *aheadCode) end() {
	MOVQ(f.at, f.field(aheadAt))
	MOVQ(f.step, f.field(aheadStep))
	MOVQ(f.left, f.field(aheadLeft))
	end()
	for i := range f.lines {
		Label(fmt.Sprint("row_ends", i))
		DECQ(f.field(aheadRows))
		JL(LabelRef(fmt.Sprint("nothing_left", i)))
		MOVQ(f.field(aheadLines), f.left)
		ADDQ(f.field(aheadJump), f.at)
		JMP(LabelRef(fmt.Sprint("goes_on", i)))
		Label(fmt.Sprint("nothing_left", i))
		SUBQ(f.step, f.at) // the same line from now on
		XORQ(f.step, f.step)
		MOVQ(I64(1<<62), f.left)
		JMP(LabelRef(fmt.Sprint("goes_on", i)))
	}
}
