// Package segment cuts Chinese text into words.
//
// Chinese is written without spaces, so a word-level vocabulary needs somebody
// who says where a word ends. A [Segmenter] does; the tokenizer asks no more
// of it, so tests put a recorded one in its place and users may bring theirs.
//
// The one that comes along, [Dictionary], knows 349,046 words with their
// frequencies (jieba's list, see NOTICE) and takes, of all the ways to cut a
// sentence into those words, the one whose product of word probabilities is
// largest:
//
//	words  w1 … wn  that maximise  Σ log( freq(wi) / total )
//
// That is a shortest path through a lattice whose edges are the dictionary's
// words, found by dynamic programming in time linear in the text. Runs of
// letters and runs of digits are one edge each: "mg", "2024" and "COVID" are
// never cut inside, and only a dictionary word ("B超", "5G") may join them to
// a neighbour. Case is left as it is.
package segment

// Segmenter cuts text into words. Implementations are safe for concurrent use.
type Segmenter interface {
	// AppendWords appends the words of text, in order, to dst and returns the
	// extended slice. White space separates words and is itself no word; every
	// other character of text belongs to exactly one of them.
	AppendWords(dst []string, text string) []string
}
