package kernel

// vecJob is an operation on the rows of matrices, each row by itself.
type vecJob struct {
	cpu   *CPU
	kind  vecKind
	x, y  []float32 // [rows,width]
	width int
	rows  int
	step  int // rows in a part
	act   Act
	drop  Dropout
}

type vecKind uint8

const (
	vecDrop    vecKind = iota // x = dropout of y
	vecActGrad                // x = x*act'(y), y = act(y)
)

// partFloats is about how much a part of an element-wise operation handles:
// little enough to share out evenly, enough to be worth handing out.
const (
	partFloats = 32 << 10
	fewFloats  = 4 << 10 // fewer are not worth handing out
)

// evenStep is how many of n elements a part handles where each is by itself: there
// are then as many parts for each thread, of whole cache lines.
func (c *CPU) evenStep(n int) int {
	each := c.Threads() * partFloats
	parts := c.Threads() * max(1, (n+each-1)/each)
	return max(fewFloats, roundUp((n+parts-1)/parts, lineFloats))
}

// rows runs j over all rows.
func (c *CPU) rows(j vecJob, rows int) {
	if rows <= 0 || j.width <= 0 {
		return
	}
	j.cpu, j.rows, j.step = c, rows, max(1, partFloats/j.width)
	c.vecJob = j
	c.pool.run((rows+j.step-1)/j.step, &c.vecJob)
	c.vecJob = vecJob{}
}

func (j *vecJob) part(_ *worker, i int) {
	v := &j.cpu.isa.vectors
	for r := i * j.step; r < min((i+1)*j.step, j.rows); r++ {
		x, y := j.x[r*j.width:][:j.width], j.y[r*j.width:][:j.width]
		switch {
		case j.kind == vecActGrad:
			v.actGrad(x, y, j.act)
		case j.drop.P > 0:
			v.drop(x, y, j.drop.row(r), 0)
		default:
			copy(x, y)
		}
	}
}

// actWidth is how many elements an activation takes for a row.
const actWidth = 1024

// ActBackward turns d, the gradient of act(x), into that of x, d·act'(x), element
// by element, and x into act(x), which shares most of the arithmetic.
func (c *CPU) ActBackward(d, x []float32, act Act) {
	n := len(d) / actWidth * actWidth
	c.rows(vecJob{kind: vecActGrad, x: d[:n], y: x[:n], width: actWidth, act: act}, n/actWidth)
	c.isa.actGrad(d[n:], x[n:len(d)], act)
}
