package segment

import "unsafe"

// trie is a set of words as a tree of characters, kept in one hash table of
// edges: (node, character) → child. Asking for an edge costs about one cache
// miss, adding one does not move the others, and the whole word list takes
// 16 bytes an edge: that is why it is no tree of maps and no double array.
//
// Node 0 is the root. The first character of a word, the question asked most,
// is answered by a plain array for the Basic Multilingual Plane; a filter of
// half a megabyte answers most of those that end in "no".
type trie struct {
	edges  []edge    // open addressing, a power of two of them
	filter []uint64  // a bit for each edge: most questions end here, in the cache
	weight []float32 // by node: log probability of the word that ends there, 0: none does
	first  []int32   // by BMP character: child of the root, 0: none
}

// edge leads from the node key>>21 by the character key&0x1fffff to a child.
type edge struct {
	key   uint64 // 0: the slot is free
	child int32
}

const (
	runeBits   = 21
	bmpSize    = 1 << 16
	hashFactor = 0x9e3779b1         // 2^32 / golden ratio: Fibonacci hashing
	mixFactor  = 0x9e3779b97f4a7c15 // the same of 2^64
)

// newTrie makes an empty trie with room for n edges.
func newTrie(n int) *trie {
	slots := slotsFor(n)
	return &trie{
		edges:  make([]edge, slots),
		filter: make([]uint64, slots/16), // four bits for each slot of edges
		weight: make([]float32, 1, n+1),
		first:  make([]int32, bmpSize),
	}
}

// slotsFor is the size of the hash table for n edges, at most two thirds of it
// full.
func slotsFor(n int) int {
	slots := 1 << 10
	for slots*2 < n*3 {
		slots *= 2
	}
	return slots
}

// trieBytes is what newTrie(n) takes.
func trieBytes(n int) int64 {
	slots := int64(slotsFor(n))
	return slots*int64(unsafe.Sizeof(edge{})) + slots/16*8 + 4*int64(n+1) + 4*bmpSize
}

// slot is where the search for an edge begins. The edges of nodes that were
// made one after another lie within a megabyte, so that building from a sorted
// list stays in the cache; within it the character spreads them.
func slot(node int32, r rune) uint64 {
	return uint64(node)*2 + uint64(uint32(r)*hashFactor>>16)
}

// step follows the edge of r from node: 0 where there is none.
func (t *trie) step(node int32, r rune) int32 {
	if node == 0 && uint32(r) < bmpSize {
		return t.first[r]
	}
	key := uint64(node)<<runeBits | uint64(r)
	if word, bit := t.filterBit(key); t.filter[word]&bit == 0 {
		return 0
	}
	mask := uint64(len(t.edges) - 1)
	for i := slot(node, r); ; i++ {
		e := &t.edges[i&mask]
		if e.key == key {
			return e.child
		}
		if e.key == 0 {
			return 0
		}
	}
}

// filterBit is the place of an edge's bit in the filter.
func (t *trie) filterBit(key uint64) (word int, bit uint64) {
	h := key * mixFactor
	return int(h >> 38 & uint64(len(t.filter)-1)), 1 << (h >> 32 & 63)
}

// grow follows the edge of r from node and adds it where there is none. The
// caller has seen to it that there is room.
func (t *trie) grow(node int32, r rune) int32 {
	if child := t.step(node, r); child != 0 {
		return child
	}
	return t.insert(node, r)
}

// insert adds the edge of r from node, which is not there yet.
func (t *trie) insert(node int32, r rune) int32 {
	child := int32(len(t.weight))
	t.weight = append(t.weight, 0)
	if node == 0 && uint32(r) < bmpSize {
		t.first[r] = child
		return child
	}
	key := uint64(node)<<runeBits | uint64(r)
	word, bit := t.filterBit(key)
	t.filter[word] |= bit
	mask := uint64(len(t.edges) - 1)
	i := slot(node, r) & mask
	for t.edges[i].key != 0 {
		i = (i + 1) & mask
	}
	t.edges[i] = edge{key, child}
	return child
}

// add puts word in with its weight, or gives it a new one.
func (t *trie) add(word string, weight float32) {
	node := int32(0)
	for _, r := range word {
		node = t.grow(node, r)
	}
	if node != 0 {
		t.weight[node] = weight
	}
}

// find is the weight of word, 0 if it is not in.
func (t *trie) find(word string) float32 {
	node := int32(0)
	for _, r := range word {
		if node = t.step(node, r); node == 0 {
			return 0
		}
	}
	return t.weight[node]
}
