package generate

import "slices"

// minPrefix is the shortest common beginning of two prompts that is worth
// taking over.
const minPrefix = 4

// prefixes keeps what the last prompts left in the cache, so that a prompt that
// begins like one of them reads only what is new. It holds prompts alone, not
// what was written after them.
type prefixes struct {
	pool  *pool
	limit int // pages at most, counted for each prompt alone

	kept  []prefix // the last used at the end
	pages int
}

// prefix is a prompt that was read.
type prefix struct {
	ids   []int32
	cache cache
}

// begin returns the cache of the longest known beginning of ids. The last token
// is left to read: the logits after it are wanted.
func (p *prefixes) begin(ids []int32) cache {
	best, n := -1, minPrefix-1
	for i := range p.kept {
		if same := min(common(p.kept[i].ids, ids), len(ids)-1); same > n {
			best, n = i, same
		}
	}
	if best < 0 {
		return cache{}
	}
	p.touch(best)
	return p.pool.fork(&p.kept[len(p.kept)-1].cache, n)
}

// keep remembers a prompt whose cache is c. One that a longer prompt begins with
// is kept with that.
func (p *prefixes) keep(ids []int32, c *cache) {
	for i := 0; i < len(p.kept); i++ {
		switch same := common(p.kept[i].ids, ids); same {
		case len(ids):
			p.touch(i)
			return
		case len(p.kept[i].ids):
			p.drop(i)
			i--
		}
	}
	if len(c.pages) > p.limit {
		return
	}
	for p.pages+len(c.pages) > p.limit {
		p.drop(0)
	}
	p.kept = append(p.kept, prefix{ids, p.pool.fork(c, len(ids))})
	p.pages += len(c.pages)
}

func (p *prefixes) touch(i int) {
	used := p.kept[i]
	p.kept = append(slices.Delete(p.kept, i, i+1), used)
}

func (p *prefixes) drop(i int) {
	p.pages -= len(p.kept[i].cache.pages)
	p.pool.release(&p.kept[i].cache)
	p.kept = slices.Delete(p.kept, i, i+1)
}

// clear forgets all prompts.
func (p *prefixes) clear() {
	for len(p.kept) > 0 {
		p.drop(0)
	}
}

// common is the length of the common beginning of a and b.
func common(a, b []int32) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
