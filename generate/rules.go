package generate

import (
	"bytes"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode"

	"promptgen/tokenizer"
)

// history is a text as the penalties see it.
type history struct {
	tokens []int32         // the prompt with what stands before it, then what was written
	prompt int             // tokens that were not written
	counts map[int32]tally // of tokens; nil where no penalty asks for it
}

// tally is how often a token occurs.
type tally struct{ all, written int32 }

func newHistory(context []int32, r *Request) history {
	h := history{tokens: slices.Clone(context), prompt: len(context)}
	if r.RepetitionPenalty > 0 && r.RepetitionPenalty != 1 || r.PresencePenalty != 0 || r.FrequencyPenalty != 0 {
		h.counts = make(map[int32]tally)
		for _, id := range context {
			h.counts[id] = tally{h.counts[id].all + 1, 0}
		}
	}
	return h
}

// push adds a token that was written.
func (h *history) push(id int32) {
	h.tokens = append(h.tokens, id)
	if h.counts != nil {
		c := h.counts[id]
		h.counts[id] = tally{c.all + 1, c.written + 1}
	}
}

func (h history) clone() history {
	h.tokens, h.counts = slices.Clone(h.tokens), maps.Clone(h.counts)
	return h
}

// written is what was written so far.
func (h *history) written() []int32 { return h.tokens[h.prompt:] }

// penalize lowers the logits of tokens that were there before: by repetition
// (positive ones divided, negative ones multiplied, over the whole text), by
// presence (once) and frequency (each time), over what was written.
func (h *history) penalize(logits []float32, r *Request) {
	p := float32(r.RepetitionPenalty)
	for id, c := range h.counts {
		if p > 0 && p != 1 {
			if logits[id] > 0 {
				logits[id] /= p
			} else {
				logits[id] *= p
			}
		}
		if c.written > 0 {
			logits[id] -= float32(r.PresencePenalty + r.FrequencyPenalty*float64(c.written))
		}
	}
}

// rules are what a request forbids.
type rules struct {
	tok    *tokenizer.Tokenizer
	never  []int32 // tokens that are never drawn
	eos    int32   // the end of text; negative: none
	after  []ban
	memory int // bytes of the text that the bans look back on
}

// ban forbids tokens after others, or after a text.
type ban struct {
	tokens []int32
	text   string
	last   []int32
}

// newRules turns the request's words into bans.
func newRules(tok *tokenizer.Tokenizer, never []int32, eos int32, r *Request) *rules {
	rs := &rules{tok: tok, never: never, eos: eos}
	for _, word := range r.Ban {
		rs.banTokens(encodePrompt(tok, word))
		rs.banText(word)
	}
	return rs
}

// banTokens forbids the sequence: its last token after those before it. Nothing is
// forbidden by an empty one, a word of which the tokenizer leaves nothing and which
// is never written anyway, nor by one with [UNK], which stands for anything.
func (rs *rules) banTokens(seq []int32) {
	if len(seq) == 0 || slices.Contains(seq, rs.tok.Vocab().Special().UNK) {
		return
	}
	last := len(seq) - 1
	rs.after = append(rs.after, ban{tokens: seq[:last], last: seq[last:]})
}

// banText forbids a word of a script without spaces however it is cut into
// tokens: the tokens that have it within them, and those that complete it after
// its beginning. Words of letters and digits are forbidden as tokens alone,
// since "art" is no part of "party".
func (rs *rules) banText(word string) {
	if strings.ContainsFunc(word, func(r rune) bool { return r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r)) }) {
		return
	}
	for at := range word { // the beginnings of its characters
		b := ban{text: word[:at]}
		for id := range int32(rs.tok.Vocab().Len()) {
			text := rs.plain(id)
			if at == 0 && strings.Contains(text, word) || at > 0 && strings.HasPrefix(text, word[at:]) {
				b.last = append(b.last, id)
			}
		}
		if len(b.last) > 0 {
			rs.after = append(rs.after, b)
			rs.memory = max(rs.memory, at)
		}
	}
}

// plain is a token's text within a word; that of a special token, and of a row
// of the head without a token, is none.
func (rs *rules) plain(id int32) string {
	if int(id) >= rs.tok.Vocab().Len() {
		return ""
	}
	token := rs.tok.Vocab().Token(id)
	if len(token) > 2 && token[0] == '[' && token[len(token)-1] == ']' {
		return ""
	}
	return strings.TrimPrefix(token, "##")
}

// forbid sets the logits of what may not follow tokens to -Inf. tail is memory
// to work in, which is returned.
func (rs *rules) forbid(logits []float32, tokens []int32, tail []byte) []byte {
	if rs.memory > 0 {
		from := len(tokens)
		for size := 0; from > 0 && size < rs.memory; from-- {
			text := rs.plain(tokens[from-1])
			if text == "" {
				break
			}
			size += len(text)
		}
		for _, id := range tokens[from:] {
			tail = append(tail, rs.plain(id)...)
		}
	}
	none := float32(math.Inf(-1))
	for _, id := range rs.never {
		logits[id] = none
	}
	for _, b := range rs.after {
		if n := len(tokens) - len(b.tokens); n < 0 || !slices.Equal(tokens[n:], b.tokens) || !bytes.HasSuffix(tail, []byte(b.text)) {
			continue
		}
		for _, id := range b.last {
			logits[id] = none
		}
	}
	return tail
}
