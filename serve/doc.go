// Package serve answers prompts over HTTP: the original's POST /generate,
// OpenAI's /v1/completions, a page to try the model in a browser, and what it
// takes to leave such a server alone (limits, keys, metrics, draining).
//
//	s, err := serve.New(serve.Options{Open: open, Log: log})
//	listener, err := net.Listen("tcp", "127.0.0.1:5005")
//	err = s.Serve(ctx, listener) // until ctx is done and the last answer is out
//
// A request passes the middleware of middleware.go (identity, log, panics,
// CORS, keys, rate), is read and checked field by field (fields.go), becomes a
// generate.Request in original.go or openai.go, and waits for the engine, whose
// queue is the only place where work piles up. The model can be exchanged
// while requests run (models.go).
package serve
