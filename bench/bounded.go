package main

import (
	"context"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
)

type issuers func(context.Context, controller.IssuerConfig) (controller.Account, error)

// bounded makes accounts that have no more orders open at a time than there are
// seats: a new order waits for one.
func bounded(open issuers, seats chan struct{}) issuers {
	return func(ctx context.Context, c controller.IssuerConfig) (controller.Account, error) {
		a, err := open(ctx, c)
		return seated{a, seats}, err
	}
}

type seated struct {
	controller.Account
	seats chan struct{}
}

// Step is the account's own; an order has its seat from when it is opened until
// its end.
func (s seated) Step(ctx context.Context, o farm.Order, now time.Time) (farm.Order, error) {
	if o.State == farm.OrderNew {
		select {
		case s.seats <- struct{}{}:
		case <-ctx.Done():
			return o, ctx.Err()
		}
	}
	next, err := s.Account.Step(ctx, o, now)
	if next.State.Ended() || err != nil && o.State == farm.OrderNew {
		<-s.seats
	}
	return next, err
}
