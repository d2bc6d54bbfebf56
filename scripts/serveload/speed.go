package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// original measures what HTTP adds to the engine's own time: under 10 %.
func original(ctx context.Context, s *server) (string, error) {
	best, engine := time.Hour, 0.0
	for i := range 5 {
		r, err := post(ctx, s.url+"/generate", request{"高血压要注意", 50, 5, uint64(i)})
		if err != nil {
			return "", err
		}
		var a struct{ Time float64 }
		if err := json.Unmarshal(r.body, &a); err != nil || r.status != 200 {
			return "", fmt.Errorf("%d %s", r.status, r.body)
		}
		if r.took < best {
			best, engine = r.took, a.Time
		}
	}
	share := best.Seconds()/engine - 1
	measured := fmt.Sprintf("5 samples of 50 tokens: %.0f ms, the engine's own %.0f ms, HTTP adds %.1f %%", best.Seconds()*1e3, engine*1e3, share*100)
	if share > 0.10 {
		return measured, fmt.Errorf("more than 10 %%")
	}
	return measured, nil
}

// firstToken measures the time to the first token of an idle server: under 50 ms.
func firstToken(ctx context.Context, s *server) (string, error) {
	var times []time.Duration
	for i := range 21 {
		first, _, err := stream(ctx, s.url, request{fmt.Sprintf("第%d天高血压要注意", i), 4, 1, uint64(i)})
		if err != nil {
			return "", err
		}
		times = append(times, first)
	}
	measured := fmt.Sprintf("first token: median %.1f ms, slowest %.1f ms", quantile(times, 0.5).Seconds()*1e3, quantile(times, 1).Seconds()*1e3)
	if quantile(times, 0.5) > 50*time.Millisecond {
		return measured, fmt.Errorf("more than 50 ms")
	}
	return measured, nil
}

// together compares 16 clients of one sample each with one alone: at least 2.5
// times the tokens a second, the slowest within twice the median.
func together(ctx context.Context, s *server) (string, error) {
	const rounds, length = 4, 100
	load := func(clients int) (perSecond float64, times []time.Duration, err error) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		began := time.Now()
		for c := range clients {
			wg.Go(func() {
				for i := range rounds {
					r, e := post(ctx, s.url+"/v1/completions", map[string]any{
						"prompt": "高血压要注意", "max_tokens": length, "min_tokens": length, "seed": c*rounds + i})
					if e == nil && r.status != 200 {
						e = fmt.Errorf("%d %s", r.status, r.body)
					}
					mu.Lock()
					if e != nil {
						err = e
					}
					times = append(times, r.took)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		return float64(clients*rounds*length) / time.Since(began).Seconds(), times, err
	}
	if _, _, err := load(1); err != nil { // warm-up
		return "", err
	}
	one, _, err := load(1)
	if err != nil {
		return "", err
	}
	all, times, err := load(16)
	if err != nil {
		return "", err
	}
	spread := quantile(times, 1).Seconds() / quantile(times, 0.5).Seconds()
	measured := fmt.Sprintf("1 client %.0f tokens/s, 16 clients %.0f: %.2f times; slowest request %.2f times the median", one, all, all/one, spread)
	if all < 2.5*one || spread > 2 {
		return measured, fmt.Errorf("wanted 2.5 times, and within 2 times the median")
	}
	return measured, nil
}
