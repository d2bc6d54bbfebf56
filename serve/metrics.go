package serve

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"promptgen/generate"
)

// metrics are a server's figures, in a registry of its own.
type metrics struct {
	handler  http.Handler
	inFlight prometheus.Gauge
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	first    prometheus.Histogram
	perToken prometheus.Histogram
	samples  prometheus.Counter
}

func newMetrics(m *models) *metrics {
	seconds := prometheus.ExponentialBuckets(0.001, 2, 18) // 1 ms to 2 min
	x := &metrics{
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "promptgen_requests_in_flight", Help: "Requests being answered."}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "promptgen_requests_total", Help: "Requests by route and status."}, []string{"route", "code"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "promptgen_request_seconds", Help: "Time to answer a request.", Buckets: seconds}, []string{"route"}),
		first: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "promptgen_first_token_seconds", Help: "Time from a request to its first token.", Buckets: seconds}),
		perToken: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "promptgen_token_seconds", Help: "Mean time between two tokens of a sample, after the first.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16)}),
		samples: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "promptgen_samples_total", Help: "Texts written to the end."}),
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		x.inFlight, x.requests, x.took, x.first, x.perToken, x.samples,
	)
	gauge := func(name, help string, value func(generate.Stats) float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help},
			func() float64 { return value(m.stats()) }))
	}
	counter := func(name, help string, value func(generate.Stats) float64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help},
			func() float64 { return value(m.stats()) }))
	}
	gauge("promptgen_queue_length", "Requests that wait for a place.", func(s generate.Stats) float64 { return float64(s.Queued) })
	gauge("promptgen_slots", "Texts that are written together at most.", func(s generate.Stats) float64 { return float64(s.Slots) })
	gauge("promptgen_slots_busy", "Texts being written.", func(s generate.Stats) float64 { return float64(s.Active) })
	counter("promptgen_tokens_generated_total", "Tokens written.", func(s generate.Stats) float64 { return float64(s.Generated) })
	counter("promptgen_tokens_read_total", "Tokens of prompts and windows read.", func(s generate.Stats) float64 { return float64(s.Read) })
	counter("promptgen_steps_total", "Passes over the weights.", func(s generate.Stats) float64 { return float64(s.Steps) })
	counter("promptgen_prefix_hits_total", "Prompts that began like one before.", func(s generate.Stats) float64 { return float64(s.PrefixHits) })
	counter("promptgen_prefix_tokens_total", "Tokens of prompts that were not read again for it.", func(s generate.Stats) float64 { return float64(s.PrefixTokens) })
	x.handler = promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	return x
}

// stats are the figures of the current model, counting in what others have done.
func (m *models) stats() generate.Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	var st generate.Stats
	if m.current != nil {
		st = m.current.Engine.Stats()
	}
	for _, l := range m.leaving {
		st = st.Plus(l.Engine.Stats())
	}
	return st.Plus(m.done)
}

func (x *metrics) observe(route string, status int, took time.Duration) {
	x.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	x.took.WithLabelValues(route).Observe(took.Seconds())
}

func (x *metrics) generated(r *generate.Response, took time.Duration) {
	x.samples.Add(float64(len(r.Samples)))
	if r.FirstToken == 0 {
		return
	}
	x.first.Observe(r.FirstToken.Seconds())
	longest := 0
	for _, s := range r.Samples {
		longest = max(longest, len(s.Tokens))
	}
	if longest > 1 {
		x.perToken.Observe((took - r.FirstToken).Seconds() / float64(longest-1))
	}
}
