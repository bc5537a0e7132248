package budget

import (
	"cmp"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// firsts is the share of life at which a first certificate, which has none, stands
// among others: before all that have only just become due, and behind those that
// are in need. The others grow older, so that nobody waits for ever.
const firsts = 1.0 / 6

// Left is the share of its life that a certificate has left: 1 when it is new, 0
// and less when it has expired.
func Left(t farm.Turn, now time.Time) float64 {
	life := t.NotAfter.Sub(t.NotBefore)
	if life <= 0 {
		return firsts
	}
	return float64(t.NotAfter.Sub(now)) / float64(life)
}

// Grant takes from those that wait for an issuer as many as the buckets hold, the
// one with the least life left first. It returns the places in waiting of those
// that may go, in this order, what the buckets hold then, and from when on the next
// may go; the zero time: none is left that ever may.
func Grant(waiting []farm.Turn, l Ledger, now time.Time) (granted []int, then Ledger, next time.Time) {
	order := make([]int, len(waiting))
	left := make([]float64, len(waiting))
	for i, w := range waiting {
		order[i], left[i] = i, Left(w, now)
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(left[a], left[b]), waiting[a].Since.Compare(waiting[b].Since))
	})
	l = l.clone()
	blocked := map[string]bool{} // domains whose bucket is kept for one that is in more need
	for _, i := range order {
		r := Request{Orders: waiting[i].Orders, domains: Domains(waiting[i].Names)}
		a := l.Grants(r, now)
		switch {
		case a.OK && !slices.ContainsFunc(r.domains, func(d string) bool { return blocked[d] }):
			l.take(r, now)
			granted = append(granted, i)
			continue
		case a.OK || a.Again.IsZero():
			continue
		default:
			next = sooner(next, a.Again)
			if _, domain := l.when(r); domain == "" {
				return granted, l, a.Again // what is left in the bucket of orders is kept for this one
			}
			for _, d := range r.domains {
				blocked[d] = true
			}
		}
	}
	return granted, l, next
}

func sooner(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
