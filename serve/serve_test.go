package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"promptgen/generate"
	"promptgen/internal/kernel"
	"promptgen/model"
	"promptgen/tokenizer"
)

// openTiny makes a small random model over a few dozen characters.
func openTiny(t testing.TB, o generate.EngineOptions) func(context.Context) (*Model, error) {
	tokens := []string{"[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]", "hello", "world"}
	for _, r := range "高血压要注意饮食多喝水早睡早起不宜熬夜，。" {
		tokens = append(tokens, string(r))
	}
	return func(context.Context) (*Model, error) {
		v, err := tokenizer.NewVocab(tokens)
		if err != nil {
			return nil, err
		}
		tok, err := tokenizer.New(v, tokenizer.Options{Level: tokenizer.LevelChar, LowerCase: true})
		if err != nil {
			return nil, err
		}
		p := model.NewParams(model.Config{
			VocabSize: v.Len(), NPositions: 64, NCtx: 64, NEmbd: 16, NHead: 2, NLayer: 1, LayerNormEpsilon: 1e-5,
		}, false)
		r := rand.New(rand.NewPCG(1, 1))
		for _, tensor := range p.Tensors {
			for i := range tensor.Data {
				tensor.Data[i] = float32(r.NormFloat64()) * 0.3
			}
		}
		cpu, err := kernel.New(kernel.Options{})
		if err != nil {
			return nil, err
		}
		e, err := generate.NewEngine(p, tok, cpu, o)
		if err != nil {
			return nil, err
		}
		return &Model{Name: "tiny", Engine: e, Close: cpu.Close}, nil
	}
}

// start runs a server and returns its address.
func start(t testing.TB, o Options, eo generate.EngineOptions) (*Server, string) {
	t.Helper()
	o.Open = openTiny(t, eo)
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s, "http://" + l.Addr().String()
}

type reply struct {
	status int
	header http.Header
	body   string
}

func ask(t testing.TB, method, url, body string, header ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(b)}
}

// The original's curl line, and the odd requests that it answers.
func TestOriginal(t *testing.T) {
	_, url := start(t, Options{}, generate.EngineOptions{})
	r := ask(t, "POST", url+"/generate", `{"context":"高血压要注意","maxlength":50,"samples":5}`, "Content-Type", "application/json")
	var a struct {
		Result []string
		Time   *float64
	}
	if err := json.Unmarshal([]byte(r.body), &a); err != nil || r.status != 200 || len(a.Result) != 5 || a.Time == nil || *a.Time <= 0 {
		t.Fatalf("%d %s (%v)", r.status, r.body, err)
	}
	for _, text := range a.Result {
		if !strings.HasPrefix(text, "高血压要注意") {
			t.Errorf("%q does not begin with the context", text)
		}
	}
	if got := r.header.Get("Access-Control-Allow-Origin"); got != "*" || r.header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("CORS: %q", got)
	}

	for body, want := range map[string]string{
		`{"context":""}`:                         `{"result":"[]","time":0}`,
		`{"context":" \n\t","samples":3}`:        `{"result":"[]","time":0}`,
		`{"context":"hello <b> ","maxlength":0}`: `{"result":["hello <b> "],"time":`,
	} {
		if r := ask(t, "POST", url+"/generate", body); r.status != 200 || !strings.HasPrefix(r.body, want) {
			t.Errorf("%s: %d %s", body, r.status, r.body)
		}
	}
	for body, n := range map[string]int{
		`{"context":"高"}`: 1, `{"context":"高","samples":0}`: 1, `{"context":"高","samples":2.0,"unknown":[1]}`: 2,
	} {
		a.Result = nil
		if r := ask(t, "POST", url+"/generate", body); json.Unmarshal([]byte(r.body), &a) != nil || len(a.Result) != n {
			t.Errorf("%s: %d %s", body, r.status, r.body)
		}
	}
	one := ask(t, "POST", url+"/generate", `{"context":"高","samples":3,"seed":7}`)
	two := ask(t, "POST", url+"/generate", `{"context":"高","samples":3,"seed":7}`)
	if cut := func(s string) string { s, _, _ = strings.Cut(s, `"time"`); return s }; cut(one.body) != cut(two.body) {
		t.Errorf("one seed, two answers: %s %s", one.body, two.body)
	}
}

// Each fault is a 400 that names the field.
func TestFaultsAreNamed(t *testing.T) {
	_, url := start(t, Options{MaxBody: 1000}, generate.EngineOptions{})
	for body, field := range map[string]string{
		``: "JSON", `{`: "JSON", `[]`: "JSON", `null`: "JSON", `{"context":"高"} x`: "JSON", "{\"context\":\"\xff\"}": "UTF-8",
		`{}`: "context", `{"context":null}`: "context", `{"context":5}`: "context", `{"context":"\ud800"}`: "context",
		`{"context":"高","maxlength":1e9}`: "maxlength", `{"context":"高","maxlength":-1}`: "maxlength",
		`{"context":"高","maxlength":"50"}`: "maxlength", `{"context":"高","maxlength":null}`: "maxlength",
		`{"context":"高","maxlength":1.5}`: "maxlength", `{"context":"高","maxlength":1e999}`: "maxlength",
		`{"context":"高","samples":1000000}`: "samples", `{"context":"高","samples":-1}`: "samples",
		`{"context":"高","samples":true}`: "samples", `{"context":"高","temperature":-1}`: "temperature",
		`{"context":"高","top_p":1.5}`: "top_p", `{"context":"高","top_k":"all"}`: "top_k",
		`{"context":"高","repetition_penalty":0}`: "repetition_penalty", `{"context":"高","seed":1.5}`: "seed", `{"context":"高","seed":-1}`: "seed",
		`{"context":"高","stop":[1]}`: "stop",
	} {
		r := ask(t, "POST", url+"/generate", body)
		var a struct{ Error string }
		if err := json.Unmarshal([]byte(r.body), &a); r.status != 400 || err != nil || !strings.Contains(a.Error, field) {
			t.Errorf("%q: %d %s", body, r.status, r.body)
		}
	}
	all := ask(t, "POST", url+"/generate", `{"context":5,"maxlength":-1,"stop":[1],"top_p":"all"}`)
	for _, field := range []string{"context", "maxlength", "stop", "top_p"} {
		if strings.Count(all.body, field+" must") != 1 {
			t.Errorf("%s: %s", field, all.body)
		}
	}
	for _, body := range []string{`{"prompt":[null,null]}`, `{"prompt":["高",5]}`, `{"prompt":null,"stream_options":{"include_usage":5}}`, `{"prompt":"高","logit_bias":{"6":-100}}`, `{"prompt":"高","best_of":3}`} {
		if r := ask(t, "POST", url+"/v1/completions", body); r.status != 400 {
			t.Errorf("%s: %d %s", body, r.status, r.body)
		}
	}
	for _, body := range []string{`{"context":"\u0000高"}`, `{"context":"\ufffd"}`, `{"context":"😀","stop":["","。"]}`} {
		if r := ask(t, "POST", url+"/generate", body); r.status != 200 {
			t.Errorf("%q: %d %s", body, r.status, r.body)
		}
	}
	if r := ask(t, "POST", url+"/generate", `{"context":"`+strings.Repeat("高", 400)+`"}`); r.status != 413 {
		t.Errorf("large body: %d %s", r.status, r.body)
	}
	req := httptest.NewRequest("POST", "/generate", io.MultiReader(strings.NewReader(`{"context":"`), endless{}))
	req.ContentLength = -1
	w := httptest.NewRecorder()
	s, _ := start(t, Options{MaxBody: 1000}, generate.EngineOptions{})
	s.Handler().ServeHTTP(w, req)
	if w.Code != 413 {
		t.Errorf("endless body: %d", w.Code)
	}
	if r := ask(t, "GET", url+"/generate", ""); r.status != 405 || r.header.Get("Allow") != "POST" {
		t.Errorf("GET: %d", r.status)
	}
	if r := ask(t, "GET", url+"/nothing", ""); r.status != 404 {
		t.Errorf("unknown path: %d", r.status)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'a'
	}
	return len(b), nil
}

// What is streamed joins to what is answered.
func TestStream(t *testing.T) {
	_, url := start(t, Options{}, generate.EngineOptions{})
	r := ask(t, "POST", url+"/generate", `{"context":"高血压","maxlength":40,"samples":3,"seed":1}`, "Accept", "text/event-stream")
	if !strings.HasPrefix(r.header.Get("Content-Type"), "text/event-stream") {
		t.Fatal(r.header)
	}
	joined := []string{"高血压", "高血压", "高血压"}
	done := false
	for ev := range strings.SplitSeq(strings.TrimSuffix(r.body, "\n\n"), "\n\n") {
		if data, ok := strings.CutPrefix(ev, "data: "); ok {
			var v struct {
				Sample int
				Text   string
			}
			if err := json.Unmarshal([]byte(data), &v); err != nil {
				t.Fatal(err)
			}
			joined[v.Sample] += v.Text
			continue
		}
		var v struct{ Result []string }
		if err := json.Unmarshal([]byte(strings.TrimPrefix(ev, "event: done\ndata: ")), &v); err != nil {
			t.Fatalf("%v: %s", err, ev)
		}
		done = fmt.Sprint(v.Result) == fmt.Sprint(joined)
	}
	if !done {
		t.Errorf("%q: %s", joined, r.body)
	}
	const nothing = "event: done\ndata: {\"result\":\"[]\",\"time\":0}\n\n"
	r = ask(t, "POST", url+"/generate", `{"context":" "}`, "Accept", "text/event-stream")
	if !strings.HasPrefix(r.header.Get("Content-Type"), "text/event-stream") || r.body != nothing {
		t.Errorf("a blank context: %v %q", r.header, r.body)
	}
}

func TestCompletions(t *testing.T) {
	_, url := start(t, Options{}, generate.EngineOptions{})
	type answer struct {
		ID, Object, Model string
		Created           int64
		Choices           []struct {
			Text     string
			Index    int
			Finish   string `json:"finish_reason"`
			LogProbs *tokenLogProbs
		}
		Usage *usage
	}
	post := func(body string) (a answer) {
		t.Helper()
		r := ask(t, "POST", url+"/v1/completions", body)
		if err := json.Unmarshal([]byte(r.body), &a); err != nil || r.status != 200 {
			t.Fatalf("%s: %d %s", body, r.status, r.body)
		}
		return a
	}
	a := post(`{"model":"any","prompt":["高血压","hello"],"n":2,"max_tokens":9,"seed":3,"logprobs":2,"user":"x","suffix":null}`)
	if len(a.Choices) != 4 || a.Object != "text_completion" || a.Model != "tiny" || a.Usage == nil || a.Usage.Prompt != 6 ||
		a.Usage.Total != a.Usage.Prompt+a.Usage.Completion {
		t.Errorf("%+v", a)
	}
	for i, c := range a.Choices {
		l := c.LogProbs
		if c.Index != i || l == nil || len(l.Tokens) != len(l.Values) || len(l.Top) != len(l.Tokens) {
			t.Errorf("choice %d: %+v %+v", i, c, l)
			continue
		}
		for k, name := range l.Tokens { // the two most probable tokens, and always the one drawn
			top := l.Top[k]
			higher := 0
			for _, p := range top {
				if p > l.Values[k] {
					higher++
				}
			}
			if v, ok := top[name]; !ok || v != l.Values[k] || len(top) != 2 && (len(top) != 3 || higher != 2) {
				t.Errorf("choice %d, token %d (%s, %v): %v", i, k, name, l.Values[k], top)
			}
		}
	}
	if a := post(`{"prompt":[12,13],"echo":true,"max_tokens":0}`); a.Choices[0].Text == "" || a.Choices[0].Finish != "length" {
		t.Errorf("echo of tokens: %+v", a)
	}
	if a := post(`{"prompt":[[12,13],[14]],"max_tokens":null}`); len(a.Choices) != 2 {
		t.Errorf("lists of tokens: %+v", a)
	}
	// Equal prompts go on differently, unless one seed is sent for all of them.
	for seed, texts := range map[string]int{"": 3, `,"seed":null`: 3, `,"seed":4`: 1} {
		different := map[string]bool{}
		for _, c := range post(`{"prompt":["高","高","高"],"max_tokens":30` + seed + `}`).Choices {
			different[c.Text] = true
		}
		if len(different) != texts {
			t.Errorf("seed %q: %d different texts: %v", seed, len(different), different)
		}
	}
	whole := post(`{"prompt":"高血压","max_tokens":30,"seed":5,"n":2}`)
	stop := string([]rune(whole.Choices[0].Text)[5:7])
	if a := post(`{"prompt":"高血压","max_tokens":30,"seed":5,"n":2,"stop":"` + stop + `"}`); strings.Contains(a.Choices[0].Text, stop) || a.Choices[0].Finish != "stop" {
		t.Errorf("stop %q: %+v", stop, a)
	}

	r := ask(t, "POST", url+"/v1/completions", `{"prompt":"高血压","max_tokens":30,"seed":5,"n":2,"stream":true,"stream_options":{"include_usage":true}}`)
	texts, finished, used := make([]string, 2), 0, false
	events := strings.Split(strings.TrimSuffix(r.body, "\n\n"), "\n\n")
	for _, ev := range events[:len(events)-1] {
		var a answer
		if err := json.Unmarshal([]byte(strings.TrimPrefix(ev, "data: ")), &a); err != nil {
			t.Fatalf("%v: %s", err, ev)
		}
		for _, c := range a.Choices {
			texts[c.Index] += c.Text
			if c.Finish != "" {
				finished++
			}
		}
		used = used || a.Usage != nil && *a.Usage == *whole.Usage
	}
	if texts[0] != whole.Choices[0].Text || texts[1] != whole.Choices[1].Text || finished != 2 || !used || events[len(events)-1] != "data: [DONE]" {
		t.Errorf("stream: %q %d %v, whole %+v", texts, finished, used, whole)
	}

	for body, field := range map[string]string{
		`{"prompt":5}`: "prompt", `{"prompt":[]}`: "prompt", `{"prompt":["a",1]}`: "prompt", `{"prompt":"a","n":0}`: "n",
		`{"prompt":"a","max_tokens":-1}`: "max_tokens", `{"prompt":"a","suffix":"b"}`: "suffix", `{"prompt":["a","b"],"n":32}`: "prompt",
		`{"prompt":"a","stream_options":{"include_usage":1}}`: "stream_options", `{"prompt":"a","echo":true,"logprobs":1}`: "logprobs",
		`{"prompt":[99999]}`: "prompt", `{"prompt":[[12],[-1]]}`: "prompt", `{"prompt":[99999],"stream":true}`: "prompt",
	} {
		r := ask(t, "POST", url+"/v1/completions", body)
		var e struct {
			Error struct{ Message, Type, Param string }
		}
		if err := json.Unmarshal([]byte(r.body), &e); err != nil || r.status != 400 || e.Error.Param != field || e.Error.Type != "invalid_request_error" {
			t.Errorf("%s: %d %s", body, r.status, r.body)
		}
	}
	if r := ask(t, "POST", url+"/v1/completions", `{"prompt":[99999]}`); !strings.Contains(r.body, "prompt token 0 is 99999; give tokens that the model has, 0 to 27\"") {
		t.Errorf("token beyond the vocabulary: %d %s", r.status, r.body)
	}
	if r := ask(t, "GET", url+"/v1/models", ""); !strings.Contains(r.body, `"id":"tiny"`) {
		t.Error(r.body)
	}
	if r := ask(t, "GET", url+"/v1/models/tiny", ""); r.status != 200 {
		t.Error(r.body)
	}
	if r := ask(t, "GET", url+"/v1/models/other", ""); r.status != 404 {
		t.Error(r.body)
	}
}

// Prompts are in the log only where that was asked for; a panic is a 500 with
// an id; the figures are there.
func TestLogPanicMetrics(t *testing.T) {
	var log lockedBuffer
	s, url := start(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, generate.EngineOptions{})
	ask(t, "POST", url+"/generate", `{"context":"高血压","maxlength":5,"samples":2}`)
	ask(t, "POST", url+"/generate", `{"context":"高血压","maxlength":"高血压"}`)
	eventually(t, "the log", func() bool { return strings.Count(log.String(), "route=/generate") == 2 })
	if strings.Contains(log.String(), "context\":") || !strings.Contains(log.String(), "samples=2") {
		t.Error(log.String())
	}
	var asked lockedBuffer
	_, logging := start(t, Options{LogPrompts: true, Log: slog.New(slog.NewTextHandler(&asked, nil))}, generate.EngineOptions{})
	ask(t, "POST", logging+"/v1/completions", `{"prompt":["高血压","hello"],"max_tokens":1}`)
	eventually(t, "both prompts, told apart, in the log", func() bool { return strings.Contains(asked.String(), `prompt="高血压\nhello"`) })
	w := httptest.NewRecorder()
	s.observed(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oh") })).
		ServeHTTP(w, httptest.NewRequest("GET", "/x", nil))
	if id := w.Header().Get("X-Request-Id"); w.Code != 500 || !strings.Contains(w.Body.String(), id) || !strings.Contains(log.String(), id) {
		t.Errorf("panic: %d %s", w.Code, w.Body)
	}
	r := ask(t, "GET", url+"/metrics", "")
	for _, name := range []string{
		`promptgen_requests_total{code="200",route="/generate"} 1`, "promptgen_queue_length 0", "promptgen_slots 16", "promptgen_prefix_hits_total", "promptgen_prefix_tokens_total", "promptgen_tokens_generated_total",
		"promptgen_first_token_seconds_count 1", "promptgen_token_seconds", "promptgen_request_seconds_bucket", "go_goroutines", "process_resident_memory_bytes",
	} {
		if !strings.Contains(r.body, name) {
			t.Errorf("no %s in the metrics", name)
		}
	}
	p := ask(t, "GET", url+"/", "")
	for _, outside := range []string{"src=\"http", "href=\"http", "@import", "url("} {
		if strings.Contains(p.body, outside) {
			t.Errorf("the page needs the outside: %s", outside)
		}
	}
	if p.header.Get("Content-Security-Policy") == "" || !strings.Contains(p.body, "续写") {
		t.Error("the page is not itself")
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// No body makes a handler panic, answer anything but its own statuses, or
// write broken JSON.
func FuzzHandlers(f *testing.F) {
	for _, body := range []string{
		`{"context":"高血压要注意","maxlength":5,"samples":2}`, `{"context":"a","stop":["b",""],"seed":-1,"top_p":0.5}`,
		`{"prompt":["a","b"],"n":2,"max_tokens":3,"logprobs":2,"stream":true}`, `{"prompt":[[1,2],[3]],"echo":true}`,
		`{"prompt":"\ud83d","temperature":1e-300}`, `{"context":{"a":[1,{"b":null}]}}`, `{}`, `[`, "\x00",
	} {
		f.Add(body, false)
		f.Add(body, true)
	}
	open := openTiny(f, generate.EngineOptions{})
	s, err := New(Options{Open: open, MaxLength: 8, MaxSamples: 4, MaxBody: 4096})
	if err != nil {
		f.Fatal(err)
	}
	if err := s.Load(f.Context()); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body string, stream bool) {
		for _, path := range []string{"/generate", "/v1/completions"} {
			r := httptest.NewRequest("POST", path, strings.NewReader(body))
			if stream {
				r.Header.Set("Accept", "text/event-stream")
			}
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, r)
			switch w.Code {
			case 200, 400, 413:
			default:
				t.Fatalf("%s %q: %d %s", path, body, w.Code, w.Body)
			}
			if strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") && !json.Valid(w.Body.Bytes()) {
				t.Fatalf("%s %q: broken JSON %s", path, body, w.Body)
			}
		}
	})
}
