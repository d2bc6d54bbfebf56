package main

import (
	"context"
	"fmt"
	"sync"

	"promptgen/cmd/promptgen/ui"
	"promptgen/generate"
)

// atOnce is how many prompts are worked on together; the engine writes their
// samples side by side.
const atOnce = 16

// question is a prompt on its way to its answer.
type question struct {
	number int
	prompt string
	resp   *generate.Response
	err    error
}

// answering is what the reader of prompts and the printer of answers share.
type answering struct {
	ask      func(context.Context, string) (*generate.Response, error)
	answered chan question
	places   chan struct{} // of prompts whose answers are not printed yet

	mu     sync.Mutex
	over   bool // no question is begun any more
	asking sync.WaitGroup
}

// answerAll asks for every prompt of prompts, which calls its argument for each
// of them until that is false, and hands the answers to print: in the prompts'
// order, or as they finish. The first error ends it.
func answerAll(ctx context.Context, prompts func(yield func(string) bool) error, ordered bool,
	ask func(context.Context, string) (*generate.Response, error), print func(question) error) error {
	ctx, cancel := context.WithCancel(ctx)
	a := &answering{ask: ask, answered: make(chan question), places: make(chan struct{}, atOnce)}
	defer a.end(cancel)
	read := make(chan error, 1)
	go func() { read <- a.read(ctx, prompts) }() // on its own: reading may wait for a user
	return a.print(ctx, read, ordered, print)
}

// read begins a question for each prompt while there is a place, and returns
// when all of them are answered.
func (a *answering) read(ctx context.Context, prompts func(yield func(string) bool) error) error {
	n := 0
	err := prompts(func(prompt string) bool {
		select {
		case a.places <- struct{}{}:
		case <-ctx.Done():
			return false
		}
		n++
		return a.begin(ctx, question{number: n - 1, prompt: prompt})
	})
	a.asking.Wait()
	return err
}

func (a *answering) begin(ctx context.Context, q question) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return false
	}
	a.asking.Go(func() {
		q.resp, q.err = a.ask(ctx, q.prompt)
		select {
		case a.answered <- q:
		case <-ctx.Done():
		}
	})
	return true
}

// print hands out the answers until all are read, or the first error.
func (a *answering) print(ctx context.Context, read <-chan error, ordered bool, print func(question) error) error {
	waiting := map[int]question{}
	next := 0
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-read:
			return err
		case q := <-a.answered:
			if q.err != nil {
				return q.err
			}
			if !ordered {
				next = q.number
			}
			waiting[q.number] = q
			for q, ok := waiting[next]; ok; q, ok = waiting[next] {
				delete(waiting, next)
				if err := print(q); err != nil {
					return err
				}
				<-a.places
				next++
			}
		}
	}
}

// end stops what is still asked for and waits for it; the reader may go on
// waiting for a user.
func (a *answering) end(cancel context.CancelFunc) {
	cancel()
	a.mu.Lock()
	a.over = true
	a.mu.Unlock()
	a.asking.Wait()
}

// tokenJSON is a token that was drawn or might have been.
type tokenJSON struct {
	Token   int32   `json:"token"`
	LogProb float64 `json:"logprob"`
}

// sampleJSON and promptJSON are the answer in JSON. The last two fields come
// with --logprobs: for each token its own, and the most probable ones.
type sampleJSON struct {
	Text     string          `json:"text"`
	Tokens   []int32         `json:"tokens"`
	Finish   generate.Finish `json:"finish_reason"`
	LogProb  float64         `json:"logprob"`
	LogProbs []float64       `json:"logprobs,omitempty"`
	Top      [][]tokenJSON   `json:"top_logprobs,omitempty"`
}

type promptJSON struct {
	Prompt  string       `json:"prompt"`
	Seed    uint64       `json:"seed"`
	Samples []sampleJSON `json:"samples"`
}

// printer prints answers in the form asked for.
type printer struct {
	console                       *ui.Console
	json, jsonl, stream, logProbs bool
	all                           []promptJSON // for json: one document at the end
	lost                          error        // of what was streamed
}

// streaming lets the first sample of r be printed while it is written.
func (p *printer) streaming(r generate.Request) generate.Request {
	print := func(text string) {
		if _, err := fmt.Fprint(p.console.Out, text); err != nil {
			p.lost = err
		}
	}
	p.heading(r.Samples, 0)
	print(r.Prompt)
	r.OnToken = func(piece generate.Piece) {
		if piece.Sample == 0 {
			print(piece.Text)
		}
	}
	return r
}

// answer prints what streaming has not.
func (p *printer) answer(prompt string, resp *generate.Response) error {
	if p.json || p.jsonl {
		answer := p.answerJSON(prompt, resp)
		if p.jsonl {
			return p.console.JSONLine(answer)
		}
		p.all = append(p.all, answer)
		return nil
	}
	if p.lost != nil {
		return p.lost
	}
	for i, s := range resp.Samples {
		if p.stream && i == 0 {
			fmt.Fprintln(p.console.Out)
			continue
		}
		p.heading(len(resp.Samples), i)
		if _, err := fmt.Fprintln(p.console.Out, s.Text); err != nil {
			return err
		}
	}
	return nil
}

// heading numbers the samples where there are several.
func (p *printer) heading(samples, i int) {
	if samples > 1 {
		fmt.Fprintf(p.console.Out, "[%d] ", i+1)
	}
}

func (p *printer) answerJSON(prompt string, resp *generate.Response) promptJSON {
	out := promptJSON{Prompt: prompt, Seed: resp.Seed, Samples: []sampleJSON{}}
	for _, s := range resp.Samples {
		if s.Tokens == nil {
			s.Tokens = []int32{} // [], not null
		}
		j := sampleJSON{Text: s.Text, Tokens: s.Tokens, Finish: s.Finish, LogProb: s.LogProb}
		if p.logProbs {
			j.LogProbs = s.LogProbs
			for _, top := range s.Top {
				var list []tokenJSON
				for _, t := range top {
					list = append(list, tokenJSON(t))
				}
				j.Top = append(j.Top, list)
			}
		}
		out.Samples = append(out.Samples, j)
	}
	return out
}

// end prints what was kept for one document.
func (p *printer) end() error {
	if !p.json || p.jsonl {
		return nil
	}
	return p.console.JSON(p.all)
}
