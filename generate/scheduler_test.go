package generate

// What becomes of several requests at once: who waits, who goes on, who gets what
// another gave up.

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A caller who leaves frees the places at once, and others go on.
func TestCancel(t *testing.T) {
	const vocab = 50
	e := newEngine(t, randomModel(9, vocab, 64), newCPU(t, 0), EngineOptions{Slots: 4, MaxQueue: 2})
	endless := Request{PromptIDs: []int32{1}, Length: MaxLength, Samples: 100, Temperature: 1}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	one := endless
	one.Samples = 1
	for i := range 4 {
		wg.Go(func() {
			if _, err := e.Generate(ctx, one); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
		})
		waitFor(t, func() bool { return e.Stats().Active == i+1 })
	}
	full := 0
	var mu sync.Mutex
	for range 5 {
		wg.Go(func() {
			_, err := e.Generate(ctx, endless)
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, ErrQueueFull) {
				full++
			}
		})
	}
	waitFor(t, func() bool { mu.Lock(); defer mu.Unlock(); return full == 3 && e.Stats().Queued == 2 })
	cancel()
	wg.Wait()
	if _, err := e.Generate(t.Context(), Request{PromptIDs: []int32{1}, Length: 3}); err != nil {
		t.Errorf("after the others left: %v", err)
	}
	waitFor(t, func() bool { return e.Stats().Active == 0 })

	wg.Go(func() {
		if _, err := e.Generate(t.Context(), endless); !errors.Is(err, ErrClosed) {
			t.Errorf("closed under it: %v", err)
		}
	})
	waitFor(t, func() bool { return e.Stats().Active == 4 })
	e.Close()
	wg.Wait()
	if _, err := e.Generate(t.Context(), endless); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A request that a place is free for does not wait: a burst on an idle engine is
// taken for every place and for the queue, however many texts each asks for.
func TestFreePlacesAreNoQueue(t *testing.T) {
	const slots, queue = 4, 2
	s, err := prepare(FromParams(randomModel(13, 30, 16), nil), nil, newCPU(t, 0), EngineOptions{Slots: slots, MaxQueue: queue})
	if err != nil {
		t.Fatal(err)
	}
	e := s.e
	offer := func(ctx context.Context, r Request) (*job, error) {
		j, err := e.newJob(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		return j, e.enqueue(j)
	}
	short := Request{PromptIDs: []int32{1}, Length: 3, Samples: 2 * slots, Temperature: 1}
	left, leave := context.WithCancel(t.Context())
	var jobs []*job
	for i := range slots + queue { // the scheduler does not run yet
		ctx := t.Context()
		if i == slots {
			ctx = left
		}
		j, err := offer(ctx, short)
		if err != nil {
			t.Fatalf("request %d of a burst on an idle engine: %v", i, err)
		}
		jobs = append(jobs, j)
		if got := e.Stats().Queued; got != max(0, i+1-slots) {
			t.Errorf("after %d requests, %d wait", i+1, got)
		}
	}
	if _, err := offer(t.Context(), short); !errors.Is(err, ErrQueueFull) {
		t.Errorf("one more than there are places and may wait: %v", err)
	}
	leave()
	j, err := offer(t.Context(), short)
	if err != nil {
		t.Fatalf("after one has left: %v", err)
	}
	jobs[slots] = j

	// Whoever has the answer finds the place free, before the next step too.
	s.admit()
	if _, err := offer(t.Context(), short); !errors.Is(err, ErrQueueFull) {
		t.Errorf("one more, when the places are taken: %v", err)
	}
	s.remove(jobs[0], nil)
	if j, err = offer(t.Context(), short); err != nil {
		t.Fatalf("after one is answered: %v", err)
	}
	jobs[0] = j
	go s.run()
	t.Cleanup(e.Close)
	for _, j := range jobs {
		if err := j.wait(t.Context(), nil); err != nil {
			t.Error(err)
		}
	}
}

// A small request that comes after one that has taken all places, and would
// never end, gets its share; the large one then goes on as if nothing had been.
func TestSmallBesideLarge(t *testing.T) {
	p := randomModel(10, 50, 64)
	e := newEngine(t, p, newCPU(t, 0), EngineOptions{Slots: 4})
	ctx, cancel := context.WithCancel(t.Context())
	large := Request{PromptIDs: []int32{1}, Length: MaxLength, Samples: 20, Temperature: 1, Seed: 5}
	var mu sync.Mutex
	written := make([][]int32, large.Samples)
	large.OnToken = func(p Piece) {
		mu.Lock()
		defer mu.Unlock()
		written[p.Sample] = append(written[p.Sample], p.Token.Token)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := e.Generate(ctx, large)
		ended <- err
	}()
	waitFor(t, func() bool { return e.Stats().Active == 4 })
	for i := range int32(3) {
		if _, err := e.Generate(t.Context(), Request{PromptIDs: []int32{2 + i}, Length: 10, Samples: 3, Temperature: 1}); err != nil {
			t.Error(err)
		}
	}
	waitFor(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(written[0]) > 100 && len(written[3]) > 60
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the large request had ended (%v) before the small ones did", err)
	}
	alone := newEngine(t, p, newCPU(t, 0), EngineOptions{Slots: 4})
	large.OnToken, large.AllowDuplicates, large.Samples = nil, true, 4
	large.Length = max(len(written[0]), len(written[3]))
	want, err := alone.Generate(t.Context(), large)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range want.Samples {
		if !slices.Equal(s.Tokens[:len(written[i])], written[i]) {
			t.Errorf("sample %d is another after a pause", i)
		}
	}
}

// A step that panics fails the requests in flight, in one line, and leaves its stack
// in the log; the engine lives on.
func TestPanicWithinAStep(t *testing.T) {
	var log bytes.Buffer
	s, err := prepare(FromParams(randomModel(12, 30, 16), nil), nil, newCPU(t, 1),
		EngineOptions{Name: "small", Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	positions := s.f.w.wpe
	s.f.w.wpe = nil
	go s.run()
	t.Cleanup(s.e.Close)
	_, err = s.e.Generate(t.Context(), Request{PromptIDs: []int32{1}, Length: 3})
	if err == nil || !strings.Contains(err.Error(), "within a step") || strings.Contains(err.Error(), "\n") {
		t.Errorf("the request has %v", err)
	}
	for _, want := range []string{"model=small", "slice bounds out of range", "forward.go"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q: %s", want, &log)
		}
	}
	s.f.w.wpe = positions
	if _, err := s.e.Generate(t.Context(), Request{PromptIDs: []int32{1}, Length: 3}); err != nil {
		t.Errorf("after the panic: %v", err)
	}
}

// Every page comes back, also from cancelled and redrawn samples.
func TestPagesComeBack(t *testing.T) {
	e, pages := pooledEngine(t, randomModel(11, 30, 70), nil, newCPU(t, 0), EngineOptions{Slots: 4})
	requests := uint64(20)
	if testing.Short() {
		requests = 6
	}
	for seed := range requests {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		_, _ = e.Generate(ctx, Request{PromptIDs: make([]int32, 1+seed*4), Length: 90, Samples: 6, Temperature: 2, Seed: seed,
			OnToken: func(Piece) {
				if n++; n == 200 && seed%2 == 0 {
					cancel()
				}
			}})
		cancel()
	}
	waitFor(t, func() bool { return e.Stats().Active == 0 })
	e.Close()
	if pages.made > 4*3*3 { // 4 slots, 4 prompts and what is kept of the last ones, at most 3 pages each
		t.Errorf("%d pages were made", pages.made)
	}
	if len(pages.free) != pages.made {
		t.Errorf("%d of %d pages came back", len(pages.free), pages.made)
	}
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}
