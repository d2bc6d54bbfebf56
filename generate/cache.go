package generate

import (
	"slices"

	"promptgen/internal/decode"
)

// pageRows is the number of tokens of a page.
const pageRows = decode.PageRows

// page holds keys and values of pageRows tokens in all layers, as decode.Cache
// lays them out.
type page struct {
	data []uint32
	refs int // caches that read it
}

// cache is what a sequence has read: keys and values of n tokens.
type cache struct {
	pages []*page
	n     int
}

// pool hands out pages and takes them back. It is used by one goroutine.
type pool struct {
	layout decode.Cache

	slab  [][]uint32 // pages not yet handed out
	slabs []func()   // give the memory back
	free  []*page
	made  int // pages ever allocated
}

// words are the contents of the pages.
func (c *cache) words() [][]uint32 {
	w := make([][]uint32, len(c.pages))
	for i, pg := range c.pages {
		w[i] = pg.data
	}
	return w
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
	if len(p.slab) == 0 {
		slab, drop := p.layout.NewPages(slabPages)
		p.slab, p.slabs = slab, append(p.slabs, drop)
	}
	p.made++
	data := p.slab[0]
	p.slab = p.slab[1:]
	return &page{data: data, refs: 1}
}

// slabPages is how many pages are asked for together, a long text's, so that the
// system can give large ones. It gives them when they are first written to: a
// short text takes little.
const slabPages = 32

// close gives all pages back, which nothing must read any more.
func (p *pool) close() {
	for _, drop := range p.slabs {
		drop()
	}
	p.slab, p.slabs = nil, nil
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
