package main

import (
	"context"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// waitingSite has an order that waits for hours, beside a rollout that begins at the
// second look and is over at the third.
type waitingSite struct {
	until time.Time
	looks int
}

func (s *waitingSite) Progress(context.Context, string, ...string) ([]controller.Progress, error) {
	s.looks++
	p := controller.Progress{SiteStatus: controller.SiteStatus{Name: "shop"}, Waits: "the order is new", Again: s.until}
	if s.looks == 2 {
		p.Rollout, p.Waits, p.Again = "ro_1", "", time.Time{}
	}
	if s.looks >= 2 {
		p.Newest = "ro_1"
	}
	return []controller.Progress{p}, nil
}

func (s *waitingSite) Rollout(context.Context, string, string) (farm.Rollout, error) {
	if s.looks == 0 {
		return farm.Rollout{}, store.ErrNotFound
	}
	r := farm.Rollout{ID: "ro_1", Site: "shop", Outcome: farm.Running}
	if s.looks > 2 {
		r.Outcome = farm.Done
	}
	return r, nil
}

func (s *waitingSite) Events(context.Context, string, store.EventQuery) ([]farm.Event, error) {
	return nil, nil
}

func (s *waitingSite) Follow(ctx context.Context, _ string, _ store.EventQuery, f func(farm.Event) error) error {
	for ctx.Err() == nil {
		if err := f(farm.Event{ID: "ev_1"}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// What was imported is rolled out, and the order that the site waits for meanwhile is
// another matter: the end of the one is not the end of the other.
func TestAnImportDoesNotWaitForAnOrder(t *testing.T) {
	u, _, _ := testUI()
	for _, later := range []time.Duration{0, 5 * time.Hour} { // soon, and after the follower's patience
		f := &follower{ui: u, farm: "farm", sites: []string{"shop"}, one: true, source: &waitingSite{until: u.now().Add(time.Minute + later)}}
		if err := f.begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		got, err := f.run(ctx)
		cancel()
		if err != nil || len(got) != 1 || got[0].Exit != exitDone || got[0].Outcome != string(farm.Done) {
			t.Errorf("order %s later: got %+v, %v", later, got, err)
		}
	}
}
