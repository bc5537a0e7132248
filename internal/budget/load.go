package budget

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// Overload says with the arithmetic where the limits of a CA do not carry the
// certificates that are to be kept from it: its limit on new orders, and that on the
// domain that takes most. Of a certificate its names, orders and lifetime count; before
// is how long before its end it becomes due, and every how long after it was issued.
func Overload(certs []Cert, l farm.Limits, before, every func(Cert) time.Duration) (all []string) {
	total := load{before: before, every: every, certs: make([]Cert, 0, len(certs))}
	domains, daily := make([][]string, len(certs)), map[string]float64{} // of each certificate; orders by domain
	for i, c := range certs {
		took := total.add(c)
		if l.Domain.Count == 0 {
			continue
		}
		domains[i] = Domains(c.Names)
		for _, d := range domains[i] {
			daily[d] += took
		}
	}
	exempt := l.Exempt == farm.ExemptARI
	if text := total.over(l.Orders, exempt); text != "" {
		all = append(all, text)
	}
	if len(daily) == 0 {
		return all
	}
	most := slices.MinFunc(slices.Collect(maps.Keys(daily)), func(a, b string) int {
		return cmp.Or(cmp.Compare(daily[b], daily[a]), cmp.Compare(a, b))
	})
	under := load{before: before, every: every}
	for i, c := range certs {
		if slices.Contains(domains[i], most) {
			under.add(c)
		}
	}
	if text := under.over(l.Domain, exempt); text != "" {
		all = append(all, "domain "+most+": "+text)
	}
	return all
}

// A load is what certificates take of one limit.
type load struct {
	before, every func(Cert) time.Duration
	certs         []Cert
	daily         float64 // orders, for renewals alone
}

// add adds a certificate, and says how many orders a day it takes.
func (n *load) add(c Cert) float64 {
	took := float64(max(c.Orders, 1)) / days(n.every(c))
	n.certs, n.daily = append(n.certs, c), n.daily+took
	return took
}

// over says why a limit does not carry the load; empty: it does. In the long run
// renewals must fit into it, unless the CA does not count them. And where all are to be
// had anew, as after a long outage, the most urgent first, each must come to its turn in
// the time that it has: then most are too late for the exemption (RFC 9773 §4.2), too.
func (n *load) over(r farm.Rate, exempt bool) string {
	if r.Count == 0 {
		return ""
	}
	have := float64(r.Count) / days(r.Per)
	if !exempt && n.daily > have {
		return fmt.Sprintf("%d certificates need %.0f orders a day, one each %s, and the CA allows %.0f (%s): in the long run %.0f %% of them expire before their turn",
			len(n.certs), n.daily, inDays(n.shortest(n.every)), have, r, 100*(1-have/n.daily))
	}
	byHaste := slices.Clone(n.certs)
	slices.SortStableFunc(byHaste, func(a, b Cert) int { return cmp.Compare(n.before(a), n.before(b)) })
	orders := 0
	for i, c := range byHaste {
		orders += max(c.Orders, 1)
		takes := time.Duration(float64(orders-r.Count) / have * 24 * float64(time.Hour))
		if orders > r.Count && takes > n.before(c) {
			return n.late(byHaste, i, r)
		}
	}
	return ""
}

// late tells of the whole from what is too late first.
func (n *load) late(byHaste []Cert, first int, r farm.Rate) string {
	life, alike, orders := byHaste[first].Life, 0, 0
	for _, c := range byHaste {
		if c.Life <= life {
			alike++
			orders += max(c.Orders, 1)
		}
	}
	takes := float64(orders-r.Count) / float64(r.Count) * days(r.Per)
	return fmt.Sprintf("%d certificates live %s or less, and to get them all anew takes %.3gd (%d orders, %s), but they end %s after they are due: after an outage in which all come due, some expire before their turn",
		alike, inDays(life), takes, orders, r, inDays(n.before(byHaste[first])))
}

func (n *load) shortest(of func(Cert) time.Duration) time.Duration {
	return of(slices.MinFunc(n.certs, func(a, b Cert) int { return cmp.Compare(of(a), of(b)) }))
}
