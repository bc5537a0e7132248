package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// What is to be done after a commit is done once, and not where nothing was committed.
func TestAfterACommit(t *testing.T) {
	storetest.Each(t, func(t *testing.T, open func(store.Options) *store.Store) {
		s, done := open(store.Options{}), 0
		refused := errors.New("no")
		for _, err := range []error{refused, nil} {
			got := s.Update(t.Context(), func(tx *store.Tx) error {
				tx.After(func() { done++ })
				return err
			})
			if !errors.Is(got, err) {
				t.Error(got)
			}
		}
		if done != 1 {
			t.Errorf("it was done %d times", done)
		}
	})
}

func TestMeasures(t *testing.T) {
	storetest.Each(t, func(t *testing.T, open func(store.Options) *store.Store) {
		now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
		s := open(store.Options{Now: func() time.Time { return now }})
		ctx := t.Context()
		update := func(f func(tx *store.Tx) error) {
			t.Helper()
			if err := s.Update(ctx, f); err != nil {
				t.Fatal(err)
			}
		}
		update(func(tx *store.Tx) error {
			return errors.Join(
				tx.SetWord(ctx, "f", "ledger a", "1"), tx.SetWord(ctx, "f", "ledger b", "2"), tx.SetWord(ctx, "f", "ledgers", "3"), tx.SetWord(ctx, "g", "ledger c", "4"),
				tx.Enqueue(ctx, farm.Job{Farm: "f", Kind: "look", Subject: "www", RunAt: now.Add(-time.Minute)}),
				tx.Enqueue(ctx, farm.Job{Farm: "f", Kind: "check", Subject: "www", Lane: "l", RunAt: now.Add(-time.Hour)}),
				tx.Enqueue(ctx, farm.Job{Farm: "g", Kind: "look", Subject: "www", RunAt: now.Add(-24 * time.Hour)}),
				tx.PutRollout(ctx, farm.Rollout{ID: "ro_1", Farm: "f", Site: "www", Back: "why", Steps: []farm.Step{{Target: "t"}}}),
				tx.PutRollout(ctx, farm.Rollout{ID: "ro_2", Farm: "f", Site: "www", Outcome: farm.Done}),
			)
		})
		look := func(check func(tx *store.Tx)) {
			t.Helper()
			if err := s.View(ctx, func(tx *store.Tx) error { check(tx); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		look(func(tx *store.Tx) {
			words, err := tx.Words(ctx, "f", "ledger ")
			if err != nil || len(words) != 2 || words["a"] != "1" || words["b"] != "2" {
				t.Errorf("words %v %v", words, err)
			}
			if due, err := tx.Waiting(ctx, "f"); err != nil || !due.Equal(now.Add(-time.Hour)) {
				t.Errorf("the job that waits longest is due since %s %v", due, err)
			}
			if due, err := tx.LongestDue(ctx, "f", "look"); err != nil || !due.Equal(now.Add(-time.Minute)) {
				t.Errorf("looks are due since %s %v", due, err)
			}
			if due, err := tx.LongestDue(ctx, "f", "order"); err != nil || !due.IsZero() {
				t.Errorf("orders are due since %s %v", due, err)
			}
			if heads, err := tx.RunningHeads(ctx, "f"); err != nil || len(heads) != 1 || heads[0].Back != "why" || heads[0].Steps != nil {
				t.Errorf("%+v %v", heads, err)
			}
			if epoch, err := tx.LaneEpoch(ctx, "f"); err != nil || epoch != 0 {
				t.Errorf("epoch %d %v", epoch, err)
			}
		})
		jobs, _, err := store.Queue{Store: s, Owner: "a"}.Claim(context.WithoutCancel(ctx), 9, time.Minute)
		if err != nil || len(jobs) != 3 {
			t.Fatal(jobs, err)
		}
		now = now.Add(30 * time.Second)
		look(func(tx *store.Tx) {
			if due, err := tx.Waiting(ctx, "f"); err != nil || !due.IsZero() {
				t.Errorf("all run, and one waits since %s %v", due, err)
			}
			if due, err := tx.LongestDue(ctx, "f", "look"); err != nil || !due.Equal(now.Add(-30*time.Second)) {
				t.Errorf("it runs since %s %v", due, err)
			}
			if epoch, err := tx.LaneEpoch(ctx, "f"); err != nil || epoch == 0 {
				t.Errorf("epoch %d %v", epoch, err)
			}
		})
	})
}
