package budget

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Ledger is what an issuer's token buckets hold. A bucket is kept as one time:
// when it will be full again; what is past is full. So an order costs one look and
// one note, however many there were before it.
type Ledger struct {
	Limits  farm.Limits
	Orders  time.Time            // the bucket of new orders
	Domains map[string]time.Time // by registered domain, or as BucketOf has it; one that is not there is full
}

// A Request is orders that are wanted together: one a key type, for the same names.
type Request struct {
	Names  []string
	Orders int // 0 stands for 1
	// Whole lets it have what is kept back for people and for what is in flight
	// between us and the CA: a twentieth of each bucket.
	Whole bool

	domains []string // of Names, where they are known
}

// under is the domains that the request counts for.
func (r Request) under() []string {
	if r.domains != nil {
		return r.domains
	}
	return Domains(r.Names)
}

// Grants says whether the buckets hold the request, and if not, from when on they
// would if nobody else took anything.
func (l Ledger) Grants(r Request, now time.Time) Answer {
	for _, rate := range []farm.Rate{l.Limits.Orders, l.Limits.Domain} {
		if n := max(r.Orders, 1); rate.Count > 0 && n > room(rate, r.Whole) {
			return Answer{Why: fmt.Sprintf("%d orders at once are more than the CA allows (%s); ask for fewer key types", n, rate)}
		}
	}
	switch at, domain := l.when(r); {
	case !at.After(now):
		return Answer{OK: true}
	case domain != "":
		return Answer{Again: at, Why: fmt.Sprintf("the CA allows %s certificates for %s", l.Limits.Domain, domain)}
	default:
		return Answer{Again: at, Why: fmt.Sprintf("the CA allows an account %s new orders", l.Limits.Orders)}
	}
}

// when is from when on the buckets hold a request, and the domain that it waits for
// longest; none: it is the bucket of orders.
func (l Ledger) when(r Request) (at time.Time, domain string) {
	n := max(r.Orders, 1)
	at = free(l.Limits.Orders, l.Orders, n, r.Whole)
	for _, d := range r.under() {
		if f := free(l.rate(d), l.Domains[d], n, r.Whole); f.After(at) {
			at, domain = f, d
		}
	}
	return at, domain
}

// Spend takes a request out of the buckets, whether they hold it or not.
func (l Ledger) Spend(r Request, now time.Time) Ledger {
	l = l.clone()
	l.take(r, now)
	return l
}

func (l Ledger) clone() Ledger {
	l.Domains = maps.Clone(l.Domains)
	if l.Domains == nil {
		l.Domains = map[string]time.Time{}
	}
	return l
}

// take spends a request from a ledger that nobody else holds.
func (l *Ledger) take(r Request, now time.Time) {
	n := max(r.Orders, 1)
	l.Orders = spend(l.Limits.Orders, l.Orders, n, now)
	for _, d := range r.under() {
		if rate := l.rate(d); rate.Count > 0 {
			l.Domains[d] = spend(rate, l.Domains[d], n, now)
		}
	}
}

// rate is the limit of a bucket of Domains: of a domain, or of a set of names.
func (l Ledger) rate(bucket string) farm.Rate {
	if strings.HasPrefix(bucket, namesBucket) {
		return ofNames(l.Limits)
	}
	return l.Limits.Domain
}

// namesBucket begins what a bucket for a set of names is called among those of domains:
// no domain has a space.
const namesBucket = "the names "

// BucketOf is what Domains calls the bucket for a set of names that several
// certificates share; only forecasts have such.
func BucketOf(names []string) string {
	return namesBucket + strings.Join(slices.Sorted(slices.Values(names)), ", ")
}

// FullAfter is when a bucket for a set of names is full again from which was taken at
// the given times.
func FullAfter(spent []time.Time, l farm.Limits) time.Time { return fullAfter(spent, ofNames(l)) }

// Counts reports that the issuer has limits that a ledger is kept for.
func (l Ledger) Counts() bool { return l.Limits.Orders.Count > 0 || l.Limits.Domain.Count > 0 }

// Take takes one out of a bucket that is full at a time, and says when it is full then.
// Where it holds none, again is when it will, and nothing is taken. A rate of nothing
// has no bucket.
func Take(r farm.Rate, full, now time.Time) (then, again time.Time) {
	if at := free(r, full, 1, true); at.After(now) {
		return full, at
	}
	return spend(r, full, 1, now), time.Time{}
}

// Used is how much of a bucket is gone, from 0 to 1.
func Used(r farm.Rate, full, now time.Time) float64 {
	if r.Count == 0 || !full.After(now) {
		return 0
	}
	return float64(full.Sub(now)) / float64(r.Per)
}

// free is from when on a bucket holds n.
func free(r farm.Rate, full time.Time, n int, whole bool) time.Time {
	if r.Count == 0 {
		return time.Time{}
	}
	return full.Add(cost(r, n) - cost(r, room(r, whole)))
}

// room is how many a bucket holds when it is full.
func room(r farm.Rate, whole bool) int {
	if whole {
		return r.Count
	}
	return r.Count - r.Count/20
}

// cost is how long a bucket takes to hold n more, rounded up.
func cost(r farm.Rate, n int) time.Duration {
	whole, rest := r.Per/time.Duration(r.Count), r.Per%time.Duration(r.Count)
	return whole*time.Duration(n) + (rest*time.Duration(n)+time.Duration(r.Count)-1)/time.Duration(r.Count)
}

func spend(r farm.Rate, full time.Time, n int, now time.Time) time.Time {
	if r.Count == 0 {
		return full
	}
	if full.Before(now) {
		full = now
	}
	return full.Add(cost(r, n))
}
