package kernel

// vecJob is an operation on the rows of matrices, each row by itself.
type vecJob struct {
	cpu     *CPU
	kind    vecKind
	x, y, z []float32 // [rows,width]
	width   int
	rows    int
	step    int // rows in a part
	act     Act
	drop    Dropout
}

type vecKind uint8

const (
	vecDrop    vecKind = iota // x = dropout of y
	vecActBack                // x = y*act'(z)
	vecAct                    // x = act(y)
)

// partFloats is about how much a part of an element-wise operation handles:
// little enough to share out evenly, enough to be worth handing out.
const partFloats = 32 << 10

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
		case j.kind == vecActBack:
			v.actBack(x, y, j.z[r*j.width:][:j.width], j.act)
		case j.kind == vecAct:
			v.act(x, y, j.act)
		case j.drop.P > 0:
			v.drop(x, y, j.drop.row(r), 0)
		default:
			copy(x, y)
		}
	}
}

// ActForward computes y = act(x), element by element: the values that a
// product's epilogue gave, again. y may be x.
func (c *CPU) ActForward(y, x []float32, act Act) {
	n := len(y) / actWidth * actWidth
	c.rows(vecJob{kind: vecAct, x: y[:n], y: x[:n], width: actWidth, act: act}, n/actWidth)
	c.isa.act(y[n:], x[n:len(y)], act)
}

// actWidth is how many elements an activation takes for a row.
const actWidth = 1024

// ActBackward computes dx = dy*act'(preact), element by element. dx may be dy.
func (c *CPU) ActBackward(dx, dy, preact []float32, act Act) {
	n := len(dx) / actWidth * actWidth
	c.rows(vecJob{kind: vecActBack, x: dx[:n], y: dy[:n], z: preact[:n], width: actWidth, act: act}, n/actWidth)
	c.isa.actBack(dx[n:], dy[n:len(dx)], preact[n:len(dx)], act)
}
