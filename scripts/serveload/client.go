package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// client keeps as many connections as the floods need.
var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}}

type reply struct {
	status int
	header http.Header
	body   []byte
	took   time.Duration
}

func get(ctx context.Context, url string) (reply, error) { return send(ctx, "GET", url, nil) }

// post sends v as JSON, or as it is if it is a string.
func post(ctx context.Context, url string, v any) (reply, error) {
	body, isText := v.(string)
	if !isText {
		b, err := json.Marshal(v)
		if err != nil {
			return reply{}, err
		}
		body = string(b)
	}
	return send(ctx, "POST", url, strings.NewReader(body))
}

func send(ctx context.Context, method, url string, body io.Reader) (reply, error) {
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return reply{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, b, time.Since(began)}, err
}

// request is the original's request.
type request struct {
	Context   string `json:"context"`
	MaxLength int    `json:"maxlength"`
	Samples   int    `json:"samples"`
	Seed      uint64 `json:"seed"`
}

// stream reads the events of a streamed request and tells when the first
// arrived and whether the last one said that the answer is whole.
func stream(ctx context.Context, url string, v request) (first time.Duration, whole bool, err error) {
	b, err := json.Marshal(v)
	if err != nil {
		return 0, false, err
	}
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, "POST", url+"/generate", bytes.NewReader(b))
	if err != nil {
		return 0, false, err
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := client.Do(req)
	if err != nil {
		return 0, false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return 0, false, fmt.Errorf("status %d", resp.StatusCode)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if first == 0 && strings.HasPrefix(lines.Text(), "data: ") {
			first = time.Since(began)
		}
		whole = whole || lines.Text() == "event: done"
	}
	return first, whole, lines.Err()
}

// figure reads one value of /metrics.
func (s *server) figure(ctx context.Context, name string) (float64, error) {
	r, err := get(ctx, s.url+"/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(r.body)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, fmt.Errorf("/metrics has no %s", name)
}

// quantile is the q-quantile of the times; they are sorted.
func quantile(times []time.Duration, q float64) time.Duration {
	slices.Sort(times)
	return times[int(q*float64(len(times)-1))]
}
