package budget

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// Several certificates may be for exactly the same names: those of nodes that each have
// a key of their own. For them a CA's limit of certificates for one set of names is no
// sign of trouble, as it is for Allow, but what they share: a bucket that is kept to.

// bucketSlack is added to when a bucket holds another certificate: the CA's clock and
// the moment at which it counts are its own.
const bucketSlack = time.Minute

// ofNames is the bucket of certificates for the same names; of a CA of which nothing is
// known, what Allow takes for granted of every CA.
func ofNames(l farm.Limits) farm.Rate {
	if l.Names.Count == 0 {
		return farm.Rate{Count: Most, Per: Span}
	}
	return l.Names
}

// Shared says whether orders more for a set of names may begin, where the
// certificates in spent were counted for it: when they were issued, or now for those
// that are being got.
func Shared(spent []time.Time, orders int, l farm.Limits, now time.Time) Answer {
	r := ofNames(l)
	n := max(orders, 1)
	if n > r.Count {
		return Answer{Why: fmt.Sprintf("%d orders at once are more than the CA allows for the same names (%s); ask for fewer key types", n, r)}
	}
	at := free(r, fullAfter(spent, r), n, true)
	if at.IsZero() || !at.After(now) {
		return Answer{OK: true}
	}
	at = at.Add(bucketSlack)
	return Answer{Again: at, Why: fmt.Sprintf("the CA allows %s certificates for the same names, which other nodes have had; ask again at %s", r, at.UTC().Format(time.RFC3339))}
}

// fullAfter is when a bucket is full again from which was taken at the given times.
func fullAfter(spent []time.Time, r farm.Rate) (full time.Time) {
	spent = slices.SortedFunc(slices.Values(spent), time.Time.Compare)
	for _, t := range spent {
		full = spend(r, full, 1, t)
	}
	return full
}

// A Price is what certificates for a number of nodes take of a CA's limits.
type Price struct {
	Nodes int           `json:"nodes"`
	Now   int           `json:"now"`             // that can be had at once
	Every time.Duration `json:"every,omitempty"` // for one more, when those are had; 0: all are had at once
	Last  time.Duration `json:"last,omitempty"`  // from now until the last is ordered
	Limit string        `json:"limit,omitempty"` // what holds them back
	Same  bool          `json:"same"`            // they are for exactly the same names
}

// Priced is what the first certificates of nodes take: orders for each, one a key
// type. Same: they are for the same names, as other certificates are that were
// counted at the times in spent; else each has a name of its own, under one domain.
func Priced(nodes, orders int, same bool, spent []time.Time, l farm.Limits, now time.Time) Price {
	p := Price{Nodes: nodes, Now: nodes, Same: same}
	r, what := ofNames(l), "for the same names"
	if !same {
		if r, what = l.Domain, "for one domain"; r.Count == 0 {
			return p
		}
	}
	n := max(orders, 1)
	p.Limit = fmt.Sprintf("%s %s", r, what)
	full := fullAfter(spent, r)
	p.Now = 0
	for i := range nodes {
		at := free(r, full, n, true)
		if !at.After(now) {
			p.Now++
			at = now
		} else {
			p.Last = at.Sub(now)
		}
		full = spend(r, full, n, at)
		if i == nodes-1 && p.Now < nodes {
			p.Every = cost(r, n)
		}
	}
	return p
}

// String is the price for people: "12 nodes: 5 today, then one per 34 h, done on the
// 10th day".
func (p Price) String() string {
	if p.Every == 0 {
		return farm.Count(p.Nodes, "node") + ": all today"
	}
	day := int(p.Last/(24*time.Hour)) + 1
	return fmt.Sprintf("%s: %d today, then one per %s, done on the %s day", farm.Count(p.Nodes, "node"), p.Now, hours(p.Every), ordinal(day))
}

// hours is a length of time in whole hours, or minutes below two.
func hours(d time.Duration) string {
	if d < 2*time.Hour {
		return fmt.Sprintf("%.0f min", math.Ceil(d.Minutes()))
	}
	return fmt.Sprintf("%.0f h", d.Hours())
}

func ordinal(n int) string {
	suffix := "th"
	if teen := n%100 >= 11 && n%100 <= 13; !teen {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return fmt.Sprint(n, suffix)
}

// Renewals are what keeping certificates for the same names takes.
type Renewals struct {
	Nodes, Orders int
	Life, Every   time.Duration // of a certificate, and from one renewal to the next
}

// Impossible says with the arithmetic why the limits do not allow as many certificates
// for the same names; empty: they do. Renewals that the CA does not count (RFC 9773 §5)
// make it possible, as long as the first of them are not over before the last is had:
// then a farm that once lost its certificates could not be brought up again.
func (n Renewals) Impossible(l farm.Limits) string {
	r := ofNames(l)
	orders := max(n.Orders, 1)
	want := float64(n.Nodes*orders) / days(n.Every)
	have := float64(r.Count) / days(r.Per)
	first := Priced(n.Nodes, orders, true, nil, l, time.Time{}.AddDate(2000, 0, 0))
	switch {
	case orders > r.Count:
		return fmt.Sprintf("each node needs %d certificates at once, and the CA allows %s for the same names", orders, r)
	case want <= have || l.Exempt == farm.ExemptARI && first.Last < n.Life:
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d nodes that renew every %s need %.1f certificates a day for the same names, and the CA allows %.1f (%s)", n.Nodes, inDays(n.Every), want, have, r)
	if l.Exempt == farm.ExemptARI {
		fmt.Fprintf(&b, "; it does not count renewals in its own time, but the first certificates alone take %s, and live %s", inDays(first.Last), inDays(n.Life))
	}
	return b.String()
}

func days(d time.Duration) float64 { return d.Hours() / 24 }

func inDays(d time.Duration) string { return fmt.Sprintf("%.3gd", days(d)) }
