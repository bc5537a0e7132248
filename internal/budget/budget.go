// Package budget decides what a CA's limits still allow. It is pure.
//
// Allow holds for every CA: a simple ceiling for one account and one set of names,
// however many sites ask for them, from the orders that are stored. It is below
// the limits of every CA that is known: of Let's Encrypt's five certificates a week
// for one set of names, one is left to a person. Renewals that replace a certificate
// (RFC 9773 §5) are exempt from limits at some CAs. Here they are not: a certificate
// that needs more than four orders a week is in trouble, whatever the CA allows.
//
// A Ledger holds what an issuer's token buckets hold, where its limits are known:
// no bucket is ever overdrawn. Grant hands out what they hold among those that wait,
// the least life left first, and nobody is passed over for ever. Simulate plays that
// forward for a forecast.
package budget

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// The ceiling.
const (
	Most  = 4                  // orders for one set of names …
	Span  = 7 * 24 * time.Hour // … within this time
	Pause = 24 * time.Hour     // after an order that failed, unless the ask says less
)

// A Past order is one that was begun, whatever became of it, for whichever site.
type Past struct {
	Issuer string // whose account it was begun with: limits are kept by account
	Names  []string
	Begun  time.Time
	Failed time.Time // when it failed; zero: it did not
	Ours   bool      // it failed since we were not there to answer the CA
}

// An Ask is what is wanted now.
type Ask struct {
	Issuer string
	Names  []string
	Orders int // one for each key type of the site; 0 stands for 1
	// Forced says that a person wants it at once: it need not wait for the pause
	// after a failure. The ceiling holds for it too.
	Forced bool
	Pause  time.Duration // after an order that failed; 0: a day
	// Late says that the certificate is past its last safe moment: orders that failed
	// do not count, since CAs count certificates, and the pause keeps to their limits
	// of failures.
	Late bool
	// Limit is what the CA is known to allow for one set of names; zero: nothing is known.
	Limit farm.Rate
}

// ceiling is how many orders may be begun in which time: one is left to people.
func (a Ask) ceiling() (most int, span time.Duration) {
	if a.Limit.Count == 0 {
		return Most, Span
	}
	return max(1, a.Limit.Count-1), a.Limit.Per
}

// An Answer is whether an ask is allowed, and if not, when to ask again and why.
type Answer struct {
	OK    bool
	Again time.Time // zero: never
	Why   string
	Waits bool // for the time that is let pass after an order that failed
}

// Allow says whether the orders may begin at the given time. Past may hold
// orders for other names and from long ago; its order does not matter.
func Allow(past []Past, ask Ask, now time.Time) Answer {
	want := max(ask.Orders, 1)
	most, span := ask.ceiling()
	in := strings.TrimPrefix(farm.Rate{Count: 1, Per: span}.String(), "1 per ")
	if want > most {
		return Answer{Why: fmt.Sprintf("%d orders at once are more than the %d that one set of names may have in %s; ask for fewer key types", want, most, in)}
	}
	past = slices.DeleteFunc(slices.Clone(past), func(p Past) bool {
		return p.Issuer != ask.Issuer || set(p.Names) != set(ask.Names)
	})
	begun, failed := recent(past, span, ask.Late, now)
	if over := len(begun) + want - most; over > 0 {
		again := begun[over-1].Add(span)
		return Answer{Again: again, Why: fmt.Sprintf("%d orders for these names were begun in the last %s, and %d are allowed; ask again at %s", len(begun), in, most, again.UTC().Format(time.RFC3339))}
	}
	if again := failed.Add(cmp.Or(ask.Pause, Pause)); !failed.IsZero() && again.After(now) && !ask.Forced {
		return Answer{Again: again, Waits: true, Why: fmt.Sprintf("the last order failed at %s; the next may begin at %s, or at once with `certfarm renew`", failed.UTC().Format(time.RFC3339), again.UTC().Format(time.RFC3339))}
	}
	return Answer{OK: true}
}

// recent finds when the orders of the span were begun, oldest first, and when one
// failed last, if none has gone well since and it is not forgiven.
func recent(past []Past, span time.Duration, late bool, now time.Time) (begun []time.Time, failed time.Time) {
	for _, p := range past {
		if p.Begun.Add(span).After(now) && (p.Failed.IsZero() || !late) {
			begun = append(begun, p.Begun)
		}
		if p.Failed.After(failed) && !succeededAfter(past, p) && !forgiven(past, p) {
			failed = p.Failed
		}
	}
	slices.SortFunc(begun, time.Time.Compare)
	return begun, failed
}

// succeededAfter reports that an order was begun after the failure and has not
// failed: what was wrong is over.
func succeededAfter(past []Past, failure Past) bool {
	return slices.ContainsFunc(past, func(p Past) bool {
		return p.Failed.IsZero() && p.Begun.After(failure.Failed)
	})
}

// forgiven reports that a failure was our own silence, and the first such in a
// day (those that were begun together are one): it says nothing of what the CA would see now, so that the next order need
// not wait. A controller that dies each time waits like everybody.
func forgiven(past []Past, failure Past) bool {
	return failure.Ours && !slices.ContainsFunc(past, func(p Past) bool {
		return p.Ours && !p.Begun.Equal(failure.Begun) && p.Failed.Before(failure.Failed) && p.Failed.Add(Pause).After(failure.Failed)
	})
}

// set is a set of names as CAs count them: order and case do not matter.
func set(names []string) string {
	all := make([]string, 0, len(names))
	for _, n := range names {
		all = append(all, strings.ToLower(n))
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ",")
}
