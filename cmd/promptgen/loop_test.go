package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"promptgen/internal/fault"
)

const tinyConfig = `{"n_ctx": 32, "n_embd": 16, "n_head": 2, "n_layer": 1, "n_positions": 32}`

// corpus is text with enough documents for a few steps.
func corpus() string {
	var b strings.Builder
	for i := range 60 {
		fmt.Fprintf(&b, "第%d个问题：高血压要注意什么？\n要注意少吃盐，多休息，按时量血压。\n\n", i)
	}
	return b.String()
}

// trained is a shell whose folder has the results of the whole chain, made with
// nothing but the original's places.
func trained(t *testing.T) *shell {
	s := newShell(t)
	s.write("corpus.txt", corpus())
	s.write("tiny.json", tinyConfig)
	s.ok("vocab", "--corpus", "corpus.txt", "--quiet")
	s.ok("tokenize", "--corpus", "corpus.txt", "--val-fraction", "0.2", "--quiet")
	s.ok("train", "--config", "tiny.json", "--epochs", "2", "--lr", "0.01", "--quiet")
	return s
}

// number reads one field of a JSON object.
func number(t *testing.T, text, field string) float64 {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	n, ok := v[field].(float64)
	if !ok {
		t.Fatalf("no number %q in %s", field, text)
	}
	return n
}

// The whole chain must run in the original's places, each command needing no
// more than what the ones before it left there.
func TestLoop(t *testing.T) {
	s := trained(t)
	for _, path := range []string{"vocab/vocab_user.txt", "model/model_epoch1", "model/model_epoch2", "model/final_model/model.safetensors", "model/metrics.jsonl"} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	o := s.ok("eval", "--data", "tokenized", "--json")
	if loss := number(t, o.out, "loss"); loss <= 0 || loss > 20 || number(t, o.out, "tokens") < 1 {
		t.Errorf("eval: %s", o.out)
	}
	o = s.ok("eval", "--corpus", "corpus.txt", "--json")
	if number(t, o.out, "unk_share") != 0 || number(t, o.out, "unigram_entropy") <= 0 {
		t.Errorf("eval: %s", o.out)
	}

	var answers []promptJSON
	generate := []string{"generate", "--prompt", "高血压", "--prompt", "要注意，", "--samples", "2", "--length", "8", "--seed", "3", "--json"}
	o = s.ok(generate...)
	if err := json.Unmarshal([]byte(o.out), &answers); err != nil || len(answers) != 2 {
		t.Fatalf("%v: %s", err, o.out)
	}
	for _, a := range answers {
		for _, sample := range a.Samples {
			if len(a.Samples) != 2 || !strings.HasPrefix(sample.Text, a.Prompt) || len(sample.Tokens) > 8 || sample.Finish == "" {
				t.Errorf("%+v", a)
			}
		}
	}
	if again := s.ok(append(generate, "--threads", "1")...); again.out != o.out {
		t.Errorf("the same seed gave %s and %s", o.out, again.out)
	}

	s.stdin = "高血压\n\n要注意\n"
	o = s.ok("generate", "--jsonl", "--samples", "1")
	if lines := strings.Split(strings.TrimSpace(o.out), "\n"); len(lines) != 2 || !strings.HasPrefix(lines[1], `{"prompt":"要注意"`) {
		t.Errorf("a pipe is one prompt a line: %s", o.out)
	}
	s.stdin = ""
	if o = s.ok("generate", "--prompt", "高血压", "--samples", "1", "--stream", "--length", "5"); !strings.HasPrefix(o.out, "高血压") {
		t.Errorf("--stream: %s", o.out)
	}
	for path, kind := range map[string]string{
		"model/final_model": "model folder", "tokenized": "token shards", "vocab/vocab_user.txt": "vocabulary",
		"model": "training output", "model/final_model/model.safetensors": "safetensors file",
	} {
		if o := s.ok("inspect", path); !strings.Contains(o.out, kind) {
			t.Errorf("inspect %s: %s", path, o.out)
		}
		if o := s.ok("inspect", path, "--json"); !json.Valid([]byte(o.out)) {
			t.Errorf("inspect --json %s: %s", path, o.out)
		}
	}
	// A finished training says so and is no error.
	s.ok("train", "--config", "tiny.json", "--epochs", "2", "--lr", "0.01", "--quiet")
}

// An exported model must go on with a prompt as the one it was made from.
func TestExport(t *testing.T) {
	s := trained(t)
	write := func(model string) string {
		return s.ok("generate", "--model", model, "--prompt", "高血压", "--greedy", "--samples", "1", "--length", "8", "--quiet").out
	}
	want := write("model/final_model")
	for _, format := range []string{"hf", "pytorch", "gguf"} {
		s.ok("export", "--model", "model/final_model", "--format", format, "--out", "for "+format, "--quiet")
		if got := write("for " + format); got != want {
			t.Errorf("exported as %s the model writes %q, before %q", format, got, want)
		}
	}
}

// The same seed must give the same weights whatever the threads.
func TestSameSeedSameWeights(t *testing.T) {
	s := trained(t)
	s.ok("train", "--config", "tiny.json", "--epochs", "2", "--lr", "0.01", "--quiet", "--out", "again", "--threads", "3")
	a, err := os.ReadFile("model/final_model/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("again/final_model/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("the weights differ")
	}
}

// The original's tokens must come out of --compat book and go into train and
// eval, with the vocabulary beside them.
func TestBook(t *testing.T) {
	s := newShell(t)
	s.write("data/a.txt", strings.ReplaceAll(corpus(), "\n\n", "\n"))
	s.write("tiny.json", tinyConfig)
	s.ok("vocab", "--raw_data_path", "data/*.txt", "--compat", "book", "--vocab_size", "500", "--quiet")
	s.ok("tokenize", "--raw_data_path", "data/*.txt", "--compat", "book", "--min_length", "3", "--num_pieces", "4", "--quiet")
	pieces, _ := filepath.Glob("tokenized/tokenized_train_*.txt")
	if len(pieces) != 4 {
		t.Errorf("%d pieces", len(pieces))
	}
	s.ok("train", "--model_config", "tiny.json", "--epochs", "1", "--fp16", "--fp16_opt_level", "O1", "--stride", "16")
	s.ok("eval", "--data", "tokenized")
}

// Every kind of bad input ends with its exit code in one line, and leaves
// nothing half written.
func TestBadInput(t *testing.T) {
	s := trained(t)
	s.write("empty.txt", "")
	s.write("bad.json", `{"n_ctx": 0, "n_embd": 100, "n_head": 3, "n_layer": 1, "n_lyer": 2}`)
	s.write("vocabsize.json", `{"n_ctx": 32, "n_embd": 16, "n_head": 2, "n_layer": 1, "vocab_size": 7}`)
	vocab, err := os.ReadFile("vocab/vocab_user.txt")
	if err != nil {
		t.Fatal(err)
	}
	s.write("nounk.txt", strings.Replace(string(vocab), "[UNK]\n", "", 1))
	s.write("other.txt", string(vocab)+"多余的词\n")
	s.write("little.txt", "头痛\n")
	s.ok("tokenize", "--corpus", "little.txt", "--out", "little", "--quiet")
	s.ok("tokenize", "--corpus", "corpus.txt", "--vocab", "other.txt", "--out", "othertokens", "--quiet")
	if err := os.CopyFS("torn", os.DirFS("model/final_model")); err != nil {
		t.Fatal(err)
	}
	weights, err := os.ReadFile("torn/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	s.write("torn/model.safetensors", strings.Replace(string(weights), "h.0.ln_1.weight", "h.0.ln_9.weight", 1))

	for _, c := range []struct {
		code  int
		line  string
		parts []string
	}{
		{2, "vocab --corpus absent.txt --out v2.txt", []string{"absent.txt"}},
		{2, "tokenize --corpus absent.txt --out t2", []string{"absent.txt"}},
		{2, "tokenize --corpus corpus.txt --vocab absent.txt --out t2", []string{"absent.txt"}},
		{2, "train --config absent.json --out m2", []string{"absent.json", "small"}},
		{2, "train --config tiny.json --data absent --out m2", []string{"absent"}},
		{2, "generate --model absent --prompt x", []string{"absent"}},
		{2, "serve --model absent --port 0", []string{"absent"}},
		{2, "eval --model absent --data tokenized", []string{"absent"}},
		{2, "inspect absent", []string{"absent"}},
		{2, "quickstart absent.txt --dir q2", []string{"absent.txt"}},
		{3, "vocab --corpus empty.txt --out v2.txt", nil},
		{3, "tokenize --corpus empty.txt --out t2", nil},
		{3, "quickstart empty.txt --dir q2", nil},
		{5, "tokenize --corpus corpus.txt --vocab nounk.txt --out t2", []string{"nounk.txt", "[UNK]"}},
		{2, "train --config bad.json --out m2", []string{"n_lyer", "n_layer", "n_ctx", "multiple of n_head"}},
		{2, "train --config vocabsize.json --out m2", []string{"vocab_size"}},
		{3, "train --config small --data little --out m2", []string{"n_ctx"}},
		{5, "generate --model torn --prompt x", []string{"torn"}},
		{5, "eval --model torn --data tokenized", []string{"torn"}},
		{5, "serve --model torn --port 0", []string{"torn"}},
		{5, "generate --vocab other.txt --prompt x", []string{"other.txt"}},
		{5, "eval --data othertokens", []string{"vocabulary"}},
		{2, "train --config mini --init-from model/final_model --data othertokens --out m2", []string{"model/final_model", "n_embd", "n_layer"}},
	} {
		s.fails(c.code, c.parts, strings.Fields(c.line)...)
	}
	s.absent("v2.txt", "t2", "m2/final_model", "m2/state", "q2/model")
}

// An IPv6 address may have the brackets that it has in a URL.
func TestHostInBrackets(t *testing.T) {
	for host, want := range map[string]string{"[::1]": "::1", "::1": "::1", "[fe80::1%lo]": "fe80::1%lo", "127.0.0.1": "127.0.0.1", "[": "["} {
		if got := bare(host); got != want {
			t.Errorf("%s: %s", host, got)
		}
	}
}

// freePort is one that nobody listens on.
func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// The original's curl line must get the original's answer; so must what its
// clients get wrong. SIGTERM (here: a cancelled context) ends the server.
func TestServe(t *testing.T) {
	s := trained(t)
	ctx, cancel := context.WithCancel(context.Background())
	port := freePort(t)
	done := make(chan int)
	var errs bytes.Buffer
	go func() {
		done <- run(ctx, streams{strings.NewReader(""), io.Discard, &errs}, []string{"serve", "--port", port, "--quiet"}, s.environ)
	}()
	url := "http://127.0.0.1:" + port
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if r, err := http.Get(url + "/ready"); err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(end) {
			t.Fatalf("not ready: %s", errs.String())
		}
	}
	for _, c := range []struct {
		body   string
		status int
		result int // texts; -1: the string "[]"
	}{
		{`{"context":"高血压要注意","maxlength":50,"samples":5}`, 200, 5},
		{`{"context":"高血压要注意"}`, 200, 1},
		{`{"context":"高血压要注意","samples":0,"maxlength":3}`, 200, 1},
		{`{"context":"","maxlength":50,"samples":5}`, 200, -1},
		{`{"context":"  "}`, 200, -1},
		{`{"maxlength":50}`, 400, 0},
		{`{"context":5}`, 400, 0},
		{`{"context":"高`, 400, 0},
	} {
		resp, err := http.Post(url+"/generate", "application/json", strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			Result any      `json:"result"`
			Time   *float64 `json:"time"`
			Error  any      `json:"error"`
		}
		err = json.NewDecoder(resp.Body).Decode(&answer)
		resp.Body.Close()
		if err != nil || resp.StatusCode != c.status {
			t.Errorf("%s: status %d, %v", c.body, resp.StatusCode, err)
			continue
		}
		if resp.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: no CORS header", c.body)
		}
		texts, _ := answer.Result.([]any)
		switch {
		case c.status != 200:
			if answer.Error == nil {
				t.Errorf("%s: no error is named", c.body)
			}
		case answer.Time == nil:
			t.Errorf("%s: no time", c.body)
		case c.result < 0 && answer.Result != "[]" || c.result >= 0 && len(texts) != c.result:
			t.Errorf("%s: %v", c.body, answer.Result)
		}
		for _, text := range texts {
			if !strings.HasPrefix(text.(string), "高血压要注意") {
				t.Errorf("%s: %v", c.body, text)
			}
		}
	}
	cancel()
	select {
	case code := <-done:
		if code != fault.CodeDone {
			t.Errorf("the server ended with %d: %s", code, errs.String())
		}
	case <-time.After(20 * time.Second):
		t.Error("the server did not end")
	}
}
