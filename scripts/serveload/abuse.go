package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// abuse sends what no request may be; each answer within 100 ms and its status.
func abuse(ctx context.Context, s *server) (string, error) {
	large := strings.Repeat("高", 10<<20/3)
	slowest := time.Duration(0)
	for _, c := range []struct {
		body   string
		status int
	}{
		{`{"context":"高","maxlength":1e9}`, 400}, {`{"context":"高","maxlength":-1}`, 400},
		{`{"context":"高","maxlength":"50"}`, 400}, {`{"context":"高","maxlength":null}`, 400},
		{`{"context":"高","samples":1000000}`, 400}, {`{"context":"` + large + `"}`, 413},
		{`{"context":"` + strings.Repeat(`\u0000`, 10) + `","maxlength":1}`, 200}, {`{"context":"\ud800","maxlength":1}`, 400},
		{`{"context":`, 400}, {``, 400},
	} {
		r, err := post(ctx, s.url+"/generate", c.body)
		if err != nil {
			return "", fmt.Errorf("%.60s: %w", c.body, err)
		}
		if r.status != c.status {
			return "", fmt.Errorf("%.60s: status %d, not %d: %s", c.body, r.status, c.status, r.body)
		}
		if c.status != 200 {
			slowest = max(slowest, r.took)
		}
	}
	read, err := gigabyte(s.host)
	measured := fmt.Sprintf("slowest refusal %.1f ms; of a gigabyte of body %d KiB were taken", slowest.Seconds()*1e3, read>>10)
	if err == nil && (slowest > 100*time.Millisecond || read > 64<<20) {
		err = fmt.Errorf("wanted 100 ms, and the gigabyte left unread")
	}
	return measured, err
}

// gigabyte announces a body of a gigabyte and sends it until the server has
// had enough; it returns how much left this side.
func gigabyte(host string) (sent int64, err error) {
	c, err := net.Dial("tcp", host)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(c, "POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n{\"context\":\"", 1<<30)
	answer := make(chan string, 1)
	go func() {
		b := make([]byte, 64)
		n, _ := io.ReadFull(c, b[:12])
		answer <- string(b[:n])
	}()
	block := []byte(strings.Repeat("a", 64<<10))
	for sent < 1<<30 {
		n, werr := c.Write(block)
		sent += int64(n)
		if werr != nil {
			break
		}
	}
	if got := <-answer; got != "HTTP/1.1 413" && got != "" { // empty: reset before the answer was read
		return sent, fmt.Errorf("a gigabyte of body: answer %q", got)
	}
	return sent, nil
}

// slowClients opens 500 connections that send a byte a second. The healthy
// ones' p99 at most doubles; the slow ones are closed in 10 s.
func slowClients(ctx context.Context, s *server) (string, error) {
	healthy := func(n int) (time.Duration, error) {
		var times []time.Duration
		for i := range n {
			r, err := post(ctx, s.url+"/generate", request{"高血压要注意", 10, 1, uint64(i)})
			if err != nil || r.status != 200 {
				return 0, fmt.Errorf("%d %s %v", r.status, r.body, err)
			}
			times = append(times, r.took)
		}
		return quantile(times, 0.99), nil
	}
	before, err := healthy(50)
	if err != nil {
		return "", err
	}
	const count = 500
	var wg sync.WaitGroup
	var longest atomic.Int64
	var open atomic.Int64
	for range count {
		wg.Go(func() {
			took, err := dribble(s.host)
			if err != nil {
				open.Add(1)
			}
			for old := longest.Load(); int64(took) > old && !longest.CompareAndSwap(old, int64(took)); old = longest.Load() {
			}
		})
	}
	time.Sleep(time.Second)
	during, err := healthy(100)
	if err != nil {
		return "", err
	}
	wg.Wait()
	measured := fmt.Sprintf("p99 %.1f ms alone, %.1f ms beside %d slow connections; these were closed within %.1f s",
		before.Seconds()*1e3, during.Seconds()*1e3, count, time.Duration(longest.Load()).Seconds())
	if during > 2*before || open.Load() > 0 || time.Duration(longest.Load()) > 11*time.Second {
		return measured, fmt.Errorf("wanted twice at most, and 10 s (%d stayed open)", open.Load())
	}
	return measured, nil
}

// dribble sends a request byte by byte, one a second, and returns after how
// long the server closed the connection.
func dribble(host string) (time.Duration, error) {
	c, err := net.Dial("tcp", host)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	began := time.Now()
	const text = "POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
	for i := range len(text) {
		if _, err := c.Write([]byte(text[i : i+1])); err != nil {
			return time.Since(began), nil
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := io.ReadAll(c); err == nil { // end of file: closed
			return time.Since(began), nil
		} else if ne, ok := err.(net.Error); !ok || !ne.Timeout() {
			return time.Since(began), nil // reset
		}
	}
	return time.Since(began), fmt.Errorf("still open")
}

// leave starts 500 long requests whose clients go away midway: the work stops.
func leave(ctx context.Context, s *server) (string, error) {
	half, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() { _, _, _ = stream(half, s.url, request{"高血压", 1000, 4, uint64(i)}) })
	}
	busy := func() bool { n, err := s.figure(ctx, "promptgen_slots_busy"); return err == nil && n == 16 }
	if err := s.eventually(ctx, "every slot to be busy", 30*time.Second, busy); err != nil {
		return "", err
	}
	time.Sleep(2 * time.Second)
	cancel()
	began := time.Now()
	idle := func() bool {
		n, err := s.figure(ctx, "promptgen_slots_busy")
		q, err2 := s.figure(ctx, "promptgen_queue_length")
		return err == nil && err2 == nil && n == 0 && q == 0
	}
	err := s.eventually(ctx, "the work to stop", 10*time.Second, idle)
	took := time.Since(began)
	wg.Wait()
	return fmt.Sprintf("500 clients left: every slot and the queue empty after %.0f ms", took.Seconds()*1e3), err
}

// flood lets 1,000 clients ask at once: only 200 and 503, and goroutines and
// heap come back to where they were after a hundred clients: every place of the
// server was taken then, so that its caches have their size.
func flood(ctx context.Context, s *server) (string, error) {
	if _, err := burst(ctx, s, 100); err != nil {
		return "", err
	}
	// The collector runs by itself every two minutes on an idle server.
	time.Sleep(130 * time.Second)
	goroutines, heap, err := s.size(ctx)
	if err != nil {
		return "", err
	}
	measured, err := burst(ctx, s, 1000)
	if err != nil {
		return measured, err
	}
	var g, h float64
	err = s.eventually(ctx, "goroutines and heap to come back", 3*time.Minute, func() bool {
		var err error
		g, h, err = s.size(ctx)
		return err == nil && g <= goroutines+2 && h <= heap*1.1
	})
	return fmt.Sprintf("%s; goroutines %.0f, then %.0f; heap %.1f MiB, then %.1f", measured, goroutines, g, heap/(1<<20), h/(1<<20)), err
}

// size is the number of goroutines and the bytes of the heap in use.
func (s *server) size(ctx context.Context) (goroutines, heap float64, err error) {
	client.CloseIdleConnections()
	goroutines, err = s.figure(ctx, "go_goroutines")
	heap, err2 := s.figure(ctx, "go_memstats_heap_inuse_bytes")
	return goroutines, heap, errors.Join(err, err2)
}

// burst lets that many clients ask at the same moment.
func burst(ctx context.Context, s *server, clients int) (string, error) {
	codes := map[int]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	for i := range clients {
		wg.Go(func() {
			r, err := post(ctx, s.url+"/generate", request{"高血压要注意", 20, 1, uint64(i)})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
				return
			}
			codes[r.status]++
			if r.status == 503 && r.header.Get("Retry-After") == "" {
				failed = fmt.Errorf("a 503 without Retry-After")
			}
		})
	}
	wg.Wait()
	measured := fmt.Sprintf("%d clients: %d answered, %d told to come back", clients, codes[200], codes[503])
	if failed != nil || codes[200]+codes[503] != clients {
		return measured, fmt.Errorf("statuses %v: %v", codes, failed)
	}
	return measured, nil
}

// drainWhole stops the server under 20 streams: all of them end whole.
func drainWhole(ctx context.Context, s *server) (string, error) { return drain(ctx, s, 200, true) }

// drainCut does so with texts that outlast the drain: cut, and the server ends.
func drainCut(ctx context.Context, s *server) (string, error) { return drain(ctx, s, 1000, false) }

func drain(ctx context.Context, s *server, length int, wantWhole bool) (string, error) {
	var wg sync.WaitGroup
	var whole, begun atomic.Int64
	for i := range 20 {
		wg.Go(func() {
			first, w, _ := stream(ctx, s.url, request{"高血压", length, 1, uint64(i)})
			if first > 0 {
				begun.Add(1)
			}
			if w {
				whole.Add(1)
			}
		})
	}
	busy := func() bool { n, err := s.figure(ctx, "promptgen_slots_busy"); return err == nil && n == 16 }
	if err := s.eventually(ctx, "the streams", 30*time.Second, busy); err != nil {
		return "", err
	}
	began := time.Now()
	err := s.stop()
	took := time.Since(began)
	wg.Wait()
	measured := fmt.Sprintf("20 streams at SIGTERM: %d whole, the server ended after %.1f s", whole.Load(), took.Seconds())
	if err == nil && wantWhole && whole.Load() != 20 {
		err = fmt.Errorf("wanted all of them whole")
	}
	if err == nil && !wantWhole && took > 5*time.Second {
		err = fmt.Errorf("wanted an end soon after the limit of 1 s")
	}
	return measured, err
}

// mixed is every kind of request at once for a while; the heap of the first
// third and of the last third are compared.
func mixed(ctx context.Context, s *server, d time.Duration) (string, error) {
	end, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var wg sync.WaitGroup
	var answered, refused, left, wrong atomic.Int64
	seeded, err := post(ctx, s.url+"/generate", request{"高血压要注意", 20, 2, 99})
	if err != nil {
		return "", err
	}
	for c := range 24 {
		r := rand.New(rand.NewPCG(1, uint64(c)))
		wg.Go(func() {
			for end.Err() == nil {
				mixedRequest(end, s, r, result(seeded), &answered, &refused, &left, &wrong)
			}
		})
	}
	var early, peak float64
	for start := time.Now(); end.Err() == nil; time.Sleep(time.Second) {
		h, err := s.figure(ctx, "go_memstats_heap_inuse_bytes")
		if err != nil {
			return "", err
		}
		if time.Since(start) < d/3 {
			early = max(early, h)
		}
		if time.Since(start) > d*2/3 {
			peak = max(peak, h)
		}
	}
	wg.Wait()
	measured := fmt.Sprintf("%v: %d answered, %d refused, %d left; heap at most %.1f MiB in the first third, %.1f in the last",
		d, answered.Load(), refused.Load(), left.Load(), early/(1<<20), peak/(1<<20))
	if wrong.Load() > 0 {
		return measured, fmt.Errorf("%d answers were wrong", wrong.Load())
	}
	if peak > early*1.1+16<<20 {
		return measured, fmt.Errorf("the heap grew")
	}
	return measured, nil
}

// mixedRequest is one request of a mixed load: seeded, streamed, left midway,
// or senseless.
func mixedRequest(ctx context.Context, s *server, r *rand.Rand, seeded string, answered, refused, left, wrong *atomic.Int64) {
	if r.IntN(5) == 0 {
		short, cancel := context.WithTimeout(ctx, time.Duration(r.IntN(200))*time.Millisecond)
		defer cancel()
		_, _, _ = stream(short, s.url, request{"高血压", 200, 3, r.Uint64() >> 12})
		left.Add(1)
		return
	}
	body := any(request{"高血压要注意", 20, 2, 99})
	kind := r.IntN(4)
	switch kind {
	case 0:
		body = request{strings.Repeat("高血压要注意", 1+r.IntN(30)), 1 + r.IntN(100), 1 + r.IntN(8), r.Uint64() >> 12}
	case 1:
		body = `{"context":5}`
	}
	reply, err := post(ctx, s.url+"/generate", body)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		wrong.Add(1)
	case reply.status == 503:
		refused.Add(1)
	case kind == 1 && reply.status == 400:
		refused.Add(1)
	case reply.status == 200 && (kind == 0 || result(reply) == seeded):
		answered.Add(1)
	default:
		wrong.Add(1)
	}
}

// result is the texts of an answer, without its time.
func result(r reply) string {
	var a struct{ Result json.RawMessage }
	_ = json.Unmarshal(r.body, &a) // empty then, and equal to nothing
	return string(a.Result)
}
