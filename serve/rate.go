package serve

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxCallers bounds the memory of the rate limit; idle callers are forgotten
// first.
const maxCallers = 10_000

// rates limits each caller to so many requests a second, with a burst of as
// many (at least one).
type rates struct {
	limit rate.Limit
	burst int

	mu      sync.Mutex
	callers map[string]*rate.Limiter
}

// newRates allows perSecond requests; 0 for no limit.
func newRates(perSecond float64) *rates {
	if perSecond == 0 {
		return nil
	}
	return &rates{
		limit: rate.Limit(perSecond), burst: max(1, int(math.Ceil(perSecond))),
		callers: make(map[string]*rate.Limiter),
	}
}

// allow takes one request of the caller's allowance.
func (r *rates) allow(caller string) bool {
	if r == nil {
		return true
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	l, ok := r.callers[caller]
	if !ok {
		if len(r.callers) >= maxCallers {
			r.forget(now)
		}
		l = rate.NewLimiter(r.limit, r.burst)
		r.callers[caller] = l
	}
	return l.AllowN(now, 1)
}

// forget drops the callers whose allowance is full again: they are as new.
// Should all be busy, it drops them all.
func (r *rates) forget(now time.Time) {
	for caller, l := range r.callers {
		if l.TokensAt(now) >= float64(r.burst) {
			delete(r.callers, caller)
		}
	}
	if len(r.callers) >= maxCallers {
		clear(r.callers)
	}
}
