package data

import (
	"promptgen/internal/fault"
	"promptgen/tokenizer"
)

// Vocab reads the vocabulary that the set's ids count in.
func (s *Set) Vocab() (*tokenizer.Vocab, error) {
	v, err := tokenizer.ReadVocab(s.vocabPath)
	if err != nil {
		return nil, err
	}
	if v.Hash() != s.Manifest.VocabHash {
		return nil, fault.Corrupt("%s: not the vocabulary that the corpus was tokenized with (hash); tokenize the corpus again", s.vocabPath)
	}
	return v, nil
}

// Tokenizer rebuilds the tokenizer that made the set, from what lies beside.
func (s *Set) Tokenizer() (*tokenizer.Tokenizer, error) {
	v, err := s.Vocab()
	if err != nil {
		return nil, err
	}
	return tokenizer.New(v, tokenizer.Options{
		Level:     tokenizer.Level(s.Manifest.Level),
		LowerCase: s.Manifest.LowerCase,
		UserDict:  s.userDict,
		Compat:    s.Manifest.Compat,
	})
}
