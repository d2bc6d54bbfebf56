package main

import (
	"strconv"

	"promptgen/cmd/promptgen/ui"
	"promptgen/tokenizer"
)

// cutText is one string as tokens, which `tokenize --text` shows.
type cutText struct {
	Text   string   `json:"text"`
	Tokens []string `json:"tokens"`
	IDs    []int32  `json:"ids"`
	Unk    int      `json:"unk"` // how many of them are [UNK]
}

// cut makes tokens of text as tokenizing a corpus would.
func cut(t *tokenizer.Tokenizer, text string) cutText {
	r := cutText{Text: text, Tokens: []string{}, IDs: t.Encode(text)}
	unk := t.Vocab().Special().UNK
	for _, id := range r.IDs {
		r.Tokens = append(r.Tokens, t.Vocab().Token(id))
		if id == unk {
			r.Unk++
		}
	}
	return r
}

// showTokens prints each text's ids beside its tokens. The ids come first:
// their width is known, that of Chinese on a terminal is not.
func (a *app) showTokens(t *tokenizer.Tokenizer, texts []string, asJSON bool) error {
	cuts := make([]cutText, len(texts))
	for i, text := range texts {
		cuts[i] = cut(t, text)
	}
	if asJSON {
		return a.console.JSON(cuts)
	}
	for _, c := range cuts {
		var rows [][]string
		for i, id := range c.IDs {
			rows = append(rows, []string{strconv.Itoa(int(id)), c.Tokens[i]})
		}
		if err := a.console.Table([]string{"id", "token"}, rows); err != nil {
			return err
		}
		err := a.console.Facts(ui.Fact{Name: "tokens", Value: len(c.IDs)}, ui.Fact{Name: "[UNK]", Value: c.Unk})
		if err != nil {
			return err
		}
	}
	return nil
}
