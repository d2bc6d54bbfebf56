package serve

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"promptgen/generate"
)

var errNotReady = errors.New("the model is not loaded yet: try again in a moment")

// models holds the model in use. A request borrows it; one that was exchanged
// is closed when the last borrower gives it back.
type models struct {
	mu       sync.Mutex
	current  *loaded
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
	if m.current == nil {
		return nil, nil, errNotReady
	}
	l := m.current
	l.users.Add(1)
	return l, l.users.Done, nil
}

// use makes next (nil: none) the current model and frees the one before when
// its requests are done.
func (m *models) use(next *Model) (gone <-chan struct{}) {
	m.mu.Lock()
	old := m.current
	m.current = nil
	if next != nil {
		m.current = &loaded{Model: next, since: time.Now()}
	}
	m.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if old == nil {
			return
		}
		old.users.Wait()
		old.Engine.Close()
		st := old.Engine.Stats()
		m.mu.Lock()
		m.done = m.done.Plus(st)
		m.mu.Unlock()
		if old.Close != nil {
			old.Close()
		}
	}()
	return done
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
	s.models.use(next)
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
