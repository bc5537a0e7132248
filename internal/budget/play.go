package budget

import (
	"cmp"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// sleeper is a cert with what is known of it on the way.
type sleeper struct {
	Cert
	request Request
	desks   []*desk
	from    *desk         // that gave what it has, or would have
	life    time.Duration // of what it has; 0: it has nothing
	home    *desk         // that it was to have come from and waits for; nil: it does not wait
	since   time.Time     // when it began to wait
	turn    int           // how often it was lined up anew: where it stood before, it stands no more
}

// left is the share of its life that it has left, as for those that really wait.
func (s *sleeper) left(now time.Time) float64 {
	return Left(farm.Turn{NotBefore: s.NotAfter.Add(-s.life), NotAfter: s.NotAfter}, now)
}

// A happening is what is done at a time: a certificate becomes due, the issuer that it
// waits for is chosen again, or a bucket holds one more.
type happening struct {
	at     time.Time
	due    *sleeper // nil: a bucket
	turn   int      // of due, where the issuer is chosen again; 0: it becomes due
	desk   *desk    // whose bucket
	domain string   // empty: that of orders
}

// A simulation plays a scenario.
type simulation struct {
	Scenario
	end   time.Time
	next  heap[happening]
	all   []*sleeper
	desks []*desk
}

// Simulate plays a scenario as the controller would act: the least life left first,
// as soon as the limits allow. It returns what is to come at each of the issuers.
func Simulate(s Scenario) (all []Forecast) {
	m := &simulation{
		Scenario: s, end: s.Start.Add(time.Duration(s.Days) * 24 * time.Hour),
		next: heap[happening]{less: func(a, b happening) bool { return a.at.Before(b.at) }},
	}
	m.open()
	for _, c := range s.Certs {
		m.sleep(m.enter(c))
	}
	m.play()
	m.finish()
	for _, d := range m.desks {
		all = append(all, d.out)
	}
	return all
}

// open makes a desk of each issuer.
func (m *simulation) open() {
	ofCA := map[string]map[string]time.Time{}
	for _, i := range m.Issuers {
		d := newDesk(m, i)
		if shared, known := ofCA[i.CA]; known && i.CA != "" {
			d.Ledger.Domains = shared
		}
		ofCA[i.CA] = d.Ledger.Domains
		m.desks = append(m.desks, d)
	}
}

// enter takes a certificate in.
func (m *simulation) enter(c Cert) *sleeper {
	one := &sleeper{Cert: c, request: Request{Orders: c.Orders, domains: Domains(c.Names)}}
	if c.Shared {
		one.request.domains = append(one.request.domains, BucketOf(c.Names))
	}
	for _, name := range c.Issuers {
		one.desks = append(one.desks, m.desk(name))
	}
	if len(one.desks) == 0 {
		one.desks = m.desks[:1]
	}
	one.from = one.desks[0]
	if c.Had != "" {
		one.from = m.desk(c.Had)
	}
	if !c.NotAfter.IsZero() {
		one.life = c.Life
	}
	m.all = append(m.all, one)
	return one
}

// desk is the desk of an issuer; nil: there is no such issuer any more.
func (m *simulation) desk(name string) *desk {
	if at := slices.IndexFunc(m.desks, func(d *desk) bool { return d.Name == name }); at >= 0 {
		return m.desks[at]
	}
	return nil
}

// sleep has a certificate wait until it is due.
func (m *simulation) sleep(one *sleeper) {
	at := one.Due
	if at.Before(m.Start) {
		at = m.Start
	}
	if at.Before(m.end) {
		m.next.push(happening{at: at, due: one})
	}
}

// play has all happen, in the order of time. What happens at once is granted together:
// after a pause all that wait are due at one moment.
func (m *simulation) play() {
	day, resumes := 0, m.Start.Add(m.Pause)
	for m.next.len() > 0 {
		now := m.next.items[0].at
		for day < m.Days && !now.Before(m.Start.Add(time.Duration(day+1)*24*time.Hour)) {
			m.endDay(day)
			day++
		}
		if !now.Before(m.end) {
			break
		}
		var domains []happening
		for m.next.len() > 0 && m.next.items[0].at.Equal(now) {
			h := m.next.pop()
			if now.Before(resumes) {
				m.await(h.due)
				m.next.push(happening{at: resumes, due: h.due})
				continue
			}
			if m.happen(h); h.domain != "" {
				domains = append(domains, h)
			}
		}
		m.grant(now)
		for _, h := range domains {
			h.desk.call(h.domain, now)
		}
	}
	for ; day < m.Days; day++ {
		m.endDay(day)
	}
}

func (m *simulation) endDay(day int) {
	for _, d := range m.desks {
		d.out.Days[day].Waiting = d.waiting
	}
}

// await notes that a certificate waits.
func (m *simulation) await(one *sleeper) {
	if one.home != nil {
		return
	}
	if one.since = one.Due; one.since.Before(m.Start) {
		one.since = m.Start
	}
	one.home = one.desks[0]
	one.home.waiting++
}

// happen does one thing, and marks the desks that may have something to grant then.
func (m *simulation) happen(h happening) {
	switch {
	case h.due != nil && h.turn == 0:
		m.await(h.due)
		if h.due.Since.IsZero() {
			h.due.Since = h.at
		}
		m.line(h.due, h.at)
	case h.due != nil && h.turn == h.due.turn:
		m.line(h.due, h.at)
	case h.due != nil: // it has been ordered since
	case h.domain != "":
		h.desk.unpark(h.domain)
		h.desk.looks = first
	default:
		h.desk.wakes = false
		h.desk.looks = first
	}
}

// line has a certificate wait at the desk of its issuer. One with several issuers waits
// where it is chosen to, which may be at more than one.
func (m *simulation) line(one *sleeper, now time.Time) {
	one.turn++
	if len(one.desks) == 1 {
		one.desks[0].line(newWaiter(one))
		one.desks[0].looks = first
		return
	}
	offers := make([]Offer, 0, len(one.desks))
	for _, d := range one.desks {
		offers = append(offers, d.offer(one, now))
	}
	w := Waiting{Site: one.Site, Since: one.Since}
	if one.life > 0 {
		w.NotBefore, w.NotAfter = one.NotAfter.Add(-one.life), one.NotAfter
	}
	names, again := m.Choose(w, offers, now)
	for i, name := range names {
		d := m.desk(name)
		d.line(newWaiter(one))
		if i == 0 {
			d.looks = first
		} else if d.looks == not {
			d.looks = second
		}
	}
	if again.After(now) {
		m.next.push(happening{at: again, due: one, turn: one.turn})
	}
}

// grant has the desks order that may: those first that certificates prefer.
func (m *simulation) grant(now time.Time) {
	for _, turn := range []looks{first, second} {
		for _, d := range m.desks {
			if d.looks == turn {
				d.looks = not
				d.grant(now)
			}
		}
	}
}

// order gets the next certificate.
func (m *simulation) order(d *desk, one *sleeper, now time.Time, counts bool) {
	d.count(one, now, counts)
	m.waited(one, now)
	m.lapsed(one, now)
	given := one.Life
	if d != one.from {
		given = cmp.Or(d.Life, one.Life)
	}
	one.home.waiting--
	one.home, one.Since = nil, time.Time{}
	one.turn++
	one.from, one.Life, one.life = d, given, cmp.Or(m.Life, given)
	one.NotAfter = now.Add(one.life)
	if one.Due = one.NotAfter.Add(-m.Before(one.Site, one.life)); one.Due.After(now) {
		m.sleep(one)
	}
}

// patience is how long a wait is none.
const patience = 10 * time.Minute

func (m *simulation) waited(one *sleeper, until time.Time) {
	took := until.Sub(one.since)
	if took <= patience {
		return
	}
	out := &one.home.out
	out.Waited++
	out.Drained = until
	if l := out.Longest; l.Site == "" || took > l.Until.Sub(l.From) {
		out.Longest = Delay{one.Site, one.since, until}
	}
}

// lapsed notes a certificate that expires before it is renewed.
func (m *simulation) lapsed(one *sleeper, renewed time.Time) {
	if at := one.NotAfter; one.life > 0 && at.Before(renewed) && !at.Before(m.Start) {
		out := &one.home.out
		out.Lapses = append(out.Lapses, Lapse{one.Site, at})
		out.Days[int(at.Sub(m.Start)/(24*time.Hour))].Expired++
	}
}

// finish notes those that wait to the end.
func (m *simulation) finish() {
	slices.SortStableFunc(m.all, func(a, b *sleeper) int { return cmp.Compare(a.Site, b.Site) })
	for _, one := range m.all {
		if one.home == nil {
			continue
		}
		m.waited(one, m.end)
		m.lapsed(one, m.end)
		if l := &one.home.out.Longest; l.Site == one.Site && l.From.Equal(one.since) {
			l.Until = time.Time{}
		}
	}
	for _, d := range m.desks {
		if d.waiting > 0 {
			d.out.Drained = time.Time{}
		}
		slices.SortStableFunc(d.out.Lapses, func(a, b Lapse) int { return a.At.Compare(b.At) })
		slices.SortFunc(d.out.StandsIn, func(a, b StandIn) int { return cmp.Compare(a.Site, b.Site) })
	}
}
