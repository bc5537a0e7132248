package controller

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// ended has a rollout of a mass replacement at a site end.
func (q *queue) ended(site string, how farm.Outcome) {
	q.t.Helper()
	q.update(func(ctx context.Context, tx *store.Tx) error {
		cert, err := tx.Certificate(ctx, "shop", site)
		if err != nil {
			return err
		}
		if err := replacedHow(ctx, tx, farm.Rollout{Farm: "shop", Site: site, To: farm.VersionFacts{ID: "w-" + site}, Outcome: how}, &cert); err != nil {
			return err
		}
		return tx.PutCertificate(ctx, cert)
	})
}

// A mass replacement whose rollouts are put back stops by itself and tells of it; what
// is not ordered waits until a person has it go on, and then only new failures count.
func TestAReplacementStopsByItself(t *testing.T) {
	t.Parallel()
	q := newQueue(t, farm.Limits{Orders: farm.Rate{Count: 4, Per: 4 * time.Hour}}, 40)
	s, err := q.Replace(t.Context(), "shop", ReplaceAsk{Sites: q.asc[29:]}, "ops") // none of which is due by itself for two weeks
	if err != nil {
		t.Fatal(err)
	}
	q.pass(30 * time.Minute)
	first := q.ordered()
	if len(first) < 3 || len(first) > 6 {
		t.Fatalf("%v are ordered", first)
	}
	q.ended(first[0], farm.Done)
	q.ended(first[1], farm.RolledBack)
	q.pass(10 * time.Minute)
	if s := q.replacement(); s.Paused != "" || s.Failed != 1 {
		t.Fatalf("after one: %+v", s)
	}
	began := len(q.ordered())
	q.ended(first[2], farm.RolledBack)
	q.run()
	stopped := q.replacement()
	if stopped.Paused != "certfarm" || stopped.Failed != 2 || !strings.Contains(stopped.Why, "2 rollouts of 2 failed") {
		t.Fatalf("after two: %+v", stopped)
	}
	q.pass(24 * time.Hour)
	if got := q.ordered(); len(got) != began {
		t.Errorf("it stopped, and %d were ordered after %d", len(got), began)
	}
	if err := q.PauseReplacement(t.Context(), "shop", s.ID, "ops"); err == nil {
		t.Error("it is paused twice")
	}
	if err := q.ResumeReplacement(t.Context(), "shop", s.ID, "ops"); err != nil {
		t.Fatal(err)
	}
	q.ended(first[0], farm.RolledBack)
	q.pass(12 * time.Hour)
	if got := q.ordered(); len(got) != 11 {
		t.Errorf("it goes on, and %d are ordered", len(got))
	}
	one, err := q.Replacement(t.Context(), "shop", s.ID)
	if err != nil || one.Paused != "" || one.Failed != 3 || one.Waiting != 0 {
		t.Errorf("%+v, %v", one, err)
	}
	q.update(func(ctx context.Context, tx *store.Tx) error {
		all, err := tx.Events(ctx, "shop", store.EventQuery{Kind: "replacement.stopped"})
		if len(all) != 1 || all[0].Level != farm.Alarm {
			t.Errorf("told: %+v", all)
		}
		return err
	})
}

// A person pauses one, and ends it from there.
func TestAReplacementIsPaused(t *testing.T) {
	t.Parallel()
	q := newQueue(t, farm.Limits{Orders: farm.Rate{Count: 2, Per: 2 * time.Hour}}, 40)
	s, err := q.Replace(t.Context(), "shop", ReplaceAsk{Sites: q.asc[30:]}, "ops")
	if err != nil {
		t.Fatal(err)
	}
	if err := q.PauseReplacement(t.Context(), "shop", s.ID, "ops"); err != nil {
		t.Fatal(err)
	}
	q.pass(24 * time.Hour)
	if got := q.ordered(); len(got) != 0 {
		t.Errorf("it is paused, and %v are ordered", got)
	}
	if err := q.CancelReplacement(t.Context(), "shop", s.ID, "ops"); err != nil {
		t.Fatal(err)
	}
	if err := q.ResumeReplacement(t.Context(), "shop", s.ID, "ops"); err == nil {
		t.Error("one that is over goes on")
	}
	if _, err := q.Replacement(t.Context(), "shop", "rep_none"); err == nil {
		t.Error("one that is none is told of")
	}
}
