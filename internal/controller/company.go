package controller

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/rollout"
	"github.com/certfarm/certfarm/internal/store"
)

// An activation waits for company: while other targets of the reload group are
// being staged, so that one reload does for all that become due together.
const (
	companyWithin = 30 * time.Second // after the first was staged
	companyEvery  = 50 * time.Millisecond
	companyMost   = 64 // rollouts that are looked at
)

// company reports that an activation had better wait: a rollout that concerns the
// same reload group still stages something, or is about to decide. Nothing waits where
// little life is left.
func (c *Controller) company(ctx context.Context, j farm.Job, verb farm.Verb, group string, acts []act) (more bool, err error) {
	now := c.Now()
	long := func(a act) bool {
		return !now.Before(a.step.Staged.Add(companyWithin)) || rollout.Pressing(a.Rollout, now)
	}
	if verb != farm.DoActivate || slices.ContainsFunc(acts, long) {
		return false, nil
	}
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		if more, err = tx.Staging(ctx, j.Farm, group); more || err != nil {
			return err
		}
		if more, err = deciding(ctx, tx, j.Farm, group); more || err != nil {
			return err
		}
		ready, err := tx.Doing(ctx, j.Farm, group, verb, atMost(verb))
		more = len(ready) > len(acts) // some came while it was asked
		return err
	})
	return more, err
}

// deciding reports that a rollout with a target in the reload group, on which nothing
// is in flight, is about to decide what comes next.
func deciding(ctx context.Context, tx *store.Tx, farmName, group string) (bool, error) {
	resting, err := tx.Doing(ctx, farmName, group, "", companyMost)
	if err != nil {
		return false, err
	}
	for _, r := range resting {
		if due, err := dueNow(ctx, tx, farmName, "advance", r.Rollout); due || err != nil {
			return due, err
		}
	}
	return false, nil
}

// A group is what the Stage of one target says for the others of its reload group.
type group struct {
	mu     sync.Mutex
	tested bool  // its configuration passed the server's own test
	err    error // or did not
}

func (g *group) known() (tested bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.tested, g.err
}

// learn keeps what a Stage said of the group's configuration.
func (g *group) learn(ctx context.Context, r deploy.Receipt, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tested = g.tested || r.Tested
	if errors.Is(err, deploy.ErrTest) && !errors.Is(err, host.ErrUnreachable) && ctx.Err() == nil {
		g.err = err
	}
}
