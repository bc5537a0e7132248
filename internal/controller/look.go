package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/store"
)

// lookEvery is how often a deployer's Look asks again: readers that poll take minutes.
const lookEvery = 500 * time.Millisecond

// looker is what a target's deployer asks its own endpoints with.
func (c *Controller) looker(farmName string, t farm.Target) deploy.Look {
	if len(t.Endpoints) == 0 {
		return nil
	}
	return func(ctx context.Context, sni string, leaves []string) error {
		for {
			err := c.lookOnce(ctx, farmName, t, sni, leaves)
			if err == nil {
				return nil
			}
			select {
			case <-ctx.Done():
				return err
			case <-time.After(lookEvery):
			}
		}
	}
}

// lookerOf is the looker of other targets, by name.
func (c *Controller) lookerOf(farmName string) func(context.Context, string) (deploy.Look, error) {
	return func(ctx context.Context, name string) (deploy.Look, error) {
		var p farm.Place
		err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
			p, err = tx.Place(ctx, farmName, name)
			return err
		})
		return c.looker(farmName, p.Target), err
	}
}

// lookOnce names the first endpoint that serves none of the leaves, of those that must.
func (c *Controller) lookOnce(ctx context.Context, farmName string, t farm.Target, sni string, leaves []string) error {
	if sni != "" {
		t.Endpoints = slices.Clone(t.Endpoints)
		for i := range t.Endpoints {
			t.Endpoints[i].SNI = sni
		}
	}
	for _, s := range probe.Present(c.look(ctx, farmName, t, probe.Question{Samples: samples}), t.AbsentMax) {
		strange := func(f string) bool { return !slices.Contains(leaves, f) }
		switch at := s.Endpoint.Address + " (" + s.Endpoint.SNI + ")"; {
		case s.Error != "":
			return fmt.Errorf("%s: %s", at, s.Error)
		case !s.Answered || len(s.Fingerprint) == 0:
			return fmt.Errorf("%s serves nothing", at)
		case slices.ContainsFunc(s.Fingerprint, strange):
			return fmt.Errorf("%s serves %s, not %s", at, shorts(s.Fingerprint), shorts(leaves))
		}
	}
	return nil
}

// eachFurther is how long each further target of one activation may take besides: there are
// some answers of the node to wait for.
const eachFurther = 100 * time.Millisecond

// patience is how long an act may take: the target's deadline or the policy's, and
// for an activation, or the way back of a node that is drained, what its deployer waits
// for besides.
func patience(verb farm.Verb, acts ...act) time.Duration {
	var within, most time.Duration
	for _, a := range acts {
		var r deploy.Receipt
		within = max(within, cmp.Or(a.place.Target.Deadline, a.Policy.Deadline))
		if json.Unmarshal(a.step.Receipt, &r) != nil {
			continue // the act itself tells of it
		}
		if verb == farm.DoActivate || verb == farm.DoRestore && len(r.Around) > 0 {
			most = max(most, r.Wait)
		}
	}
	return within + most + time.Duration(max(0, len(acts)-1))*eachFurther
}
