package checkpoint

import (
	"bytes"
	"encoding/json"
	"io"

	"promptgen/tokenizer"
)

// This file writes what Hugging Face's tokenizers need to give the same ids as
// ours. tokenizer.json describes the chain in their terms: normalizer,
// pre-tokenizers, WordPiece; the other two name the special tokens.

// specialTokens are the tokens that are never cut, in BERT's vocabulary.
var specialTokens = []string{tokenizer.UNK, tokenizer.SEP, tokenizer.PAD, tokenizer.CLS, tokenizer.MASK}

// maxWordChars is BERT's limit: a longer word is one [UNK].
const maxWordChars = 100

// digits matches what Python's str.isdigit does, which char and word level set
// apart: the decimal digits, and those that are written as one (superscripts,
// circled and the like). The ranges stand
// for themselves, since regular expressions differ in how they escape.
const digits = "[\\p{Nd}" +
	"\u00B2\u00B3\u00B9\u1369-\u1371\u19DA\u2070\u2074-\u2079\u2080-\u2089" +
	"\u2460-\u2468\u2474-\u247C\u2488-\u2490\u24EA\u24F5-\u24FD\u24FF" +
	"\u2776-\u277E\u2780-\u2788\u278A-\u2792" +
	"\U00010A40-\U00010A43\U00010E60-\U00010E68\U00011052-\U0001105A\U0001F100-\U0001F10A]"

// writeTokenizer writes vocab.txt and the tokenizer's JSON files.
func (m *Model) writeTokenizer(out *manifest) error {
	if err := out.write(vocabName, m.writeVocab); err != nil {
		return err
	}
	if len(m.UserDict) > 0 {
		if err := out.writeBytes(userDictName, m.UserDict); err != nil {
			return err
		}
	}
	if err := out.writeJSON(tokenizerConfName, m.tokenizerConfig()); err != nil {
		return err
	}
	if err := out.writeJSON(specialTokensName, m.specialTokensMap()); err != nil {
		return err
	}
	return out.writeJSON(tokenizerName, m.tokenizerJSON())
}

// writeVocab writes one token a line; the line is the id.
func (m *Model) writeVocab(w io.Writer) error {
	for id := range m.Vocab.Len() {
		if _, err := io.WriteString(w, m.Vocab.Token(int32(id))+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// specialTokensMap is special_tokens_map.json.
func (m *Model) specialTokensMap() map[string]string {
	s := map[string]string{}
	put := func(key, token string) {
		if token != "" {
			s[key] = token
		}
	}
	put("bos_token", tokenName(m.Vocab, m.BOS))
	put("eos_token", tokenName(m.Vocab, m.EOS))
	put("pad_token", tokenName(m.Vocab, m.PAD))
	for key, token := range map[string]string{"unk_token": tokenizer.UNK, "sep_token": tokenizer.SEP, "cls_token": tokenizer.CLS, "mask_token": tokenizer.MASK} {
		if tokenID(m.Vocab, token) != NoToken {
			put(key, token)
		}
	}
	return s
}

// tokenizerConfig is tokenizer_config.json. The class is the plain one that
// reads tokenizer.json as it stands: BERT's own would append [SEP].
func (m *Model) tokenizerConfig() map[string]any {
	c := map[string]any{
		"tokenizer_class":              "PreTrainedTokenizerFast",
		"do_lower_case":                m.Meta.LowerCase,
		"tokenize_chinese_chars":       m.Meta.Level != tokenizer.LevelWord,
		"strip_accents":                nil,
		"model_max_length":             m.Params.Config.NCtx,
		"clean_up_tokenization_spaces": false,
	}
	for k, v := range m.specialTokensMap() {
		c[k] = v
	}
	return c
}

// object is a JSON object of tokenizer.json.
type object map[string]any

// tokenizerJSON is tokenizer.json.
//
// BERT's chain is a normalizer (control characters out, ideographs set apart,
// lower case without accents) and a pre-tokenizer that cuts at white space and
// punctuation. Char level sets every digit apart as well (so does the word level
// of the original); word level leaves ideographs together, so that words are what
// spaces separate. There is no post-processor: nothing is put before or behind a
// text.
func (m *Model) tokenizerJSON() object {
	level := m.Meta.Level
	pre := []object{{"type": "BertPreTokenizer"}}
	if level == tokenizer.LevelChar || m.Meta.Compat {
		pre = append(pre, object{"type": "Split", "pattern": object{"Regex": digits}, "behavior": "Isolated", "invert": false})
	}
	var added []object
	for _, tok := range specialTokens {
		if id := tokenID(m.Vocab, tok); id != NoToken {
			added = append(added, object{"id": id, "content": tok, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
		}
	}
	return object{
		"version": "1.0", "truncation": nil, "padding": nil,
		"added_tokens": added,
		"normalizer": object{
			"type": "BertNormalizer", "clean_text": true,
			"handle_chinese_chars": level != tokenizer.LevelWord,
			"strip_accents":        nil, "lowercase": m.Meta.LowerCase,
		},
		"pre_tokenizer":  object{"type": "Sequence", "pretokenizers": pre},
		"post_processor": nil,
		"decoder":        object{"type": "WordPiece", "prefix": "##", "cleanup": false},
		"model": object{
			"type": "WordPiece", "unk_token": tokenizer.UNK, "continuing_subword_prefix": "##",
			"max_input_chars_per_word": maxWordChars, "vocab": vocabJSON{m.Vocab},
		},
	}
}

// vocabJSON is a vocabulary as a JSON object in the order of its ids. Of a
// token that occurs twice the last counts, as everywhere.
type vocabJSON struct{ v *tokenizer.Vocab }

func (v vocabJSON) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	b.WriteByte('{')
	for id := range int32(v.v.Len()) {
		tok := v.v.Token(id)
		if last, _ := v.v.ID(tok); last != id {
			continue
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		if err := enc.Encode(tok); err != nil {
			return nil, err
		}
		b.WriteByte(':')
		if err := enc.Encode(id); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
