package access

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A TooMany is a request more than somebody may send; after a while there may be
// one again.
type TooMany struct{ After time.Duration }

// Error says when to come again.
func (t *TooMany) Error() string {
	return fmt.Sprintf("too many requests: try again in %d s", t.Seconds())
}

// Seconds is After as the header Retry-After says it: whole, and at least 1.
func (t *TooMany) Seconds() int {
	return max(1, int((t.After+time.Second-1)/time.Second))
}

// mostKnown bounds how many are counted one by one: 100 bytes each.
const mostKnown = 10000

// limits counts requests by who sends them, each one with an allowance that fills
// again. Those who cannot be remembered any more share one.
type limits struct {
	every rate.Limit
	burst int

	mu   sync.Mutex
	all  map[string]*rate.Limiter
	rest *rate.Limiter
}

func newLimits(every rate.Limit, burst int) *limits {
	return &limits{every: every, burst: burst, all: map[string]*rate.Limiter{}, rest: rate.NewLimiter(every, burst)}
}

// take counts a request; the error is a *TooMany.
func (l *limits) take(who string, now time.Time) error { return l.spend(l.of(who, now), now) }

func (l *limits) spend(one *rate.Limiter, now time.Time) error {
	r := one.ReserveN(now, 1)
	if wait := r.DelayFrom(now); wait > 0 {
		r.CancelAt(now) // who is refused does not wait longer for it
		return &TooMany{wait}
	}
	return nil
}

// spent reports that there is nothing left for somebody, and counts nothing.
func (l *limits) spent(who string, now time.Time) error {
	if left := l.of(who, now).TokensAt(now); left < 1 {
		return &TooMany{time.Duration((1 - left) / float64(l.every) * float64(time.Second))}
	}
	return nil
}

func (l *limits) of(who string, now time.Time) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one, ok := l.all[who]; ok {
		return one
	}
	if len(l.all) >= mostKnown {
		for k, one := range l.all { // who has all of it back is as one who never came
			if one.TokensAt(now) >= float64(l.burst) {
				delete(l.all, k)
			}
		}
	}
	if len(l.all) >= mostKnown {
		return l.rest
	}
	one := rate.NewLimiter(l.every, l.burst)
	l.all[who] = one
	return one
}

// addressOf is where a request comes from, as far as one may count by it: an IPv4
// address, or the network of an IPv6 address that one subscriber has (RFC 6177).
func addressOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}
