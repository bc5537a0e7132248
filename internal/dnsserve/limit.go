package dnsserve

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// A verdict is what a query over UDP gets.
type verdict int

const (
	pass   verdict = iota // an answer
	toTCP                 // an answer without content that sends a real resolver to TCP
	ignore                // silence
)

const (
	bucketCount = 1 << 14 // 1 MiB; networks that share one share its limit
	burst       = 2       // seconds' worth at once
	cuts        = 10      // times the rate of answers, for what sends to TCP
)

// A limiter bounds the answers that one source network gets over UDP. The source
// of a UDP packet may be forged, and then its network is the victim of what we
// send; who really asks can come back over TCP. It is sent there at once: a
// resolver that is met with silence waits, is easier to lie to, and BIND gives up
// when it is sent to TCP only after that. What sends to TCP is no larger than its
// query, and is bounded too. Its memory is bounded: a flood from everywhere sends
// everybody to TCP and does no more.
type limiter struct {
	rate    float64
	seed    maphash.Seed
	buckets [bucketCount]bucket
}

// A bucket is what went to networks of late; it leaks at the rates.
type bucket struct {
	mu            sync.Mutex
	at            time.Time
	answers, cuts float64
}

func newLimiter(rate int) *limiter { return &limiter{rate: float64(rate), seed: maphash.MakeSeed()} }

// take counts a query from an address.
func (l *limiter) take(from netip.Addr, now time.Time) verdict {
	b := &l.buckets[maphash.Comparable(l.seed, network(from))%bucketCount]
	b.mu.Lock()
	defer b.mu.Unlock()
	if past := now.Sub(b.at).Seconds(); past > 0 {
		b.answers = max(0, b.answers-past*l.rate)
		b.cuts = max(0, b.cuts-past*l.rate*cuts)
		b.at = now
	}
	switch {
	case b.answers+1 <= l.rate*burst:
		b.answers++
		return pass
	case b.cuts+1 <= l.rate*cuts*burst:
		b.cuts++
		return toTCP
	}
	return ignore
}

// network is whom an address belongs to, as far as can be told: a resolver and
// its neighbours (/24), a customer (/56).
func network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 56
	if a.Is4() {
		bits = 24
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no address at all: they are one network
	}
	return p
}
