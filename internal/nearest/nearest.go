// Package nearest finds the known word that a mistyped one is closest to, so
// that an error can name it. Upper and lower case, and - and _, are the same:
// who writes N_LAYER means n_layer.
package nearest

import "strings"

// Of returns the word of words that the fewest edits (insert, delete, replace,
// swap of neighbours) turn typed into; the first of equals, "" for no words.
func Of(typed string, words []string) string {
	best, _ := closest(typed, words)
	return best
}

// Near is Of where typed can be a slip of that word, at most a third of its
// letters being wrong; else "": a far word would mislead.
func Near(typed string, words []string) string {
	best, dist := closest(typed, words)
	if 3*dist > max(len([]rune(typed)), len([]rune(best)))+1 {
		return ""
	}
	return best
}

func closest(typed string, words []string) (best string, dist int) {
	for i, w := range words {
		if d := distance(fold(typed), fold(w)); i == 0 || d < dist {
			best, dist = w, d
		}
	}
	return best, dist
}

func fold(s string) []rune { return []rune(strings.ReplaceAll(strings.ToLower(s), "_", "-")) }

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
