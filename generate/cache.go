package generate

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

// grow makes room in c for rows more tokens.
func (p *pool) grow(c *cache, rows int) {
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

// fork is a cache that begins as c does: full pages are shared, the page that
// is still written to is copied.
func (p *pool) fork(c *cache) cache {
	full := c.n / pageRows
	f := cache{pages: make([]*page, full, len(c.pages)+1), n: c.n}
	copy(f.pages, c.pages)
	for _, pg := range f.pages {
		pg.refs++
	}
	if c.n%pageRows > 0 {
		pg := p.page()
		copy(pg.data, c.pages[full].data)
		f.pages = append(f.pages, pg)
	}
	return f
}

// release empties c; pages that nobody else reads are free again.
func (p *pool) release(c *cache) {
	for _, pg := range c.pages {
		if pg.refs--; pg.refs == 0 {
			p.free = append(p.free, pg)
		}
	}
	*c = cache{}
}
