package kernel

import (
	"math"
	"unsafe"
)

// attnCode is what attention needs of an instruction set. Its blocks of scores
// hold a row for each key and a lane for each query: the softmax then runs along
// the lanes, without sums across them, and the same block serves as either
// operand of the products that follow, without being transposed.
type attnCode struct {
	tile  tile // mr keys by nr queries; how operands are packed
	block int  // queries, and keys, of a block: a multiple of mr and of nr
	grain int  // columns of HeadDim are filled up to a multiple of it, but at least nr

	rows, cols     func(p *attnProduct) // A as [m][k], as [k][m]
	rowsWide       func(p *attnProduct) // the same for nr+grain columns; nil where grain is nr
	colsWide       func(p *attnProduct)
	soft, softBack [2]func(p *attnPass) // without and with dropout

	scale func(dst *float32, ldd int, src *float32, lds int, factor *float32, step, rows, cols int) // dst = factor*src
	dots  func(dst, x *float32, ldx int, y *float32, ldy, rows, cols int)
	bf16  func(dst *float32, ldd int, src *float32, lds, rows, cols int) // dst = src in bf16; for pairs
}

// ld is the length of a packed row of HeadDim.
func (c *attnCode) ld(dim int) int { return max(roundUp(dim, c.grain), c.tile.nr) }

// across calls f with a product of each panel of HeadDim's columns, and where it
// begins.
func (c *attnCode) across(ld int, narrow, wide func(p *attnProduct), f func(product func(p *attnProduct), p int)) {
	nr := c.tile.nr
	for p := 0; p < ld; p += nr {
		if left := ld - p; left > nr && left < 2*nr {
			f(wide, p)
			return
		}
		f(narrow, p)
	}
}

const (
	attnBlockMax    = 64
	attnBF16Columns = 32 // bf16 fills rows up to a multiple of these
)

// attnLanes holds numbers of the queries of a block. The assembly knows the
// order of its fields.
type attnLanes struct {
	max  [attnBlockMax]float32 // of the scores so far
	sum  [attnBlockMax]float32 // of exp(scale*(score-max))
	grow [attnBlockMax]float32 // what sums before the last block of keys must be multiplied by
	keyA [attnBlockMax]uint32  // dropRow.a
	keyB [attnBlockMax]uint32  // dropRow.b
	lse  [attnBlockMax]float32 // log2 of the softmax's denominator
	dot  [attnBlockMax]float32 // of the output and its gradient
}

// attnProduct is C = A·B, or += , for tiles of mr rows of A and C and one panel
// of nr columns of B and C. Strides are in bytes, k counts pairs in bf16. The assembly knows the order of the fields.
type attnProduct struct {
	tiles, k, dk int // dk: what k grows by from tile to tile
	a            *float32
	lda, da      int // da: what a advances by from tile to tile
	b            *float32
	ldb, db      int
	c            *float32
	ldc          int
	factor       *float32 // for each row of C: C = factor*C + A·B
	acc          int      // 1: C += A·B
	later        *int     // the first field of an ahead
}

// attnPass is a pass over the scores of a panel of nr queries, in rows of block
// lanes. The assembly knows the order of the fields.
type attnPass struct {
	s      *float32 // scores, become probabilities
	ds     *float32 // gradients of probabilities, become those of scores; backward only
	p      *float32 // bf16: the probabilities; forward as pairs of rows, backward row by row
	dsRows *float32 // bf16: the gradients of scores row by row…
	dsCols *float32 // …and as pairs of rows
	lanes  *float32 // attnLanes, from the panel's first query on

	full   int // rows that count for all queries
	masked int // further rows, of which row r counts for lanes r and up

	c     float32 // scores are multiplied by it and taken as powers of 2
	scale float32 // 1/√HeadDim
	below uint32  // as in dropRow
	keep  float32 // as dropRow.scale
	j     uint32  // position of the first row's key
}

// attnGo are the kernels in Go.
func attnGo(round bool) attnCode {
	return attnCode{
		tile: tile{mr: 2, nr: 4, round: round}, block: attnGoBlock, grain: attnGoLanes,
		rows:     func(p *attnProduct) { p.runGo(p.lda, 4) },
		cols:     func(p *attnProduct) { p.runGo(4, p.lda) },
		soft:     [2]func(*attnPass){func(p *attnPass) { p.softGo(false) }, func(p *attnPass) { p.softGo(true) }},
		softBack: [2]func(*attnPass){func(p *attnPass) { p.softBackGo(false) }, func(p *attnPass) { p.softBackGo(true) }},
		scale:    attnScaleGo, dots: attnDotsGo,
	}
}

const (
	attnGoBlock = 32
	attnGoRows  = 2
	attnGoLanes = 4
)

// off is the float n bytes after p, which must be one of the same slice.
func off(p *float32, n int) *float32 { return (*float32)(unsafe.Add(unsafe.Pointer(p), n)) }

// runGo multiplies; row m and element k of A lie m*am+k*ak bytes after p.a.
func (p *attnProduct) runGo(am, ak int) {
	for t := range p.tiles {
		var s [attnGoRows][attnGoLanes]float32
		s0, s1 := &s[0], &s[1]
		at, bt := t*p.da, t*p.db
		for k := range p.k + t*p.dk {
			a0, a1 := *off(p.a, at+k*ak), *off(p.a, at+k*ak+am)
			for i, x := range (*[attnGoLanes]float32)(unsafe.Pointer(off(p.b, bt+k*p.ldb))) {
				s0[i] += a0 * x
				s1[i] += a1 * x
			}
		}
		for r := range s {
			p.put(t*attnGoRows+r, &s[r])
		}
	}
}

// put stores row r of the product.
func (p *attnProduct) put(r int, s *[attnGoLanes]float32) {
	c := (*[attnGoLanes]float32)(unsafe.Pointer(off(p.c, r*p.ldc)))
	switch {
	case p.factor != nil:
		f := *off(p.factor, 4*r)
		for i := range c {
			c[i] = s[i] + f*c[i]
		}
	case p.acc != 0:
		for i := range c {
			c[i] += s[i]
		}
	default:
		*c = *s
	}
}

func exp2Go(x float32) float32 { return float32(math.Exp2(float64(x))) }

// each calls f for the score of every key and query that counts, and clears the
// others.
func (p *attnPass) each(lane int, f func(j int, s, ds *float32)) {
	for r := range p.full + p.masked {
		s, ds := off(p.s, 4*(r*attnGoBlock+lane)), p.ds
		if ds != nil {
			ds = off(ds, 4*(r*attnGoBlock+lane))
		}
		if lane >= r-p.full {
			f(r, s, ds)
			continue
		}
		*s = 0
		if ds != nil {
			*ds = 0
		}
	}
}

func (p *attnPass) softGo(drop bool) {
	l := (*attnLanes)(unsafe.Pointer(p.lanes))
	for i := range attnGoLanes {
		top := l.max[i]
		p.each(i, func(_ int, s, _ *float32) {
			if *s > top {
				top = *s
			}
		})
		l.grow[i] = exp2Go(p.c * (l.max[i] - top))
		l.max[i] = top
		sum := l.sum[i] * l.grow[i]
		d := dropRow{draw{l.keyA[i], l.keyB[i]}, p.below, p.keep}
		p.each(i, func(j int, s, _ *float32) {
			e := exp2Go(p.c * (*s - top))
			sum += e
			if drop {
				e = d.apply(e, int(p.j)+j)
			}
			*s = e
		})
		l.sum[i] = sum
	}
}

func (p *attnPass) softBackGo(drop bool) {
	l := (*attnLanes)(unsafe.Pointer(p.lanes))
	for i := range attnGoLanes {
		d := dropRow{draw{l.keyA[i], l.keyB[i]}, p.below, p.keep}
		p.each(i, func(j int, s, ds *float32) {
			e := exp2Go(p.c**s - l.lse[i])
			g := *ds
			*s = e
			if drop {
				*s, g = d.apply(e, int(p.j)+j), d.apply(g, int(p.j)+j)
			}
			*ds = e * p.scale * (g - l.dot[i])
		})
	}
}

// apply is x after dropout.
func (d *dropRow) apply(x float32, j int) float32 {
	if d.keeps(j) {
		return x * d.scale
	}
	return 0
}

func attnScaleGo(dst *float32, ldd int, src *float32, lds int, factor *float32, step, rows, cols int) {
	for r := range rows {
		scaleGo(unsafe.Slice(off(dst, r*ldd), cols), unsafe.Slice(off(src, r*lds), cols), *off(factor, r*step))
	}
}

func attnDotsGo(dst, x *float32, ldx int, y *float32, ldy, rows, cols int) {
	for r := range rows {
		*off(dst, 4*r) = dotGo(unsafe.Slice(off(x, r*ldx), cols), unsafe.Slice(off(y, r*ldy), cols))
	}
}
