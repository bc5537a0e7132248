package door

import (
	"sync"
	"time"
)

// A rate bounds how often agents may try to join in a minute: all together, and those
// of one address that fail.
type rate struct {
	each, all int
	now       func() time.Time

	mu    sync.Mutex
	since time.Time
	tried int
	wrong map[string]int
}

// may reports whether somebody at an address may try, and counts it.
func (r *rate) may(from string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.now(); now.Sub(r.since).Abs() >= time.Minute {
		r.since, r.tried, r.wrong = now, 0, map[string]int{}
	}
	if r.tried >= r.all || r.wrong[from] >= r.each {
		return false
	}
	r.tried++
	return true
}

// failed counts a try that was in vain.
func (r *rate) failed(from string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrong[from]++
}
