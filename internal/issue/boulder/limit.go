package boulder

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"
)

// A Limit is a token bucket: it holds Burst tokens, and one comes back each
// Period/Burst. The zero value limits nothing.
type Limit struct {
	Burst  int
	Period time.Duration
}

// Limits are the CA's, as Boulder has them.
type Limits struct {
	Orders   Limit // new orders of one account
	Domain   Limit // certificates below one registered domain; of an IPv4 address, of an IPv6 /64
	Set      Limit // certificates for exactly the same names
	Failures Limit // failed validations of one name by one account
	Pause    Limit // the same, until the account is paused for the name; a success fills it
	Accounts Limit // new accounts from one address
}

// LetsEncryptLimits is Let's Encrypt's limits of August 2026.
func LetsEncryptLimits() Limits {
	const day = 24 * time.Hour
	return Limits{
		Orders:   Limit{300, 3 * time.Hour},
		Domain:   Limit{50, 7 * day},
		Set:      Limit{5, 7 * day},
		Failures: Limit{5, time.Hour},
		Pause:    Limit{1152, 1152 * day},
		Accounts: Limit{10, 3 * time.Hour},
	}
}

// buckets say of each bucket when it will be full again; one that is missing is full.
type buckets map[string]time.Time

// wait is how long it takes until a token is there.
func (b buckets) wait(l Limit, key string, now time.Time) time.Duration {
	if l.Burst == 0 {
		return 0
	}
	return max(0, b.after(l, key, now).Sub(now)-l.Period)
}

// take takes a token, if there is one.
func (b buckets) take(l Limit, key string, now time.Time) (taken bool) {
	if l.Burst == 0 {
		return true
	}
	if b.wait(l, key, now) > 0 {
		return false
	}
	b[key] = b.after(l, key, now)
	return true
}

// after is when the bucket would be full, had one more token been taken.
func (b buckets) after(l Limit, key string, now time.Time) time.Time {
	full := b[key]
	if full.Before(now) {
		full = now
	}
	return full.Add(l.Period / time.Duration(l.Burst))
}

// A fee is a limit as it holds for one request.
type fee struct {
	kind, key string
	limit     Limit
	text      string // with %d for the burst and %s for the period
	docs      string
}

// fees are what a new order must find in its buckets. A renewal (the same names
// as a certificate of the last 120 days) is free of the first two kinds.
func (c *CA) fees(by *account, names []identifier, renewal bool) []fee {
	var all []fee
	if !renewal {
		all = append(all, fee{"orders", "orders " + by.url, c.o.Limits.Orders, "too many new orders (%d) from this account in the last %s", "new-orders-per-account"})
		for _, d := range domains(names) {
			all = append(all, fee{"domain", "domain " + d, c.o.Limits.Domain,
				"too many certificates (%d) already issued for " + quote(d) + " in the last %s", "new-certificates-per-registered-domain"})
		}
	}
	all = append(all, fee{"set", "set " + set(names), c.o.Limits.Set,
		"too many certificates (%d) already issued for this exact set of identifiers in the last %s", "new-certificates-per-exact-set-of-identifiers"})
	for _, n := range names {
		all = append(all, fee{"failures", failures(by, n), c.o.Limits.Failures,
			"too many failed authorizations (%d) for " + quote(n.Value) + " in the last %s", "authorization-failures-per-identifier-per-account"})
	}
	return all
}

// charge checks the limits for a new order, and takes its token, which one that
// is found again costs too.
func (c *CA) charge(q *call, names []identifier, exempt bool) (renewal bool, err error) {
	if exempt {
		return true, nil
	}
	renewal = c.issuedLately(names, q.now)
	if err := c.check(c.fees(q.by, names, renewal), q.now); err != nil {
		return false, err
	}
	if !renewal {
		c.buckets.take(c.o.Limits.Orders, "orders "+q.by.url, q.now)
	}
	return renewal, nil
}

// quote quotes a value for a format.
func quote(s string) string { return strings.ReplaceAll(fmt.Sprintf("%q", s), "%", "%%") }

func failures(by *account, n identifier) string { return "failures " + by.url + " " + n.Value }

// check refuses what finds a bucket empty, by the one that takes longest.
func (c *CA) check(all []fee, now time.Time) error {
	var worst fee
	var longest time.Duration
	for _, f := range all {
		if wait := c.buckets.wait(f.limit, f.key, now); wait > longest {
			worst, longest = f, wait
		}
	}
	if longest == 0 {
		return nil
	}
	c.stats.Limited[worst.kind]++
	text := fmt.Sprintf(worst.text, worst.limit.Burst, worst.limit.Period)
	p := refuse(http.StatusTooManyRequests, "rateLimited", "%s, retry after %s: see https://letsencrypt.org/docs/rate-limits/#%s",
		text, now.Add(longest).UTC().Format("2006-01-02 15:04:05 MST"), worst.docs)
	p.retry = longest
	return p
}

// turnAway refuses a new order while the CA is said to be busy, or the account
// is paused for one of the names.
func (c *CA) turnAway(by *account, names []identifier) error {
	if c.busy > 0 {
		c.busy--
		c.stats.Limited["busy"]++
		return refuse(http.StatusServiceUnavailable, "rateLimited", "Service busy; retry later.")
	}
	var paused []string
	for _, n := range names {
		if c.paused[by.url+" "+n.Value] {
			paused = append(paused, n.Value)
		}
	}
	if len(paused) == 0 {
		return nil
	}
	c.stats.Limited["paused"]++
	return refuse(http.StatusTooManyRequests, "rateLimited",
		"Your account is temporarily prevented from requesting certificates for %s and possibly others. Please visit: %s/sfe/v1/unpause?jwt=%s",
		strings.Join(paused, ", "), c.o.Portal, random(12))
}

// failed counts a failed validation, which pauses the account for the name when
// there have been too many in a row.
func (c *CA) failed(by *account, n identifier, now time.Time) {
	c.buckets.take(c.o.Limits.Failures, failures(by, n), now)
	if !c.buckets.take(c.o.Limits.Pause, "pause "+by.url+" "+n.Value, now) {
		c.paused[by.url+" "+n.Value] = true
	}
}

// spend counts a certificate.
func (c *CA) spend(o *order, now time.Time) {
	c.buckets.take(c.o.Limits.Set, "set "+set(o.names), now)
	if o.renewal {
		return
	}
	for _, d := range domains(o.names) {
		c.buckets.take(c.o.Limits.Domain, "domain "+d, now)
	}
}

// domains are the registered domains of the names, each once, and of addresses
// themselves or their /64.
func domains(names []identifier) []string {
	var all []string
	for _, n := range names {
		d, err := publicsuffix.EffectiveTLDPlusOne(strings.TrimPrefix(n.Value, "*."))
		if err != nil {
			d = n.Value // a public suffix itself
		}
		if ip, err := netip.ParseAddr(n.Value); err == nil {
			d = ip.String()
			if prefix, err := ip.Prefix(64); err == nil && ip.Is6() {
				d = prefix.String()
			}
		}
		all = append(all, d)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
