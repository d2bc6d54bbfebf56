package generate

import "slices"

// pageRows is the number of tokens of a page. Small enough that a short text
// wastes little, large enough that walking over pages costs nothing.
const pageRows = 32

// page holds keys and values of pageRows tokens in all layers:
// [layer][key, value][head][pageRows][headDim]. What one head reads lies
// together.
type page struct {
	data []float32
	refs int // caches that read it
}

// cache is what a sequence has read: keys and values of n tokens.
type cache struct {
	pages []*page
	n     int
}

// pool hands out pages and takes them back. It is used by one goroutine.
type pool struct {
	layers, heads, headDim int

	free []*page
	made int // pages ever allocated
}

// rows returns what a page holds for one head of one layer, [pageRows, headDim]
// each.
func (p *pool) rows(pg *page, layer, head int) (keys, values []float32) {
	size := pageRows * p.headDim
	at := (2*layer*p.heads + head) * size
	return pg.data[at:][:size], pg.data[at+p.heads*size:][:size]
}

// grow makes room in c for rows more tokens. A page that will be written to and
// has other readers is copied first.
func (p *pool) grow(c *cache, rows int) {
	if at := c.n / pageRows; c.n%pageRows > 0 && c.pages[at].refs > 1 {
		own := p.page()
		copy(own.data, c.pages[at].data)
		c.pages[at].refs--
		c.pages[at] = own
	}
	for len(c.pages)*pageRows < c.n+rows {
		c.pages = append(c.pages, p.page())
	}
}

// page is a fresh page with one reader.
func (p *pool) page() *page {
	if n := len(p.free); n > 0 {
		pg := p.free[n-1]
		p.free = p.free[:n-1]
		pg.refs = 1
		return pg
	}
	p.made++
	return &page{data: make([]float32, p.layers*2*p.heads*pageRows*p.headDim), refs: 1}
}

// fork is a cache of the first n tokens of c. It shares their pages, which are
// copied when one of the two writes to them.
func (p *pool) fork(c *cache, n int) cache {
	f := cache{pages: slices.Clone(c.pages[:pagesOf(n)]), n: n}
	for _, pg := range f.pages {
		pg.refs++
	}
	return f
}

// pagesOf is the number of pages that n tokens take.
func pagesOf(n int) int { return (n + pageRows - 1) / pageRows }

// release empties c; pages that nobody else reads are free again.
func (p *pool) release(c *cache) {
	for _, pg := range c.pages {
		if pg.refs--; pg.refs == 0 {
			p.free = append(p.free, pg)
		}
	}
	*c = cache{}
}
