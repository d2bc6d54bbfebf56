package serve

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"promptgen/generate"
)

var (
	errNotReady = errors.New("the model is not loaded yet: try again in a moment")
	errDraining = errors.New("the server is draining")
	errCutOff   = errors.New("the server was stopped before the request was done")
)

// models holds the model in use. A request borrows it; one that was exchanged
// is closed when the last borrower gives it back.
type models struct {
	mu       sync.Mutex
	current  *loaded
	leaving  []*loaded      // exchanged, not yet given back by all
	done     generate.Stats // what models gone by have done
	draining atomic.Bool

	reload sync.Mutex // one at a time
}

// loaded is a model with its borrowers.
type loaded struct {
	*Model
	since time.Time
	users sync.WaitGroup
}

// borrow hands out the current model until release is called.
func (m *models) borrow() (_ *loaded, release func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.draining.Load():
		return nil, nil, errDraining
	case m.current == nil:
		return nil, nil, errNotReady
	}
	l := m.current
	l.users.Add(1)
	return l, l.users.Done, nil
}

// use makes next the current model and frees the one before when its requests are
// done. When the server drains, next is freed at once.
func (m *models) use(next *Model) error {
	m.mu.Lock()
	late := m.draining.Load()
	if !late {
		m.leave()
		m.current = &loaded{Model: next, since: time.Now()}
	}
	m.mu.Unlock()
	if late {
		next.free()
		return errDraining
	}
	return nil
}

// end leaves no model, then and later, and tells when the last is freed.
func (m *models) end() (gone <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.draining.Store(true)
	return m.leave()
}

// leave takes the current model out of use. mu is held.
func (m *models) leave() (gone <-chan struct{}) {
	done := make(chan struct{})
	old := m.current
	if old == nil {
		close(done)
		return done
	}
	m.current, m.leaving = nil, append(m.leaving, old)
	go func() {
		defer close(done)
		old.users.Wait()
		old.Engine.Close()
		m.mu.Lock()
		m.done = m.done.Plus(old.Engine.Stats())
		m.leaving = slices.DeleteFunc(m.leaving, func(l *loaded) bool { return l == old })
		m.mu.Unlock()
		old.free()
	}()
	return done
}

// free closes the model.
func (m *Model) free() {
	m.Engine.Close()
	if m.Close != nil {
		m.Close()
	}
}

// Reload opens the model again and exchanges it without losing a request: those
// in flight finish with the old one. If that fails, the old one stays.
func (s *Server) Reload(ctx context.Context) error {
	s.models.reload.Lock()
	defer s.models.reload.Unlock()
	next, err := s.o.Open(ctx)
	if err != nil {
		return err
	}
	if err := s.models.use(next); err != nil {
		return err
	}
	s.o.Log.Info("model loaded", "model", next.Name)
	return nil
}

// ReloadOn reloads at each signal until ctx is done; failures are logged and
// leave the model as it is.
func (s *Server) ReloadOn(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			if err := s.Reload(ctx); err != nil {
				s.o.Log.Error("the model was not loaded again", "error", err)
			}
		}
	}
}

// ready reports whether requests can be answered.
func (s *Server) ready() bool {
	s.models.mu.Lock()
	defer s.models.mu.Unlock()
	return s.models.current != nil && !s.models.draining.Load()
}
