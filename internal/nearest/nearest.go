// Package nearest finds the known word that a mistyped one is closest to, so
// that an error can name it.
package nearest

// Of returns the word of words that the fewest edits (insert, delete, replace,
// swap of neighbours) turn typed into; the first of equals, "" for no words.
func Of(typed string, words []string) string {
	best, bestDist := "", -1
	for _, w := range words {
		if d := distance([]rune(typed), []rune(w)); bestDist < 0 || d < bestDist {
			best, bestDist = w, d
		}
	}
	return best
}

// distance is the optimal-string-alignment distance of a and b.
func distance(a, b []rune) int {
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}
