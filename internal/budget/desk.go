package budget

import (
	"cmp"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A desk is an issuer of a simulation, with those that wait for its limits. Those that
// are ready stand in a heap for each lifetime: within one, who ends first has the least
// left at any time.
type desk struct {
	Issuer
	sim     *simulation
	ready   map[time.Duration]*heap[waiter]
	parked  map[string]*heap[waiter] // by the domain that they wait for
	called  map[string]bool          // domains of which the first that waits will be called
	wakes   bool                     // a wake for the bucket of orders is planned
	looks   looks
	waiting int            // certificates whose home it is
	stands  map[string]int // where in out.StandsIn a site is
	out     Forecast
}

// looks is when a desk grants what it can, of what happens at a time.
type looks int

const (
	not looks = iota
	first
	second
)

// A waiter is a certificate where it stands in line. It may stand at several desks.
type waiter struct {
	*sleeper
	at          int       // the turn of the certificate at which it was put there
	ends, since time.Time // as they were then: what a heap is sorted by must stay as it is
	called      bool      // the bucket that it was parked for holds one more
}

func newWaiter(one *sleeper) waiter {
	return waiter{sleeper: one, at: one.turn, ends: one.NotAfter, since: one.since}
}

// gone reports that the certificate stands there no more.
func (w waiter) gone() bool { return w.at != w.turn }

func newDesk(m *simulation, i Issuer) *desk {
	d := &desk{
		Issuer: i, sim: m, ready: map[time.Duration]*heap[waiter]{}, parked: map[string]*heap[waiter]{},
		called: map[string]bool{}, stands: map[string]int{},
	}
	d.Ledger = i.Ledger.clone()
	for n := range m.Days {
		d.out.Days = append(d.out.Days, Day{Begins: m.Start.Add(time.Duration(n) * 24 * time.Hour)})
	}
	return d
}

// newLine is a heap in which those are first that have the least life left; of first
// certificates, those that wait longest.
func newLine(first bool) *heap[waiter] {
	return &heap[waiter]{less: func(a, b waiter) bool {
		if c := a.ends.Compare(b.ends); c != 0 && !first {
			return c < 0
		}
		return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.Site, b.Site)) < 0
	}}
}

// waits reports that somebody stands in a line, and takes out those in front that stand
// there no more.
func waits(h *heap[waiter]) bool {
	for h != nil && h.len() > 0 && h.items[0].gone() {
		h.pop()
	}
	return h != nil && h.len() > 0
}

// offer is what the desk says to a certificate.
func (d *desk) offer(one *sleeper, now time.Time) Offer {
	o := Offer{Issuer: d.Name}
	switch {
	case d.Hold.After(now):
		o.Why, o.Until = "keeps the account waiting", d.Hold
		return o
	case d.exempts(one, now):
		return o
	}
	if a := d.Ledger.Grants(one.request, now); !a.OK {
		o.Why, o.Until = a.Why, a.Again
	}
	return o
}

// exempts reports that the CA does not count a renewal: it does not in the first fiftieth
// of the certificate's life after it is due, which is about the window that CAs suggest.
func (d *desk) exempts(one *sleeper, now time.Time) bool {
	return d.Ledger.Limits.Exempt == farm.ExemptARI && one.life > 0 && one.from == d && !now.After(one.Due.Add(one.life/50))
}

// line has a certificate wait for the limits.
func (d *desk) line(w waiter) {
	h := d.ready[w.life]
	if h == nil {
		h = newLine(w.life == 0)
		d.ready[w.life] = h
	}
	h.push(w)
}

// pick takes the one with the least life left of all that are ready.
func (d *desk) pick(now time.Time) (w waiter, some bool) {
	var best *heap[waiter]
	var least float64
	for _, h := range d.ready {
		if !waits(h) {
			continue
		}
		if l := h.items[0].left(now); best == nil || l < least {
			best, least = h, l
		}
	}
	if best == nil {
		return w, false
	}
	return best.pop(), true
}

// grant orders as many as the limits allow.
func (d *desk) grant(now time.Time) {
	if d.Hold.After(now) {
		d.wake(d.Hold)
		return
	}
	for w, some := d.pick(now); some; w, some = d.pick(now) {
		if d.exempts(w.sleeper, now) {
			d.sim.order(d, w.sleeper, now, false)
			continue
		}
		if domain := d.blocked(w); domain != "" {
			d.park(w, domain)
			continue
		}
		switch at, domain := d.Ledger.when(w.request); {
		case !at.After(now):
			d.sim.order(d, w.sleeper, now, true)
		case domain == "":
			d.line(w)
			d.wake(at)
			return
		default:
			d.park(w, domain)
			d.call(domain, now)
		}
	}
}

// wake plans to look again when the bucket of orders holds one more.
func (d *desk) wake(at time.Time) {
	if !d.wakes {
		d.wakes = true
		d.sim.next.push(happening{at: at, desk: d})
	}
}

// blocked is a domain of a certificate for whose bucket others wait already.
func (d *desk) blocked(w waiter) string {
	if w.called {
		return ""
	}
	for _, domain := range w.request.domains {
		if waits(d.parked[domain]) {
			return domain
		}
	}
	return ""
}

// park lets a certificate wait for a domain's bucket, out of the way of others.
func (d *desk) park(w waiter, domain string) {
	w.called = false
	if d.parked[domain] == nil {
		d.parked[domain] = newLine(false)
	}
	d.parked[domain].push(w)
}

// call plans when the first of those that wait for a domain's bucket is called.
func (d *desk) call(domain string, now time.Time) {
	h := d.parked[domain]
	if !waits(h) || d.called[domain] {
		return
	}
	d.called[domain] = true
	at := free(d.Ledger.rate(domain), d.Ledger.Domains[domain], max(h.items[0].Orders, 1), false)
	if !at.After(now) {
		at = now.Add(time.Second)
	}
	d.sim.next.push(happening{at: at, desk: d, domain: domain})
}

// unpark calls the first of those that wait for a domain's bucket.
func (d *desk) unpark(domain string) {
	d.called[domain] = false
	if h := d.parked[domain]; waits(h) {
		w := h.pop()
		w.called = true
		d.line(w)
	}
}

// count notes an order, and takes it out of the buckets if the CA counts it.
func (d *desk) count(one *sleeper, now time.Time, counts bool) {
	day := &d.out.Days[int(now.Sub(d.sim.Start)/(24*time.Hour))]
	n := max(one.Orders, 1)
	day.Orders, d.out.Orders = day.Orders+n, d.out.Orders+n
	if d != one.desks[0] {
		d.standIn(one, n, now)
	}
	if !counts {
		return
	}
	d.Ledger.take(one.request, now)
	day.Used = max(day.Used, Used(d.Ledger.Limits.Orders, d.Ledger.Orders, now))
	for _, domain := range one.request.domains {
		if u := Used(d.Ledger.rate(domain), d.Ledger.Domains[domain], now); u > day.DomainUsed {
			day.Domain, day.DomainUsed = domain, u
		}
	}
}

// standIn notes orders that the desk takes in place of a certificate's first issuer.
func (d *desk) standIn(one *sleeper, orders int, now time.Time) {
	at, known := d.stands[one.Site]
	if !known {
		at = len(d.out.StandsIn)
		d.stands[one.Site] = at
		d.out.StandsIn = append(d.out.StandsIn, StandIn{Site: one.Site, For: one.desks[0].Name, From: now})
	}
	d.out.StandsIn[at].Orders += orders
}
