package controller

import (
	"cmp"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// Of two certificates whose issuer has no room, the one whose last safe start is past
// goes to the next issuer at once; the other waits, and its verdict says until when.
// What the CA itself says of its limits counts in the same way.
func TestTheNextIssuerTakesWhatHasNoTime(t *testing.T) {
	t.Parallel()
	for name, full := range map[string]func(context.Context, *queue, *store.Tx) error{
		"by the ledger": func(ctx context.Context, q *queue, tx *store.Tx) error {
			return tx.SetWord(ctx, "shop", "ledger https://ca.test/dir orders of ca", q.now.Add(30*24*time.Hour).Format(time.RFC3339Nano))
		},
		"by the CA's word": func(ctx context.Context, q *queue, tx *store.Tx) error {
			return tx.PutAccount(ctx, store.Account{
				Farm: "shop", Issuer: "ca", Directory: "https://ca.test/dir", URL: "https://ca.test/1", HoldUntil: q.now.Add(7 * 24 * time.Hour), HoldWhy: "too many",
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newQueue(t, farm.Limits{Orders: farm.Rate{Count: 300, Per: 30 * 24 * time.Hour}}, 15)
			q.fallBack("other")
			q.update(func(ctx context.Context, tx *store.Tx) error { return full(ctx, q, tx) })
			late, early := q.asc[0], q.asc[13] // one day is left, and 14; the last safe start is 3 days 18 h before the end
			q.update(func(ctx context.Context, tx *store.Tx) error {
				for _, site := range []string{late, early} {
					if err := arm(ctx, tx, "shop", "check", site, tx.Now()); err != nil {
						return err
					}
				}
				return nil
			})
			q.run()
			q.update(func(ctx context.Context, tx *store.Tx) error {
				all, err := tx.Orders(ctx, "shop", store.OrderQuery{})
				if len(all) != 1 || all[0].Site != late || all[0].Issuer != "other" || all[0].Replaces != "" || all[0].Profile != "their-own" {
					t.Errorf("ordered: %+v", all)
				}
				cert, err2 := tx.Certificate(ctx, "shop", early)
				if !strings.Contains(cert.Verdict, "if that lasts until") || !strings.Contains(cert.Verdict, "other is asked") || cert.Next.After(q.now.Add(8*24*time.Hour)) {
					t.Errorf("%s, next at %s", cert.Verdict, cert.Next)
				}
				if err2 != nil {
					return err2
				}
				events, err2 := tx.Events(ctx, "shop", store.EventQuery{Kind: "issuer.next"})
				if len(events) != 1 || events[0].Site != late || !strings.Contains(events[0].Text, "the last safe start is past: other is asked") {
					t.Errorf("told: %+v", events)
				}
				if err2 != nil {
					return err2
				}
				return err
			})
		})
	}
}

// fallBack gives every site of the queue another issuer to fall back to.
func (q *queue) fallBack(name string) {
	q.t.Helper()
	q.update(func(ctx context.Context, tx *store.Tx) error {
		f, err := tx.Farm(ctx, "shop")
		if err != nil {
			return err
		}
		f.Issuers = append(f.Issuers, farm.Issuer{Name: name, Directory: "https://" + name + ".test/dir", Profile: "their-own"})
		for i := range f.Sites {
			f.Sites[i].Fallbacks, f.Sites[i].Profile = []string{name}, "first-only"
		}
		_, err = tx.SaveFarm(ctx, f, nil, "test", 1)
		return err
	})
}

// The forecast asks a site's issuers in turn as orders do: played beside the real checks
// for some days, it has the same sites go to the same issuer.
func TestTheForecastAsksIssuersInTurn(t *testing.T) {
	t.Parallel()
	q := newQueue(t, farm.Limits{Orders: farm.Rate{Count: 4, Per: 40 * 24 * time.Hour}}, 20)
	q.fallBack("other")
	r, err := q.Forecast(t.Context(), "shop", ForecastAsk{Days: 16})
	if err != nil {
		t.Fatal(err)
	}
	forecast := map[string]string{}
	for _, in := range r.Issuers[1].StandsIn {
		forecast[in.Site] = "other"
		if in.For != "ca" || in.Orders != 1 {
			t.Errorf("%+v", in)
		}
	}
	if n := r.Issuers[0].Orders + r.Issuers[1].Orders; len(forecast) < 10 || n != 20 || r.Issuers[0].Orders != 20-len(forecast) || r.Issuers[1].Certificates != 0 {
		t.Fatalf("%d stand in, %d orders, %d certificates begin with the other", len(forecast), n, r.Issuers[1].Certificates)
	}
	q.arm()
	for end := q.now.Add(16 * 24 * time.Hour); q.now.Before(end); {
		q.now = q.now.Add(30 * time.Minute)
		q.run()
	}
	q.update(func(ctx context.Context, tx *store.Tx) error {
		all, err := tx.Orders(ctx, "shop", store.OrderQuery{})
		for _, o := range all {
			if is := o.Issuer; is != cmp.Or(forecast[o.Site], "ca") {
				t.Errorf("%s is ordered from %s, the forecast said %q", o.Site, is, forecast[o.Site])
			}
		}
		if len(all) != 20 {
			t.Errorf("%d orders", len(all))
		}
		return err
	})
	added, err := q.Forecast(t.Context(), "shop", ForecastAsk{Days: 1, AddNames: 30})
	if err != nil || added.Issuers[0].Certificates != 50 || len(added.Issuers[1].StandsIn) < 25 {
		t.Errorf("of 30 names that are added, %d stand in: %v", len(added.Issuers[1].StandsIn), err)
	}
}
