// Package data turns text files into what a model trains on.
//
// The way of a corpus, each step a file of this package:
//
//	ExpandGlobs   names, folders, patterns → the files of a corpus
//	Documents     files → documents, one at a time (encodings, compression, JSON)
//	Tokenize      documents → token shards in a folder, with a manifest and a report
//	OpenSet       that folder → two streams of Tokens, for training and validation
//	Windows       a stream → sequences of n_ctx tokens, in an order drawn by seed
//
// Nothing in it holds a corpus in memory. Documents are read as a stream and
// tokenized by all cores a batch at a time; tokens lie on disk, two bytes each
// (four where the vocabulary is larger than 65536), and are read where needed.
//
// In a stream every document is framed [MASK] … [CLS], and a line feed inside it
// is [SEP]: the conventions of the original system, by which a model learns where
// a text begins and ends.
package data
