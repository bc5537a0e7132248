package budget

import (
	"cmp"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Cert is a certificate of which a forecast is made.
type Cert struct {
	Site     string
	Names    []string
	Orders   int           // one for each key type; 0 stands for 1
	NotAfter time.Time     // of what it has; zero: nothing
	Due      time.Time     // when it is ordered next
	Life     time.Duration // of what it gets
	// Exempt says that the CA does not count its renewals in the first fiftieth of
	// its life after they are due: about the window that CAs suggest.
	Exempt bool
	// Shared says that other certificates are for exactly the same names, and share what
	// the CA allows for these.
	Shared bool
}

// A Scenario is what a forecast is made of.
type Scenario struct {
	Certs  []Cert
	Ledger Ledger // what the buckets hold at Start
	Start  time.Time
	Days   int
	Pause  time.Duration // nothing is ordered so long from Start
	Life   time.Duration // of all that is ordered; 0: each its own
	// Before is how long before its end a site's certificate becomes due.
	Before func(site string, life time.Duration) time.Duration
}

// A Day of a forecast.
type Day struct {
	Begins     time.Time `json:"begins"`
	Orders     int       `json:"orders"`
	Used       float64   `json:"used" doc:"most that was ever gone of the limit on new orders, from 0 to 1"`
	Domain     string    `json:"domain,omitempty" doc:"the domain, or the set of names that nodes share, that came nearest to its limit"`
	DomainUsed float64   `json:"domain_used" doc:"most that was ever gone of that domain's limit"`
	Waiting    int       `json:"waiting" doc:"certificates that are due and wait for the limits at the end of the day"`
	Expired    int       `json:"expired" doc:"certificates that expire before they are renewed"`
}

// A Delay is a certificate that waits for the limits.
type Delay struct {
	Site  string    `json:"site"`
	From  time.Time `json:"from"`
	Until time.Time `json:"until,omitzero" doc:"not set: it still waits when the forecast ends"`
}

// A Lapse is a certificate that expires before it is renewed.
type Lapse struct {
	Site string    `json:"site"`
	At   time.Time `json:"at"`
}

// A Forecast is what comes of a scenario.
type Forecast struct {
	Days    []Day     `json:"days"`
	Orders  int       `json:"orders"`
	Waited  int       `json:"waited" doc:"times that a certificate waited longer than ten minutes"`
	Longest Delay     `json:"longest,omitzero" doc:"the longest wait"`
	Drained time.Time `json:"drained,omitzero" doc:"when nobody waits any more; not set: nobody waited, or somebody does at the end"`
	Lapses  []Lapse   `json:"lapses,omitempty" doc:"by time"`
}

// sleeper is a cert with what is known of it on the way.
type sleeper struct {
	Cert
	request Request
	life    time.Duration // of what it has; 0: it has nothing
	since   time.Time     // when it began to wait
	called  bool          // the bucket that it was parked for holds one more
}

// left is the share of its life that it has left, as for those that really wait.
func (s *sleeper) left(now time.Time) float64 {
	return Left(farm.Turn{NotBefore: s.NotAfter.Add(-s.life), NotAfter: s.NotAfter}, now)
}

// A happening is what is done at a time: a certificate becomes due, or a bucket holds
// one more.
type happening struct {
	at     time.Time
	due    *sleeper // nil: a bucket
	domain string   // whose bucket; empty: that of orders
}

// A simulation plays a scenario. Those that are ready stand in a heap for each
// lifetime: within one, who ends first has the least left at any time.
type simulation struct {
	Scenario
	end    time.Time
	next   heap[happening]
	ready  map[time.Duration]*heap[*sleeper]
	parked map[string]*heap[*sleeper] // by the domain that they wait for
	out    Forecast
	called map[string]bool // domains of which the first that waits will be called
	wakes  bool            // a wake for the bucket of orders is planned
}

// Simulate plays a scenario as the controller would act: the least life left first,
// as soon as the limits allow.
func Simulate(s Scenario) Forecast {
	m := &simulation{
		Scenario: s, end: s.Start.Add(time.Duration(s.Days) * 24 * time.Hour),
		next:  heap[happening]{less: func(a, b happening) bool { return a.at.Before(b.at) }},
		ready: map[time.Duration]*heap[*sleeper]{}, parked: map[string]*heap[*sleeper]{}, called: map[string]bool{},
	}
	m.Ledger = s.Ledger.clone()
	for d := range s.Days {
		m.out.Days = append(m.out.Days, Day{Begins: s.Start.Add(time.Duration(d) * 24 * time.Hour)})
	}
	for _, c := range s.Certs {
		one := &sleeper{Cert: c, request: Request{Orders: c.Orders, domains: Domains(c.Names)}}
		if c.Shared {
			one.request.domains = append(one.request.domains, BucketOf(c.Names))
		}
		if !c.NotAfter.IsZero() {
			one.life = c.Life
		}
		m.sleep(one)
	}
	m.play()
	return m.finish()
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

func (m *simulation) play() {
	day := 0
	for m.next.len() > 0 {
		h := m.next.pop()
		for day < len(m.out.Days) && !h.at.Before(m.out.Days[day].Begins.Add(24*time.Hour)) {
			m.out.Days[day].Waiting = m.waiting()
			day++
		}
		if !h.at.Before(m.end) {
			break
		}
		switch resumes := m.Start.Add(m.Pause); {
		case h.at.Before(resumes):
			if h.due != nil {
				m.line(h.due, h.due.Due)
			}
			m.wake(resumes)
			continue
		case h.due != nil:
			m.line(h.due, h.at)
		case h.domain != "":
			m.unpark(h.domain)
		default:
			m.wakes = false
		}
		m.grant(h.at)
		m.call(h.domain, h.at)
	}
	for ; day < len(m.out.Days); day++ {
		m.out.Days[day].Waiting = m.waiting()
	}
}

// wake plans to look again when the bucket of orders holds one more.
func (m *simulation) wake(at time.Time) {
	if !m.wakes {
		m.wakes = true
		m.next.push(happening{at: at})
	}
}

// line has a certificate wait for the limits.
func (m *simulation) line(one *sleeper, since time.Time) {
	if one.since.IsZero() {
		if one.since = since; since.Before(m.Start) {
			one.since = m.Start
		}
	}
	h := m.ready[one.life]
	if h == nil {
		h = newLine(one.life == 0)
		m.ready[one.life] = h
	}
	h.push(one)
}

// newLine is a heap in which those are first that have the least life left; of first
// certificates, those that wait longest.
func newLine(first bool) *heap[*sleeper] {
	return &heap[*sleeper]{less: func(a, b *sleeper) bool {
		if c := a.NotAfter.Compare(b.NotAfter); c != 0 && !first {
			return c < 0
		}
		return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.Site, b.Site)) < 0
	}}
}

// pick takes the one with the least life left of all that are ready.
func (m *simulation) pick(now time.Time) *sleeper {
	var best *heap[*sleeper]
	var least float64
	for _, h := range m.ready {
		if h.len() == 0 {
			continue
		}
		if l := h.items[0].left(now); best == nil || l < least {
			best, least = h, l
		}
	}
	if best == nil {
		return nil
	}
	return best.pop()
}

// grant orders as many as the limits allow.
func (m *simulation) grant(now time.Time) {
	for one := m.pick(now); one != nil; one = m.pick(now) {
		if one.Exempt && one.life > 0 && !now.After(one.Due.Add(one.life/50)) {
			m.order(one, now, false)
			continue
		}
		if d := m.blocked(one); d != "" {
			m.park(one, d)
			continue
		}
		switch at, domain := m.Ledger.when(one.request); {
		case !at.After(now):
			m.order(one, now, true)
		case domain == "":
			m.line(one, now)
			m.wake(at)
			return
		default:
			m.park(one, domain)
			m.call(domain, now)
		}
	}
}

// blocked is a domain of a certificate for whose bucket others wait already.
func (m *simulation) blocked(one *sleeper) string {
	for _, d := range one.request.domains {
		if h := m.parked[d]; h != nil && h.len() > 0 && !one.called {
			return d
		}
	}
	return ""
}

// park lets a certificate wait for a domain's bucket, out of the way of others.
func (m *simulation) park(one *sleeper, domain string) {
	one.called = false
	if m.parked[domain] == nil {
		m.parked[domain] = newLine(false)
	}
	m.parked[domain].push(one)
}

// call plans when the first of those that wait for a domain's bucket is called.
func (m *simulation) call(domain string, now time.Time) {
	h := m.parked[domain]
	if h == nil || h.len() == 0 || m.called[domain] {
		return
	}
	m.called[domain] = true
	at := free(m.Ledger.rate(domain), m.Ledger.Domains[domain], max(h.items[0].Orders, 1), false)
	if !at.After(now) {
		at = now.Add(time.Second)
	}
	m.next.push(happening{at: at, domain: domain})
}

// unpark calls the first of those that wait for a domain's bucket.
func (m *simulation) unpark(domain string) {
	m.called[domain] = false
	if h := m.parked[domain]; h.len() > 0 {
		first := h.pop()
		first.called = true
		m.line(first, first.since)
	}
}

// order gets the next certificate.
func (m *simulation) order(one *sleeper, now time.Time, counts bool) {
	day := &m.out.Days[int(now.Sub(m.Start)/(24*time.Hour))]
	n := max(one.Orders, 1)
	day.Orders, m.out.Orders = day.Orders+n, m.out.Orders+n
	if counts {
		m.Ledger.take(one.request, now)
		day.Used = max(day.Used, Used(m.Ledger.Limits.Orders, m.Ledger.Orders, now))
		for _, d := range one.request.domains {
			if u := Used(m.Ledger.rate(d), m.Ledger.Domains[d], now); u > day.DomainUsed {
				day.Domain, day.DomainUsed = d, u
			}
		}
	}
	m.waited(one, now)
	m.lapsed(one, now)
	one.life, one.since, one.called = cmp.Or(m.Life, one.Cert.Life), time.Time{}, false
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
	m.out.Waited++
	m.out.Drained = until
	if l := m.out.Longest; l.Site == "" || took > l.Until.Sub(l.From) {
		m.out.Longest = Delay{one.Site, one.since, until}
	}
}

// lapsed notes a certificate that expires before it is renewed.
func (m *simulation) lapsed(one *sleeper, renewed time.Time) {
	if at := one.NotAfter; one.life > 0 && at.Before(renewed) && !at.Before(m.Start) {
		m.out.Lapses = append(m.out.Lapses, Lapse{one.Site, at})
		m.out.Days[int(at.Sub(m.Start)/(24*time.Hour))].Expired++
	}
}

func (m *simulation) waiting() (n int) {
	for _, h := range m.ready {
		n += h.len()
	}
	for _, h := range m.parked {
		n += h.len()
	}
	return n
}

// finish notes those that wait to the end.
func (m *simulation) finish() Forecast {
	rest := m.waiting()
	all := make([]*sleeper, 0, rest)
	for _, h := range m.ready {
		all = append(all, h.items...)
	}
	for _, h := range m.parked {
		all = append(all, h.items...)
	}
	slices.SortFunc(all, func(a, b *sleeper) int { return cmp.Compare(a.Site, b.Site) })
	for _, one := range all {
		m.waited(one, m.end)
		m.lapsed(one, m.end)
		if m.out.Longest.Site == one.Site && m.out.Longest.From.Equal(one.since) {
			m.out.Longest.Until = time.Time{}
		}
	}
	if rest > 0 {
		m.out.Drained = time.Time{}
	}
	slices.SortStableFunc(m.out.Lapses, func(a, b Lapse) int { return a.At.Compare(b.At) })
	return m.out
}
