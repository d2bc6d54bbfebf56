package serve

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"promptgen/generate"
)

// Requests in flight finish with the old model when it is exchanged.
func TestReload(t *testing.T) {
	s, url := start(t, Options{}, generate.EngineOptions{Slots: 4})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if r := ask(t, "POST", url+"/generate", `{"context":"高","maxlength":60,"samples":2}`); r.status != 200 {
					t.Errorf("%d %s", r.status, r.body)
				}
			}
		})
	}
	first, release, err := s.models.borrow()
	if err != nil {
		t.Fatal(err)
	}
	release()
	for range 5 {
		if err := s.Reload(t.Context()); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	// What a model has done counts on while it is leaving, and thereafter.
	written := s.models.stats().Generated
	l, release, err := s.models.borrow()
	if err != nil || written == 0 {
		t.Fatal(err, written)
	}
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if now := s.models.stats().Generated; now != written {
			t.Errorf("%d tokens were written, now %d", written, now)
		}
		release()
		eventually(t, "the model to be gone", func() bool { s.models.mu.Lock(); defer s.models.mu.Unlock(); return len(s.models.leaving) == 0 })
		release = func() {}
	}
	if _, err := l.Engine.Generate(t.Context(), generate.Request{Prompt: "高", Length: 1}); !errors.Is(err, generate.ErrClosed) {
		t.Error(err)
	}
	hangUp := make(chan os.Signal, 1)
	go s.ReloadOn(t.Context(), hangUp)
	hangUp <- os.Interrupt
	eventually(t, "the first model to be gone", func() bool {
		_, err := first.Engine.Generate(t.Context(), generate.Request{Prompt: "高", Length: 1})
		return errors.Is(err, generate.ErrClosed)
	})
}

// A full queue is a 503; clients that leave free their places; nothing stays.
func TestFullQueueAndLeavers(t *testing.T) {
	s, url := start(t, Options{MaxLength: generate.MaxLength, Timeout: time.Minute}, generate.EngineOptions{Slots: 2, MaxQueue: 4})
	prompts := `["高"` + strings.Repeat(`,"高"`, 11) + `]` // more than may wait, and room for each in its turn
	if r := ask(t, "POST", url+"/v1/completions", `{"prompt":`+prompts+`,"max_tokens":20}`); r.status != 200 {
		t.Errorf("12 prompts: %d %s", r.status, r.body)
	}
	before := runtime.NumGoroutine()
	ctx, leave := context.WithCancel(t.Context())
	client := &http.Client{Transport: &http.Transport{}}
	var wg sync.WaitGroup
	var mu sync.Mutex
	codes := map[int]int{}
	for i := range 40 {
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, "POST", url+"/v1/completions", strings.NewReader(`{"prompt":"高","max_tokens":100000000,"min_tokens":100000000}`))
			if i%2 == 0 {
				req.URL.Path = "/generate"
				req.Header.Set("Accept", "text/event-stream")
				req.Body = io.NopCloser(strings.NewReader(`{"context":"高","maxlength":100000000,"samples":30}`))
				req.ContentLength = -1
			}
			resp, err := client.Do(req)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			mu.Lock()
			codes[resp.StatusCode]++
			mu.Unlock()
			if resp.StatusCode == 503 && resp.Header.Get("Retry-After") == "" {
				t.Error("503 without Retry-After")
			}
		})
	}
	eventually(t, "the queue to be full", func() bool { mu.Lock(); defer mu.Unlock(); return codes[503] >= 30 })
	leave()
	wg.Wait()
	for code := range codes {
		if code != 503 && code != 200 {
			t.Errorf("status %d", code)
		}
	}
	m, release, err := s.models.borrow()
	if err != nil {
		t.Fatal(err)
	}
	release()
	eventually(t, "the work to stop", func() bool { st := m.Engine.Stats(); return st.Active == 0 && st.Queued == 0 })
	client.CloseIdleConnections()
	http.DefaultClient.CloseIdleConnections()
	eventually(t, "the goroutines to end", func() bool { return runtime.NumGoroutine() <= before+3 })
}

// A client that sends or reads slowly is closed; the model's time to answer is
// not counted against it.
func TestSlowClients(t *testing.T) {
	_, url := start(t, Options{Slow: 300 * time.Millisecond, MaxLength: generate.MaxLength, Timeout: 1500 * time.Millisecond}, generate.EngineOptions{})
	host := strings.TrimPrefix(url, "http://")
	for _, beginning := range []string{"POST /generate HT", "POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"} {
		c, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, beginning)
		began := time.Now()
		_ = c.SetReadDeadline(began.Add(30 * time.Second))
		b, err := io.ReadAll(c)
		if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: still open after %v: %s", beginning, time.Since(began), b)
		}
		c.Close()
	}
	// Longer than the read limit, ended by the request's own deadline.
	if r := ask(t, "POST", url+"/v1/completions", `{"prompt":"高","max_tokens":100000000,"min_tokens":100000000}`); r.status != 503 || !strings.Contains(r.body, "longer") {
		t.Errorf("deadline: %d %s", r.status, r.body)
	}
}

// At the end, what runs may finish, new requests are refused, and what takes too
// long is cut off and told so, in a stream and without.
func TestDrain(t *testing.T) {
	for _, c := range []struct {
		length string
		drain  time.Duration
		whole  bool
	}{{"3000", 30 * time.Second, true}, {"100000000", time.Second, false}} {
		s, err := New(Options{Open: openTiny(t, generate.EngineOptions{}), Drain: c.drain, MaxLength: generate.MaxLength})
		if err != nil {
			t.Fatal(err)
		}
		if w := httptest.NewRecorder(); true {
			s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/ready", nil))
			if w.Code != 503 {
				t.Errorf("ready before the model is loaded: %d", w.Code)
			}
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(ctx, l) }()
		eventually(t, "the model", s.ready)
		req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://"+l.Addr().String()+"/v1/completions",
			strings.NewReader(`{"prompt":"高","stream":true,"max_tokens":`+c.length+`,"min_tokens":`+c.length+`}`))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(resp.Body)
		if _, err := in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		cut := make(chan reply, 1)
		if !c.whole {
			go func() {
				defer close(cut)
				cut <- ask(t, "POST", "http://"+l.Addr().String()+"/v1/completions", `{"prompt":"高","max_tokens":100000000,"min_tokens":100000000}`)
			}()
			eventually(t, "both requests", func() bool { // and that for the metrics
				return strings.Contains(ask(t, "GET", "http://"+l.Addr().String()+"/metrics", "").body, "promptgen_requests_in_flight 3\n")
			})
		}
		stop()
		if !c.whole { // and it stays reachable, to say why it takes no more
			for path, method := range map[string]string{"/ready": "GET", "/generate": "POST"} {
				eventually(t, "a 503", func() bool {
					r := ask(t, method, "http://"+l.Addr().String()+path, `{"context":"高"}`)
					return r.status == 503 && strings.Contains(r.body, errDraining.Error())
				})
			}
		}
		rest, _ := io.ReadAll(in)
		resp.Body.Close()
		if got := bytes.HasSuffix(rest, []byte("data: [DONE]\n\n")); got != c.whole {
			t.Errorf("drain %v: whole %v, ends with %q", c.drain, got, rest[max(0, len(rest)-80):])
		}
		if !c.whole {
			if r := <-cut; r.status != 503 || !strings.Contains(r.body, errCutOff.Error()) || !bytes.Contains(rest, []byte(errCutOff.Error())) {
				t.Errorf("cut off: %d %s; the stream: %q", r.status, r.body, rest[max(0, len(rest)-200):])
			}
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := s.Reload(t.Context()); s.ready() || !errors.Is(err, errDraining) {
			t.Errorf("ready after the end: %v, loaded again: %v", s.ready(), err)
		}
	}
}

// failing is a listener that ends in an error when it is told to.
type failing struct {
	net.Listener
	fail chan error
}

func (l failing) Accept() (net.Conn, error) { return nil, <-l.fail }

// However serving ends, the model is freed: one that is loaded, and one that is
// still being loaded when the listener fails.
func TestServeFreesTheModel(t *testing.T) {
	broken := errors.New("the network is gone")
	for _, c := range []struct {
		name     string
		loaded   bool   // before the end
		cert     string // that is not there
		mustFail string
	}{
		{"the listener fails", true, "", broken.Error()},
		{"the listener fails while the model loads", false, "", broken.Error()},
		{"no certificate", true, filepath.Join(t.TempDir(), "absent.pem"), "absent.pem"},
	} {
		freed, mayLoad := make(chan struct{}), make(chan struct{})
		open := openTiny(t, generate.EngineOptions{})
		s, err := New(Options{TLSCert: c.cert, TLSKey: c.cert, Open: func(ctx context.Context) (*Model, error) {
			<-mayLoad
			m, err := open(ctx)
			if err == nil {
				closeIt := m.Close
				m.Close = func() { closeIt(); close(freed) }
			}
			return m, err
		}})
		if err != nil {
			t.Fatal(err)
		}
		if c.loaded {
			close(mayLoad)
			if err := s.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		fail := make(chan error, 1)
		fail <- broken
		if err := s.Serve(t.Context(), failing{l, fail}); err == nil || !strings.Contains(err.Error(), c.mustFail) {
			t.Errorf("%s: %v", c.name, err)
		}
		if !c.loaded {
			close(mayLoad)
		}
		select {
		case <-freed:
		case <-time.After(time.Minute):
			t.Errorf("%s: the model was not freed", c.name)
		}
	}
}
