package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"promptgen/internal/fault"
)

// maxHeader bounds the header of a request.
const maxHeader = 16 << 10

// Server answers requests. Make it with New.
type Server struct {
	o       Options
	models  models
	keys    *keys // nil: no keys
	rates   *rates
	metrics *metrics
	handler http.Handler
}

// New checks the options and reads the key file; the model is loaded by Serve.
func New(o Options) (*Server, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Server{o: o.withDefaults()}
	if o.APIKeyFile != "" {
		k, err := readKeys(o.APIKeyFile, s.o.Log)
		if err != nil {
			return nil, err
		}
		s.keys = k
	}
	s.rates = newRates(o.Rate)
	s.metrics = newMetrics(&s.models)
	s.handler = s.routes()
	return s, nil
}

// Handler is the server's handler, for a listener of one's own. It is not
// ready before Load.
func (s *Server) Handler() http.Handler { return s.handler }

// Load opens the model; until then /ready answers 503.
func (s *Server) Load(ctx context.Context) error { return s.Reload(ctx) }

// Serve answers on the listener, which it closes, until ctx is done. Then it
// is not ready any more, lets the requests in flight finish for Options.Drain,
// and returns. It loads the model first if Load was not called; a model that
// cannot be opened ends it. However it ends, the model is freed, and the server
// has no other.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	requests, cut := context.WithCancelCause(context.Background())
	srv := &http.Server{
		Handler:           s.handler,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ReadHeaderTimeout: s.o.Slow,
		ReadTimeout:       s.o.Slow,
		WriteTimeout:      s.o.Slow + s.o.Timeout + s.o.Slow,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug),
	}
	defer func() { // a model that is still loading is freed when it is there
		gone := s.models.end()
		cutOff(srv, cut)
		<-gone
	}()
	if a, ok := l.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() && s.keys == nil {
		s.o.Log.Warn("everyone who reaches this address may ask: give keys with --api-key-file", "address", a.String())
	}
	ended := make(chan error, 1)
	if s.o.TLSCert != "" {
		cert, err := tls.LoadX509KeyPair(s.o.TLSCert, s.o.TLSKey)
		if err != nil {
			return errors.Join(fault.Usage("tls: %w", err), l.Close())
		}
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
		go func() { ended <- srv.ServeTLS(l, "", "") }()
	} else {
		go func() { ended <- srv.Serve(l) }()
	}
	loaded := make(chan error, 1)
	if !s.ready() { // asked here: at the end it is not ready either
		go func() { loaded <- s.Load(ctx) }()
	}
	for {
		select {
		case err := <-ended:
			return fmt.Errorf("serve: %w", err)
		case err := <-loaded:
			if err != nil {
				return err
			}
			loaded = nil
		case <-ctx.Done():
			s.drain(srv)
			return nil
		}
	}
}

// farewell is for telling those whose requests are cut off.
const farewell = time.Second

// cutOff ends what is still in flight.
func cutOff(srv *http.Server, cut context.CancelCauseFunc) {
	cut(errCutOff)
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	if srv.Shutdown(ctx) != nil {
		_ = srv.Close()
	}
}

// drain lets the requests in flight finish, for as long as it may. Until then
// the server is reached, so that its readiness can be asked for: new requests
// get a 503.
func (s *Server) drain(srv *http.Server) {
	s.o.Log.Info("draining", "limit", s.o.Drain)
	gone := s.models.end()
	ctx, cancel := context.WithTimeout(context.Background(), s.o.Drain)
	defer cancel()
	select {
	case <-gone:
	case <-ctx.Done():
	}
	if err := srv.Shutdown(ctx); err != nil {
		s.o.Log.Warn("requests are cut off", "after", s.o.Drain)
	}
}
