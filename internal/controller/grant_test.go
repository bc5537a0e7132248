package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/budget"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// A queue is a controller without hands: what checks and grants write is looked at,
// and time goes on by hand.
type queue struct {
	*Controller
	t   testing.TB
	now time.Time
	asc []string // sites, the one with the least life left first
}

// newQueue has sites whose 45-day certificates have from 1 day of their life left.
func newQueue(t testing.TB, limits farm.Limits, sites int) *queue {
	t.Helper()
	q := &queue{t: t, now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
	s := storetest.SQLite(t, store.Options{Now: func() time.Time { return q.now }})
	q.Controller = New(Config{Store: s, Now: func() time.Time { return q.now }})
	f := farm.Farm{Name: "shop", Issuers: []farm.Issuer{{Name: "ca", Directory: "https://ca.test/dir", Limits: &limits}}}
	for i := range sites {
		name := fmt.Sprintf("s%d", (i*7)%sites) // by name they are in another order
		f.Sites = append(f.Sites, farm.Site{Name: name, Names: []string{"www." + name + ".test"}, Issuer: "ca", KeyTypes: []farm.KeyType{farm.EC256}})
		q.asc = append(q.asc, name)
	}
	q.update(func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.SaveFarm(ctx, f, nil, "test", 0); err != nil {
			return err
		}
		for i, site := range q.asc {
			end := q.now.Add(time.Duration(i+1) * 24 * time.Hour)
			v := farm.Version{ID: "v-" + site, Farm: f.Name, Site: site, Names: []string{"www." + site + ".test"}, Issuer: "ca", Leaves: []farm.Leaf{{
				Fingerprint: "f-" + site, KeyType: farm.EC256, NotBefore: end.Add(-45 * 24 * time.Hour), NotAfter: end, Key: farm.KeyRef{Sealed: "k"},
			}}}
			if err := tx.PutVersion(ctx, v); err != nil {
				return err
			}
			if err := tx.PutCertificate(ctx, farm.Certificate{Farm: f.Name, Site: site, Version: v.ID}); err != nil {
				return err
			}
		}
		return nil
	})
	return q
}

func (q *queue) update(f func(context.Context, *store.Tx) error) {
	q.t.Helper()
	if err := q.Store.Update(q.t.Context(), func(tx *store.Tx) error { return f(q.t.Context(), tx) }); err != nil {
		q.t.Fatal(err)
	}
}

// run does the checks and grants that are due, until none is. Orders are left as they
// are.
func (q *queue) run() {
	q.t.Helper()
	apply := func(ctx context.Context, tx *store.Tx, f farm.Finished) error {
		if f.Job.Kind != "check" && f.Job.Kind != "grant" && f.Job.Kind != "replace" {
			return nil
		}
		return q.apply(ctx, tx, f)
	}
	for {
		jobs, _, err := q.Store.Claim(q.t.Context(), "test", 1, time.Minute)
		if err != nil {
			q.t.Fatal(err)
		}
		if len(jobs) == 0 {
			return
		}
		for _, err := range q.Store.Finish(q.t.Context(), "test", []farm.Finished{{Job: jobs[0]}}, apply) {
			if err != nil {
				q.t.Fatalf("%s %s: %v", jobs[0].Kind, jobs[0].Subject, err)
			}
		}
	}
}

// ordered are the sites that have orders, in the sequence of the orders.
func (q *queue) ordered() (sites []string) {
	q.t.Helper()
	q.update(func(ctx context.Context, tx *store.Tx) error {
		all, err := tx.Orders(ctx, "shop", store.OrderQuery{})
		for _, o := range slices.Backward(all) {
			sites = append(sites, o.Site)
		}
		return err
	})
	return sites
}

// arm has every site checked, as after a time without a controller.
func (q *queue) arm() {
	q.t.Helper()
	q.update(func(ctx context.Context, tx *store.Tx) error {
		for _, site := range slices.Sorted(slices.Values(q.asc)) {
			if err := arm(ctx, tx, "shop", "check", site, tx.Now()); err != nil {
				return err
			}
		}
		return nil
	})
}

// pass lets time go by, a minute at a time.
func (q *queue) pass(d time.Duration) {
	q.t.Helper()
	for end := q.now.Add(d); q.now.Before(end); {
		q.now = q.now.Add(time.Minute)
		q.run()
	}
}

// Ten certificates are due at once, and the CA allows four at once and one an hour:
// the one with the least life left goes first, whatever the order of the checks, and
// people are told once. None is ordered before the CA allows it.
func TestTheMostUrgentGoesFirst(t *testing.T) {
	t.Parallel()
	q := newQueue(t, farm.Limits{Orders: farm.Rate{Count: 4, Per: 4 * time.Hour}}, 10)
	begin := q.now
	q.arm()
	q.run()
	if got := q.ordered(); len(got) > 0 {
		t.Errorf("before all were looked at, %v were ordered", got)
	}
	q.pass(7*time.Hour + 30*time.Minute)
	got := q.ordered()
	for i := range got {
		if n := min(len(got), max(4, i+1)); i < 4 && !slices.Contains(q.asc[:4], got[i]) || i >= 4 && got[i] != q.asc[i] {
			t.Errorf("the first %d are %v, want %v", n, got, q.asc)
			break
		}
	}
	if len(got) != 10 {
		t.Errorf("%d are ordered after %s, want all", len(got), q.now.Sub(begin))
	}
	told := 0
	q.update(func(ctx context.Context, tx *store.Tx) error {
		all, err := tx.Events(ctx, "shop", store.EventQuery{})
		for _, e := range all {
			if e.Kind == "budget.waits" && strings.HasPrefix(e.Text, "6 certificates wait") {
				told++
			}
			if e.Kind == "certificate.waits" {
				t.Errorf("told of one by itself: %s", e.Text)
			}
		}
		if w, err := tx.Word(ctx, "shop", wordQueue+"ca"); w != "" || err != nil {
			t.Errorf("the queue is said to be there: %q %v", w, err)
		}
		return err
	})
	if told != 1 {
		t.Errorf("told %d times", told)
	}
}

// What a person asks for, and what the CA does not count, waits for nobody.
func TestWhoNeedNotQueue(t *testing.T) {
	t.Parallel()
	q := newQueue(t, farm.Limits{Orders: farm.Rate{Count: 1, Per: 4 * time.Hour}, Exempt: farm.ExemptARI}, 3)
	q.update(func(ctx context.Context, tx *store.Tx) error {
		return tx.SetWord(ctx, "shop", wordRenew+q.asc[2], "ann")
	})
	q.arm()
	q.run()
	if got := q.ordered(); !slices.Equal(got, q.asc[2:]) {
		t.Errorf("at once %v, want the one that a person asked for", got)
	}
	s := standing{site: farm.Site{Issuer: "ca"}, issuer: farm.Issuer{Name: "ca"}, newest: farm.Version{ID: "v", Issuer: "ca", Leaves: []farm.Leaf{{Fingerprint: "f"}}}}
	s.site.Names, s.newest.Names = []string{"a.test"}, []string{"a.test"}
	s.cert.ARI = farm.Suggestion{Leaf: "f", Start: q.now.Add(-time.Hour), End: q.now.Add(time.Hour)}
	for at, want := range map[time.Duration]bool{-2 * time.Hour: false, 0: true, 2 * time.Hour: false} {
		if got := s.exempt(farm.Limits{Exempt: farm.ExemptARI}, q.now.Add(at)); got != want {
			t.Errorf("%s from the middle of the window: exempt %t", at, got)
		}
	}
	if s.exempt(farm.Limits{}, q.now) {
		t.Error("exempt at a CA that counts all")
	}
}

// A forecast reads what is stored, and what is already spent.
func TestForecast(t *testing.T) {
	t.Parallel()
	q := newQueue(t, farm.Limits{Orders: farm.Rate{Count: 4, Per: 4 * time.Hour}}, 20)
	r, err := q.Forecast(t.Context(), "shop", ForecastAsk{Days: 20})
	if err != nil {
		t.Fatal(err)
	}
	i := r.Issuers[0]
	// All have from 1 to 20 days left, so those up to 15 days are due.
	if i.Certificates != 20 || i.Orders != 20 || len(i.Lapses) > 0 || i.Waited < 8 || i.Days[0].Used != 1 {
		t.Errorf("%d certificates, %d orders, %d expire, %d waited, %+v", i.Certificates, i.Orders, len(i.Lapses), i.Waited, i.Days[0])
	}
	if r, err = q.Forecast(t.Context(), "shop", ForecastAsk{Days: 20, Pause: 10 * 24 * time.Hour, AddNames: 50, Under: "shop.test"}); err != nil {
		t.Fatal(err)
	}
	if i = r.Issuers[0]; i.Certificates != 70 || len(i.Lapses) < 9 || i.Days[9].Orders != 0 {
		t.Errorf("after ten days off: %d certificates, %d expire, %+v", i.Certificates, len(i.Lapses), i.Days[9])
	}
	q.arm()
	q.run()
	q.pass(2 * time.Minute)
	if r, err = q.Forecast(t.Context(), "shop", ForecastAsk{Days: 1}); err != nil {
		t.Fatal(err)
	}
	if i = r.Issuers[0]; i.Days[0].Orders > 24 || i.Days[0].Orders < 12 {
		t.Errorf("on a day that begins with an empty bucket: %+v", i.Days[0])
	}
}

func BenchmarkForecast(b *testing.B) {
	q := newQueue(b, budget.LetsEncrypt(), 10000)
	for b.Loop() {
		if _, err := q.Forecast(b.Context(), "shop", ForecastAsk{Pause: 7 * 24 * time.Hour}); err != nil {
			b.Fatal(err)
		}
	}
}
