package controller

import (
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
