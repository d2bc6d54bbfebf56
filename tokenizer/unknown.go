package tokenizer

import "slices"

// AppendEncodeTold is AppendEncode that tells what becomes [UNK]: the word, where
// all of it does, else those of its characters that do. The strings told are
// parts of a larger one; clone what is kept.
func (t *Tokenizer) AppendEncodeTold(dst []int32, text string, unknown func(string)) []int32 {
	buf := t.scratch.Get().(*[]string)
	defer t.scratch.Put(buf)
	t.pre.each(text, buf, func(words []string) {
		for _, w := range words {
			mark := len(dst)
			dst = t.appendWord(dst, w)
			if slices.Contains(dst[mark:], t.vocab.special.UNK) {
				t.tellUnknown(w, len(dst)-mark, unknown)
			}
		}
	}, func(special string) {
		dst = append(dst, t.vocab.ids[special])
	})
	return dst
}

// tellUnknown tells what of a word of n tokens becomes [UNK].
func (t *Tokenizer) tellUnknown(w string, n int, unknown func(string)) {
	told := false
	if n > 1 {
		var ids [8]int32
		for _, r := range w {
			if c := string(r); slices.Contains(t.appendWord(ids[:0], c), t.vocab.special.UNK) {
				unknown(c)
				told = true
			}
		}
	}
	if !told { // one [UNK], or one for a part that has no single culprit
		unknown(w)
	}
}
