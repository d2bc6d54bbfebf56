package dist

// Node is a subtree of the binary tree over the shards of a step: the shards
// from Index<<Level on, 1<<Level of them, as far as there are so many. Its sum
// is that of its left half plus that of its right half, if that is not empty;
// the sum of a leaf (Level 0) is the shard's own. So the sum of all shards is
// one fixed expression, wherever its parts are computed.
type Node struct{ Level, Index int }

// Range is the shards [lo, hi) of n that a node stands for.
func (v Node) Range(n int) (lo, hi int) {
	return min(n, v.Index<<v.Level), min(n, (v.Index+1)<<v.Level)
}

func (v Node) children() (left, right Node) {
	return Node{v.Level - 1, 2 * v.Index}, Node{v.Level - 1, 2*v.Index + 1}
}

// Root is the node of n shards.
func Root(n int) Node {
	level := 0
	for 1<<level < n {
		level++
	}
	return Node{Level: level}
}

// Share is the shards [lo, hi) of n that a rank computes: in order, as evenly
// as can be.
func Share(n, rank, size int) (lo, hi int) { return n * rank / size, n * (rank + 1) / size }

// Cover is the fewest nodes that stand for the shards [lo, hi) of n together,
// in order: how far one who has only these shards can add them up.
func Cover(n, lo, hi int) []Node {
	if lo >= hi {
		return nil
	}
	var cover []Node
	var visit func(v Node)
	visit = func(v Node) {
		first, end := v.Range(n)
		switch {
		case first >= end || end <= lo || hi <= first:
		case lo <= first && end <= hi:
			cover = append(cover, v)
		default:
			left, right := v.children()
			visit(left)
			visit(right)
		}
	}
	visit(Root(n))
	return cover
}

// Part is the sum of a node over some elements.
type Part struct {
	Node
	Sum []float32
}

// Fold adds the parts, which are in the order of their shards, up to the sum of
// top: in place, into the leftmost memory of each sum, but into that of home
// where home takes part in it (a sum of two does not depend on which is added
// to which). add adds its second argument to its first. n is the number of
// shards; home may be nil.
func Fold(n int, top Node, parts []Part, home []float32, add func(dst, x []float32)) []float32 {
	sum, rest := fold(n, top, parts, home, add)
	if len(rest) != 0 {
		panic("dist: parts that are not of this sum") // a programming error
	}
	return sum
}

func fold(n int, v Node, parts []Part, home []float32, add func(dst, x []float32)) ([]float32, []Part) {
	if parts[0].Node == v {
		return parts[0].Sum, parts[1:]
	}
	l, r := v.children()
	left, parts := fold(n, l, parts, home, add)
	if lo, hi := r.Range(n); lo >= hi {
		return left, parts
	}
	right, parts := fold(n, r, parts, home, add)
	if isSame(right, home) {
		left, right = right, left
	}
	add(left, right)
	return left, parts
}

// FoldCover adds parts, which stand for the shards [lo, hi) of n, up to those of
// Cover.
func FoldCover(n, lo, hi int, parts []Part, add func(dst, x []float32)) []Part {
	var folded []Part
	for _, v := range Cover(n, lo, hi) {
		count, at := 0, 0
		for _, end := v.Range(n); at < end && count < len(parts); count++ {
			_, at = parts[count].Range(n)
		}
		folded = append(folded, Part{v, Fold(n, v, parts[:count], nil, add)})
		parts = parts[count:]
	}
	return folded
}

// Sums is how many sums exist at once in a rank that computes the shards
// [lo, hi) of n one after another and adds them up as early as it can.
func Sums(n, lo, hi int) int {
	most := 0
	for s := lo; s < hi; s++ {
		most = max(most, len(Cover(n, lo, s))+1)
	}
	return most
}

// isSame says whether two slices are the same memory.
func isSame(a, b []float32) bool { return len(a) > 0 && len(b) > 0 && &a[0] == &b[0] }
