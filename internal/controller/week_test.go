package controller

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/budget"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/boulder"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/renew"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// A week is a farm of 45-day certificates whose controller was off for so long, its
// CA, which keeps to Let's Encrypt's limits and exempts nothing, and the clock of all.
type week struct {
	*Controller
	t     *testing.T
	ca    *boulder.CA
	limit farm.Rate
	certs []budget.Cert // by when they are due
	late  int           // of certs, those that became due in the week
	begin time.Time     // when the controller is back

	mu  sync.Mutex
	now time.Time
}

const (
	// A limit that is smaller has nothing left for what is in flight between us and
	// the CA (a twentieth), and then the CA may have to refuse.
	leastLimit = 20

	weekLife = 45 * 24 * time.Hour
	weekOff  = 7 * 24 * time.Hour
)

func (w *week) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// newWeek has those of n certificates, due evenly over 30 days, that are due by the day
// after the controller is back: the others would only be looked at. The limit on orders
// is as much smaller than Let's Encrypt's as n is than 10,000.
func newWeek(t *testing.T, n int) *week {
	t.Helper()
	w := &week{t: t, begin: time.Now().Truncate(time.Second), limit: farm.Rate{Count: max(leastLimit, 300*n/10000), Per: 3 * time.Hour}}
	w.now = w.begin
	names := map[string][]netip.Addr{}
	for i := range n {
		site := fmt.Sprintf("s%05d", i)
		due := w.begin.Add(-weekOff + 30*24*time.Hour/time.Duration(n)*time.Duration(i))
		if due.After(w.begin.Add(26 * time.Hour)) {
			break
		}
		w.certs = append(w.certs, budget.Cert{Site: site, Names: []string{site + ".test"}, Life: weekLife, Due: due, NotAfter: due.Add(renew.Before(site, weekLife))})
		names[site+".test"] = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		if !due.After(w.begin) {
			w.late++
		}
	}
	limits := boulder.LetsEncryptLimits()
	limits.Orders.Burst = w.limit.Count
	w.fill(w.open(names, limits))
	return w
}

// open starts the CA and the controller, which answers for the names. It returns the
// address of the names' DNS server.
func (w *week) open(names map[string][]netip.Addr, limits boulder.Limits) (resolver string) {
	t := w.t
	t.Helper()
	front, err := net.Listen("tcp", "127.0.0.1:0")
	mustWeek(t, err)
	port := front.Addr().(*net.TCPAddr).Port
	dns, err := issuetest.StartDNS(names)
	mustWeek(t, err)
	t.Cleanup(func() { mustWeek(t, dns.Close()) })
	w.ca, err = boulder.Start(boulder.Options{DNS: dns.Address, HTTPPort: port, Now: w.clock, Limits: limits, Default: "tlsserver"})
	mustWeek(t, err)
	t.Cleanup(func() { mustWeek(t, w.ca.Close()) })
	s := storetest.SQLite(t, store.Options{Now: w.clock})
	c, lines := Real(s, secret.Fresh(), nil)
	t.Cleanup(func() { mustWeek(t, lines.Close()) })
	c.Now, c.CAPort = w.clock, port
	w.Controller = New(c)
	server := &http.Server{Handler: w.ChallengeHandler(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(front) }() // ends with Close
	t.Cleanup(func() { mustWeek(t, server.Close()) })
	return dns.Address
}

func mustWeek(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fill writes the farm as the controller left it a week ago.
func (w *week) fill(resolver string) {
	w.t.Helper()
	f := farm.Farm{Name: "shop", Resolvers: map[string][]string{".": {resolver}}, Issuers: []farm.Issuer{{
		Name: "ca", Directory: w.ca.Directory, Roots: w.ca.ListenRoots + w.ca.Roots,
		Limits: &farm.Limits{Orders: w.limit, Domain: farm.Rate{Count: 50, Per: weekOff}, Names: farm.Rate{Count: 5, Per: weekOff}, Failures: farm.Rate{Count: 5, Per: time.Hour}, Exempt: farm.ExemptNone},
	}}}
	for _, c := range w.certs {
		f.Sites = append(f.Sites, farm.Site{
			Name: c.Site, Names: c.Names, Issuer: "ca", KeyTypes: []farm.KeyType{farm.EC256}, Strategy: farm.Central,
			Validations: []farm.Validation{{Method: farm.HTTP01, Via: farm.Gateway}},
		})
	}
	ctx := w.t.Context()
	mustWeek(w.t, w.Store.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.SaveFarm(ctx, f, []byte("farm: shop\n"), "test", 0)
		return err
	}))
	mustWeek(w.t, w.Store.Update(ctx, func(tx *store.Tx) error {
		for _, c := range w.certs {
			v := farm.Version{ID: "v-" + c.Site, Farm: f.Name, Site: c.Site, Names: c.Names, Issuer: "ca", Leaves: []farm.Leaf{{
				Fingerprint: farm.Fingerprint([]byte(c.Site)), KeyType: farm.EC256, NotBefore: c.NotAfter.Add(-weekLife), NotAfter: c.NotAfter, Key: farm.KeyRef{Sealed: "k"},
			}}}
			if err := tx.PutVersion(ctx, v); err != nil {
				return err
			}
			cert := farm.Certificate{Farm: f.Name, Site: c.Site, Version: v.ID, ARI: farm.Suggestion{Leaf: v.Leaves[0].Fingerprint, Ask: w.begin.Add(weekOff)}}
			if err := tx.PutCertificate(ctx, cert); err != nil {
				return err
			}
			if err := arm(ctx, tx, f.Name, "check", c.Site, c.Due); err != nil {
				return err
			}
		}
		return nil
	}))
}

// pass has the clock go on to a time, by a moment at least.
func (w *week) pass(to time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.now = w.now.Add(time.Millisecond); to.After(w.now) {
		w.now = to
	}
}

// step does what is due, or else has the clock go on to what is due next.
func (w *week) step(ctx context.Context) error {
	jobs, next, err := w.Store.Claim(ctx, "test", 64, time.Hour)
	if len(jobs) == 0 || err != nil {
		w.pass(next)
		return err
	}
	w.pass(w.begin)
	done := make([]farm.Finished, len(jobs))
	var all sync.WaitGroup
	for i, j := range jobs {
		done[i].Job = j
		if work := w.kinds[j.Kind].work; work != nil {
			all.Go(func() { done[i].Result = work(ctx, j) })
		}
	}
	all.Wait()
	for i, err := range w.Store.Finish(ctx, "test", done, w.apply) {
		if err != nil {
			return fmt.Errorf("%s %s: %w", jobs[i].Kind, jobs[i].Subject, err)
		}
	}
	return nil
}

// waiting is how many certificates are due and have no new one yet.
func (w *week) waiting(ctx context.Context) (n int, err error) {
	err = w.Store.View(ctx, func(tx *store.Tx) error {
		all, err := tx.Certificates(ctx, "shop", "", 0)
		for _, c := range all {
			if !c.Due.IsZero() {
				n++
			}
		}
		return err
	})
	return n, err
}

// After a week off, those certificates that fell behind are ordered within the limits
// of the CA, which never has to refuse: the most urgent first, none too late, and all
// done when the forecast says. `make soak` has ten thousand of them; each run of the tests
// has a few, and a limit on orders that is so small that they wait.
func TestAWeekOffOfAWholeController(t *testing.T) {
	t.Parallel()
	n := 300
	if os.Getenv("CERTFARM_SOAK") != "" {
		n = 10000
	}
	w := newWeek(t, n)
	ctx := t.Context()
	for passed := time.Duration(0); ; {
		mustWeek(t, w.step(ctx))
		since := w.clock().Sub(w.begin)
		if since < passed+10*time.Minute {
			continue
		}
		passed = since
		left, err := w.waiting(ctx)
		mustWeek(t, err)
		if left == 0 {
			break
		}
		if since > 30*time.Hour {
			t.Fatalf("after %s, %d still wait", since, left)
		}
	}
	w.check(ctx)
}

// check holds what was ordered against what must be true.
func (w *week) check(ctx context.Context) {
	w.t.Helper()
	t := w.t
	forecast := budget.Simulate(budget.Scenario{
		Certs: w.certs, Issuers: []budget.Issuer{{Ledger: budget.Ledger{Limits: farm.Limits{Orders: w.limit}}}}, Start: w.begin, Days: 3, Before: renew.Before,
	})[0]
	took, want := w.clock().Sub(w.begin), forecast.Drained.Sub(w.begin)
	if d := took - want; d.Abs() > time.Hour {
		t.Errorf("drained after %s, the forecast says %s", took, want)
	}
	ends := map[string]time.Time{}
	for _, c := range w.certs {
		ends[c.Site] = c.NotAfter
	}
	var orders []farm.Order
	mustWeek(t, w.Store.View(ctx, func(tx *store.Tx) (err error) {
		orders, err = tx.Orders(ctx, "shop", store.OrderQuery{})
		return err
	}))
	behind, last, before := 0, time.Duration(0), time.Time{}
	for i, o := range orders { // the newest first
		switch end := ends[o.Site]; {
		case o.State != farm.OrderDone:
			t.Errorf("%s: order %s: %s", o.Site, o.State, o.Error)
		case !o.Updated.Before(end):
			t.Errorf("%s expired at %s, and has a new one since %s", o.Site, end, o.Updated)
		case i > 0 && o.Created.Before(before) && end.After(ends[orders[i-1].Site]) && w.dueBy(orders[i-1].Site, o.Created.Add(-gather-grantMost)):
			t.Errorf("%s, which ends at %s, went before %s, which ends at %s", o.Site, end, orders[i-1].Site, ends[orders[i-1].Site])
		}
		before = o.Created
		if w.dueBy(o.Site, w.begin) {
			behind++
			last = max(last, o.Created.Sub(w.begin))
		}
	}
	if behind != w.late {
		t.Errorf("%d of %d that fell behind were ordered", behind, w.late)
	}
	if stats := w.ca.Stats(); len(stats.Limited) > 0 || stats.Certificates[orders[0].Names[0]] != 1 {
		t.Errorf("the CA refused: %v", stats.Limited)
	}
	t.Logf("%d certificates, %d fell behind: the last of these was ordered after %s; nobody waits after %s, forecast %s", len(w.certs), behind, last.Round(time.Minute), took.Round(time.Minute), want.Round(time.Minute))
}

// dueBy reports that a site's certificate was due by a time.
func (w *week) dueBy(site string, at time.Time) bool {
	for _, c := range w.certs {
		if c.Site == site {
			return !c.Due.After(at)
		}
	}
	return false
}
