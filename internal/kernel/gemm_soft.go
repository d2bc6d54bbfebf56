package kernel

// softColumns is how many columns of a soft product are finished at a time: a
// multiple of every tile's, and whole cache lines even in bf16.
const softColumns = 192

// softRows takes a product's rows x (logits) in place of C: what remains of
// them is exp(x-shift) and its sum, the softmax but for a factor of the row, and
// of each row the one value that was asked for. The rows never exist as a whole.
type softRows struct {
	out    []float32 // the exponentials, rows ld floats apart; nil: not wanted
	ld     int
	panels bool // of bf16, of ld slots; shift and sums are for whole panelRows then

	shift   []float32 // of each row
	targets []int32   // the column whose x is asked for, or -1
	target  []float32 // that x
	groups  int       // of softColumns each, in a row
	sums    []float32 // of exp(x-shift) in each group [rows, groups], before rounding
	totals  []float32 // of x, likewise; nil: not wanted
	maxima  bool      // sums are to hold the largest x of each group, and out is left alone
}

// softGroups is how many groups a row falls into.
func softGroups(n int) int { return (n + softColumns - 1) / softColumns }

// softRange is how many columns are packed at a time if the sum has so many slots:
// whole groups, and no more than the memory for packed B has room for.
func softRange(slots int) int {
	return max(softColumns, min(ncMax, ncMax*kcMax/slots)/softColumns*softColumns)
}

// multiplySoft computes a part of a soft product, all blocks of the sum for one
// group of columns after another. Where a group begins does not depend on the
// part, so neither do the sums.
func (j *gemmJob) multiplySoft(w *worker, part *gemmPart, i int) {
	t, m := j.t, part.end-part.r0
	packed := roundUp(m, t.mr)
	pa := w.packedA.get(packed * slots(j.blocks))
	if w.packs(j.stage, part.r0, m, -1) {
		at := 0
		for n := range j.blocks {
			b := &j.blocks[n]
			j.pack(pa[at:], t.mr, j.a, part.r0, m, b, 0, b.pieces)
			at += packed * b.slots
		}
	}
	j.plan(w, i, len(j.blocks)-1)
	x, group, groups := w.soft.get(roundUp(m, panelRows)*softColumns), softColumns/t.nr, softGroups(j.nc)
	for g := groups * part.strip / part.strips; g < groups*(part.strip+1)/part.strips; g++ {
		columns := min(softColumns, j.nc-g*softColumns)
		at := 0
		for n := range j.blocks {
			b := &j.blocks[n]
			for p := 0; p*t.nr < columns; p++ {
				j.panel(w, b, pa[at:], b.slots, x[p*t.nr:], softColumns, m, g*group+p)
			}
			at += packed * b.slots
		}
		from := j.j + g*softColumns
		if j.soft.panels {
			for r := 0; r < m; r += panelRows {
				j.soft.finishPanels(j.cpu.isa, x[r*softColumns:], columns, part.r0+r, min(panelRows, m-r), from)
			}
			continue
		}
		for r := range m {
			j.soft.finish(j.cpu.isa, x[r*softColumns:][:columns], part.r0+r, from)
		}
	}
	if j.soft.out != nil {
		j.cpu.isa.fence()
	}
}

// finish takes columns from on of row r.
func (s *softRows) finish(set *isa, x []float32, r, from int) {
	group := r*s.groups + from/softColumns
	s.see(x, r, from)
	if s.totals != nil {
		s.totals[group] = total(x)
	}
	switch {
	case s.maxima:
		s.sums[group] = set.maximum(x)
	case s.out == nil:
		s.sums[group] = set.exp(x, x, 1, -s.shift[r])
	default:
		s.sums[group] = set.expRow(s.out[r*s.ld+from:], x, -s.shift[r])
	}
}

// see keeps the value of row r that was asked for, if it is among columns from on.
func (s *softRows) see(x []float32, r, from int) {
	if t := int(s.targets[r]) - from; t >= 0 && t < len(x) {
		s.target[r] = x[t]
	}
}

// total is the sum of x.
func total(x []float32) float32 {
	var s [4]float32 // apart, so that the additions need not wait for each other
	for len(x) >= 4 {
		s[0] += x[0]
		s[1] += x[1]
		s[2] += x[2]
		s[3] += x[3]
		x = x[4:]
	}
	for i, v := range x {
		s[i] += v
	}
	return (s[0] + s[1]) + (s[2] + s[3])
}
