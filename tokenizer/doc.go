// Package tokenizer turns text into token ids and back.
//
// A [Vocab] is a list of tokens, one a line in its file; a token's id is its
// line, counted from 0. A [Tokenizer] cuts text in the manner of BERT, at one
// of three levels:
//
//	word  高血压 患者 能 吃 党参 吗      a segmenter finds the words
//	char  高 血 压 患 者 能 吃 党 参 吗   each Chinese character is a token
//	bert  as char, but 2024 is one word  Hugging Face's BertTokenizer
//
// The way of a text through it:
//
//	text ─ cut at [SEP] [CLS] … ─ clean ─ words ─ fold ─ split at punctuation ─ WordPiece ─ ids
//
// Cleaning drops control and unassigned characters and makes every space a
// plain one; folding (only where the vocabulary has no capitals) lower-cases
// and removes accents; WordPiece writes a word that the vocabulary lacks as
// pieces, the second and later ones marked by "##". What still cannot be
// written becomes [UNK].
//
// Where nothing else is asked for, the word level goes further than the
// original: numbers and Latin words are found whole, and a word that has no
// pieces is written with the longest vocabulary words in it, so that [UNK]
// stands for single characters only. Options.Compat switches that off.
//
// [Vocab], [Tokenizer] and the package's functions are safe for concurrent
// use; a [Stream] belongs to one goroutine.
package tokenizer
