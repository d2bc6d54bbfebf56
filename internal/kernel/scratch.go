package kernel

// Shape is what the memory of a CPU depends on: that of a training step.
type Shape struct {
	Threads, Rows, SeqLen, Width, Inner, Heads, Vocab int
	Backward                                          bool
}

// ScratchBytes is how much memory a CPU keeps for itself after operations of
// that shape: blocks packed for products, sums over rows, strips of scores.
// Nothing is allocated.
func ScratchBytes(s Shape) int64 {
	const widestPanel = 48
	wide := max(3*s.Width, s.Inner)
	packedB := max(roundUp(min(wide, ncMax), widestPanel)*kcMax,
		roundUp(min(s.Vocab, softRange(s.Width)), widestPanel)*s.Width)
	worker := (mcMax+widestPanel)*kcMax + 12*widestPanel + mcMax*softColumns + attentionScratch(s.SeqLen, s.Width/max(1, s.Heads), s.Backward)
	parts := rowBlocks(s.Rows, s.SeqLen) * max(2*s.Width, wide)
	if !s.Backward {
		parts = 0
	}
	return 4 * int64(packedB+parts+s.Threads*worker)
}

// Scratch is how many bytes the CPU keeps for itself now.
func (c *CPU) Scratch() int64 {
	n := len(c.packedB.s) + len(c.parts.s) + len(c.chunk.s) + 2*cap(c.sums)
	for _, w := range c.pool.workers {
		n += len(w.packedA.s) + len(w.tile.s) + len(w.soft.s) + len(w.attn.mem.s) + len(w.row.s)
	}
	return 4 * int64(n)
}
