package reshape

import (
	"fmt"
	"strings"
)

// Notes tell what is carried and what is new, a line for each dimension that
// changes; none where the shape and vocabulary are the same.
func (r *Reshape) Notes() (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	from, to := r.from, r.to
	switch was, now := from.NPositions, to.NPositions; {
	case now < was:
		add("positions %d to %d: the first ones", was, now)
	case now > was:
		add("positions %d to %d: what follows the old ones repeats their second half", was, now)
	}
	if to.NLayer < from.NLayer {
		var kept []string
		for _, x := range r.layers {
			kept = append(kept, fmt.Sprint(x.index))
		}
		add("layers %d to %d: numbers %s", from.NLayer, to.NLayer, strings.Join(kept, ", "))
	}
	if to.NHead < from.NHead {
		add("heads %d to %d: in each layer those of largest norm", from.NHead, to.NHead)
	}
	switch was, now := from.HeadDim(), to.HeadDim(); {
	case now < was:
		add("a head's width %d to %d: its dimensions of largest norm", was, now)
	case now > was:
		add("a head's width %d to %d: %d dimensions are new", was, now, now-was)
	}
	if to.NEmbd < from.NEmbd {
		add("n_embd %d to %d: the channels of largest norm", from.NEmbd, to.NEmbd)
	}
	if to.Inner() < from.Inner() {
		add("n_inner %d to %d: in each layer the units of largest norm", from.Inner(), to.Inner())
	}
	if moved := r.moved(); moved || r.anew > 0 || from.VocabSize != to.VocabSize {
		add("vocabulary %d to %d: %d tokens are carried, %d are new", from.VocabSize, to.VocabSize, len(r.tokens)-r.anew, r.anew)
	}
	return lines
}

// moved tells that tokens have other ids than they had.
func (r *Reshape) moved() bool {
	for i, t := range r.tokens {
		if t != New && int(t) != i {
			return true
		}
	}
	return false
}
