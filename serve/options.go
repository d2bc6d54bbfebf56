package serve

import (
	"context"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"promptgen/generate"
	"promptgen/internal/fault"
)

// Model is a loaded model: what Options.Open returns.
type Model struct {
	Name   string // shown by /v1/models
	Engine *generate.Engine
	Close  func() // frees what Open took, after the last request; may be nil
}

// Options are the choices of a Server. Zero values mean the defaults.
type Options struct {
	// Open loads the model: once at the start and again at each reload.
	Open func(ctx context.Context) (*Model, error)

	Log        *slog.Logger // nil: no log
	LogPrompts bool         // write prompts to the access log; otherwise never

	CORSOrigins []string // origins that may ask; none: any
	APIKeyFile  string   // one key a line; empty: no keys
	Rate        float64  // requests a second for each key or address; 0: no limit

	MaxLength  int           // tokens a request may ask for; 0: 1024
	MaxSamples int           // samples a request may ask for; 0: 32
	MaxBody    int64         // bytes of a request; 0: 1 MiB
	Timeout    time.Duration // for one request, waiting included; 0: 5 minutes
	Slow       time.Duration // for the header, the body, or one write of a slow client; 0: 10 s
	Drain      time.Duration // for requests in flight at the end; 0: 30 s

	TLSCert, TLSKey string // files of a certificate and its key; both or none
}

func (o Options) withDefaults() Options {
	def := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.Timeout, 5*time.Minute)
	def(&o.Slow, 10*time.Second)
	def(&o.Drain, 30*time.Second)
	if o.MaxLength == 0 {
		o.MaxLength = 1024
	}
	if o.MaxSamples == 0 {
		o.MaxSamples = 32
	}
	if o.MaxBody == 0 {
		o.MaxBody = 1 << 20
	}
	o.CORSOrigins = slices.Clone(o.CORSOrigins)
	for i, origin := range o.CORSOrigins { // browsers name it without
		o.CORSOrigins[i] = strings.TrimSuffix(origin, "/")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Validate lists every fault of the options at once (exit code 2).
func (o Options) Validate() error {
	var l fault.List
	if o.Open == nil {
		l.Addf("a server needs a model to open")
	}
	if o.MaxLength < 0 || o.MaxLength > generate.MaxLength {
		l.Addf("max-length must be between 1 and %d, not %d", generate.MaxLength, o.MaxLength)
	}
	if o.MaxSamples < 0 || o.MaxSamples > generate.MaxSamples {
		l.Addf("max-samples must be between 1 and %d, not %d", generate.MaxSamples, o.MaxSamples)
	}
	if o.MaxBody < 0 {
		l.Addf("the body limit must not be negative")
	}
	if !(o.Rate >= 0) {
		l.Addf("rate must not be negative")
	}
	for _, origin := range o.CORSOrigins {
		u, err := url.Parse(strings.TrimSuffix(origin, "/"))
		if origin != "*" && (err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != u.String()) {
			l.Addf("cors-origin %q is no origin such as https://example.org", origin)
		}
	}
	if o.Timeout < 0 || o.Slow < 0 || o.Drain < 0 {
		l.Addf("timeout and drain must not be negative")
	}
	if (o.TLSCert == "") != (o.TLSKey == "") {
		l.Addf("tls-cert and tls-key belong together: give both")
	}
	return l.Err("serve")
}
