package controller

import (
	"context"
	"slices"
	"sync"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Verified is what one target was seen to serve just now.
type Verified struct {
	Target string       `json:"target"`
	OK     bool         `json:"ok"`
	Why    string       `json:"why,omitempty"`
	Sights []farm.Sight `json:"sights"`
}

// Verify asks every endpoint of a site now what it serves. It writes nothing. While a
// rollout runs, a target that it has changed is held to what it brings, and one whose
// turn has not come to what it had.
func (c *Controller) Verify(ctx context.Context, farmName, site string) (all []Verified, err error) {
	names, err := c.namesOf(ctx, farmName, site)
	for _, name := range names {
		some, err := c.verifyOne(ctx, farmName, name)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, err
}

func (c *Controller) verifyOne(ctx context.Context, farmName, site string) ([]Verified, error) {
	w, err := c.watched(ctx, farmName, site)
	if err != nil {
		return nil, err
	}
	all := make([]Verified, len(w.places))
	slots := make(chan struct{}, looksAtOnce)
	var wg sync.WaitGroup
	for i, p := range w.places {
		slots <- struct{}{}
		wg.Go(func() {
			all[i] = c.verifyPlace(ctx, w, p)
			<-slots
		})
	}
	wg.Wait()
	slices.SortFunc(all, func(a, b Verified) int { return compare(a.Target, b.Target) })
	return all, nil
}

// verifyPlace looks at a target until it serves something that it may, or none is left
// that it may.
func (c *Controller) verifyPlace(ctx context.Context, w watched, p farm.Place) (v Verified) {
	for _, p.Desired = range midway(p, w.running) {
		g := c.glance(ctx, w, p)
		v = Verified{Target: p.Target.Name, OK: g.drift == "", Why: g.drift, Sights: g.sights}
		if v.OK {
			break
		}
	}
	return v
}

// midway is what a target may serve while rollouts run: the versions that it should hold,
// those that a rollout has brought, or both in the middle of the change.
func midway(p farm.Place, running []farm.Rollout) [][]string {
	for _, r := range running {
		i := slices.IndexFunc(r.Steps, func(s farm.Step) bool { return s.Target == p.Target.Name })
		if i < 0 || !r.Steps[i].Touched {
			continue
		}
		switch s := r.Steps[i]; {
		case s.State == farm.Restored: // it has what it should hold again
		case (s.State == farm.Active || s.State == farm.Verified) && s.Doing != farm.DoRestore:
			return [][]string{s.To}
		default:
			return [][]string{p.Desired, s.To}
		}
	}
	return [][]string{p.Desired}
}
