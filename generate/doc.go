// Package generate writes on from a prompt: it decodes a GPT-2 token by token,
// for many samples and many requests at once.
//
// Decoding is limited by how often the weights are read, so one goroutine owns
// the processor and the weights and lets every sequence take one step together:
// requests join and leave that batch between two steps (continuous batching).
// What each part does:
//
//   - request.go: what can be asked for and what comes back
//   - engine.go: the door; Generate hands a request over and waits for its text
//   - job.go: a request on its way, and the letter box through which it is answered
//   - scheduler.go: the loop of steps; who joins, who leaves, what is read next
//   - share.go: who gets a place to write, and who gives one up
//   - sequence.go, beam.go: a sample being written; a search with its texts
//   - prefix.go: what the last prompts left in the cache
//   - source.go, modelsource.go: where weights come from: memory, a model's file
//   - weights.go: the weights, packed for decoding
//   - forward.go: one step of the model over the rows of several sequences
//   - cache.go: keys and values of what was read, in pages that samples share
//   - rules.go: penalties and bans
//   - filter.go: which tokens may be drawn (temperature, top-k, top-p, min-p, typical-p)
//   - sampler.go: the random stream, the draw
//   - text.go: tokens back to text, stop strings, the seam to the prompt
//   - reader.go: the model over tokens without a draw, for eval and measurements
//
// A prompt is read once and its cache shared by all samples of the request, and
// by later prompts that begin like it. Pages are copied when one of their
// readers writes to them. A request with more than its share of places gives
// one up to a smaller one: its sample is paused, cache and all. A
// sequence that reaches the model's n_ctx goes on: the last half of what it
// has written is read again at the start of a fresh window.
//
// The random stream belongs to the request's seed and the sample's number, and
// a row of a matrix product does not depend on the rows beside it: the same
// request gives the same text whatever else is in the batch.
package generate
