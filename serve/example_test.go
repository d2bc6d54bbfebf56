package serve_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"

	"promptgen/generate"
	"promptgen/internal/kernel"
	"promptgen/model"
	"promptgen/serve"
	"promptgen/tokenizer"
)

// open makes a model of zeros; a program would load one (model/checkpoint).
func open(context.Context) (*serve.Model, error) {
	vocab, err := tokenizer.NewVocab([]string{"[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]", "多", "喝", "水"})
	if err != nil {
		return nil, err
	}
	tok, err := tokenizer.New(vocab, tokenizer.Options{Level: tokenizer.LevelChar})
	if err != nil {
		return nil, err
	}
	cpu, err := kernel.New(kernel.Options{})
	if err != nil {
		return nil, err
	}
	params := model.NewParams(model.Config{
		VocabSize: vocab.Len(), NPositions: 16, NCtx: 16, NEmbd: 8, NHead: 2, NLayer: 1, LayerNormEpsilon: 1e-5,
	}, false)
	engine, err := generate.NewEngine(params, tok, cpu, generate.EngineOptions{})
	if err != nil {
		cpu.Close()
		return nil, err
	}
	return &serve.Model{Name: "zeros", Engine: engine, Close: func() { engine.Close(); cpu.Close() }}, nil
}

func Example() {
	server, err := serve.New(serve.Options{Open: open})
	if err != nil {
		fmt.Println(err)
		return
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error)
	go func() { done <- server.Serve(ctx, listener) }()

	url := "http://" + listener.Addr().String()
	for ready := false; !ready; { // the model is loaded while the server listens
		if r, err := http.Get(url + "/ready"); err == nil {
			r.Body.Close()
			ready = r.StatusCode == http.StatusOK
		}
	}
	answer, err := http.Post(url+"/generate", "application/json", strings.NewReader(`{"context": "多喝", "maxlength": 3, "samples": 2}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer answer.Body.Close()
	var texts struct{ Result []string }
	if err := json.NewDecoder(answer.Body).Decode(&texts); err != nil {
		fmt.Println(err)
		return
	}
	for _, text := range texts.Result {
		fmt.Println(strings.HasPrefix(text, "多喝"))
	}
	stop()
	fmt.Println(<-done)
	// Output:
	// true
	// true
	// <nil>
}
