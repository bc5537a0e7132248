package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// What claiming is measured with.
const (
	few, many   = 1_000, 100_000 // certificates kept
	due         = 64             // jobs due at a time
	claimRounds = 61
)

// measureClaim compares what it costs to claim and finish 64 jobs that are due, and
// to read what a job wants to know of its site, in a store that keeps many
// certificates, each with its own job, and in one that keeps few, in turns.
func measureClaim(ctx context.Context, dir string) ([]figure, error) {
	var stores []*store.Store
	for _, n := range []int{few, many} {
		path, err := filled(ctx, dir, n)
		if err != nil {
			return nil, err
		}
		s, err := store.Open(ctx, path, store.Options{})
		if err != nil {
			return nil, err
		}
		defer func() { _ = s.Close() }() // nothing was written that is kept
		if err := arm(ctx, s); err != nil {
			return nil, err
		}
		stores = append(stores, s)
	}
	claim := figure{name: "claim", unit: "ms", goal: atMost(1.2)}
	claim.notes = []string{fmt.Sprintf("%d jobs of %d and of %d, claimed and finished: median of %d", due, many, few, claimRounds)}
	read := figure{name: "site-read", unit: "ms", goal: atMost(1.2)}
	read.notes = []string{fmt.Sprintf("all about one site of %d and of %d: median of %d", many, few, claimRounds)}
	for f, do := range map[*figure]func(context.Context, *store.Store) error{&claim: claimAndFinish, &read: readSite} {
		var err error
		if f.floor, f.value, err = inTurns(ctx, stores, do); err != nil {
			return nil, err
		}
	}
	return []figure{claim, read}, nil
}

// inTurns does the same on both stores and returns the medians in ms.
func inTurns(ctx context.Context, stores []*store.Store, do func(context.Context, *store.Store) error) (first, second float64, err error) {
	took := make([][]float64, len(stores))
	for range claimRounds {
		for i, s := range stores {
			begin := time.Now()
			if err := do(ctx, s); err != nil {
				return 0, 0, err
			}
			took[i] = append(took[i], float64(time.Since(begin).Microseconds())/1000)
		}
	}
	return median(took[0]), median(took[1]), nil
}

// readSite reads what a check and the start of a rollout do, of a site in the middle.
func readSite(ctx context.Context, s *store.Store) error {
	site := siteName(few / 2)
	return s.View(ctx, func(tx *store.Tx) error {
		_, err := tx.Site(ctx, benchFarm, site)
		errs := []error{err}
		_, err = tx.Certificate(ctx, benchFarm, site)
		errs = append(errs, err)
		_, err = tx.Versions(ctx, benchFarm, site)
		errs = append(errs, err)
		_, err = tx.Places(ctx, benchFarm, site)
		errs = append(errs, err)
		_, err = tx.Orders(ctx, benchFarm, store.OrderQuery{Site: site})
		errs = append(errs, err)
		_, err = tx.OrdersOfIntent(ctx, benchFarm, intentOf(site))
		errs = append(errs, err)
		_, err = tx.RunningRollouts(ctx, benchFarm, site)
		return errors.Join(append(errs, err)...)
	})
}

// arm makes 64 jobs due, each in a lane of its own.
func arm(ctx context.Context, s *store.Store) error {
	return s.Update(ctx, func(tx *store.Tx) error {
		for i := range due {
			subject := fmt.Sprint(i)
			if err := tx.Enqueue(ctx, farm.Job{Farm: benchFarm, Kind: "order", Subject: subject, Lane: "order " + subject}); err != nil {
				return err
			}
		}
		return nil
	})
}

// claimAndFinish leaves every job due again.
func claimAndFinish(ctx context.Context, s *store.Store) error {
	jobs, _, err := s.Claim(ctx, benchFarm, due, time.Minute)
	if err != nil {
		return err
	}
	if len(jobs) != due {
		return fmt.Errorf("%d jobs were claimed, not %d", len(jobs), due)
	}
	var done []farm.Finished
	for _, j := range jobs {
		done = append(done, farm.Finished{Job: j, Result: farm.Result{Again: j.RunAt}})
	}
	nothing := func(context.Context, *store.Tx, farm.Finished) error { return nil }
	return errors.Join(s.Finish(ctx, benchFarm, done, nothing)...)
}
