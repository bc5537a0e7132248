package controller

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/store"
)

// looksAtOnce bounds the targets of one site that are looked at side by side.
const looksAtOnce = 8

// lookWithin bounds the look at one target.
const lookWithin = 15 * time.Second

// A glance is what one look at a target showed.
type glance struct {
	target string
	sights []farm.Sight
	reach  farm.Reach
	drift  string
	ours   bool // the drift is ours to heal
}

// A looked is what a look at a site showed.
type looked struct {
	glances []glance
	tallies map[string]probe.Tally // by balancer address
	behind  map[string]string      // what is wrong behind the edges, by address
}

// A watched site is what a look at it takes.
type watched struct {
	site     farm.Site
	places   []farm.Place
	versions map[string]farm.Version
	roots    map[string]string // private roots, by issuer
	running  []farm.Rollout
	busy     bool // one of them changes what is served
}

// workLook sees what a site's targets and balancers serve.
func (c *Controller) workLook(ctx context.Context, j farm.Job) farm.Result {
	w, err := c.watched(ctx, j.Farm, j.Subject)
	if errors.Is(err, store.ErrNotFound) {
		return farm.Result{}
	}
	if err != nil {
		return farm.Result{Err: err}
	}
	if w.busy { // a rollout looks for itself
		return farm.Result{Value: looked{}}
	}
	l := looked{glances: make([]glance, len(w.places))}
	slots := make(chan struct{}, looksAtOnce)
	var wg sync.WaitGroup
	for i, p := range w.places {
		slots <- struct{}{}
		wg.Go(func() {
			l.glances[i] = c.glance(ctx, w, p)
			<-slots
		})
	}
	wg.Wait()
	l.tallies, l.behind = c.sample(ctx, w), c.lookBehind(ctx, w)
	return farm.Result{Value: l}
}

func (c *Controller) watched(ctx context.Context, farmName, name string) (w watched, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		if w.site, err = tx.Site(ctx, farmName, name); err != nil {
			return err
		}
		all, err := tx.Places(ctx, farmName, name)
		if err != nil {
			return err
		}
		for _, p := range all {
			if !p.Released && (len(p.Desired) > 0 || p.Tries > 0) {
				w.places = append(w.places, p)
			}
		}
		if err := w.know(ctx, tx, farmName); err != nil {
			return err
		}
		if w.running, err = tx.RunningRollouts(ctx, farmName, name); err != nil {
			return err
		}
		only, err := observing(ctx, tx, farmName, name)
		w.busy = len(w.running) > 0 && !only
		return err
	})
	return w, err
}

// know loads the site's versions, and the roots that they are judged by.
func (w *watched) know(ctx context.Context, tx *store.Tx, farmName string) error {
	versions, err := everHeld(ctx, tx, farmName, w.site.Name)
	if err != nil {
		return err
	}
	w.versions, w.roots = map[string]farm.Version{}, map[string]string{}
	issuers := []string{w.site.Issuer}
	for _, v := range versions {
		w.versions[v.ID] = v
		issuers = append(issuers, v.Issuer)
	}
	for _, i := range issuers {
		if w.roots[i], err = roots(ctx, tx, farmName, i); err != nil {
			return err
		}
	}
	return nil
}

// rootsOf are the roots that what should be held is judged by: those of the
// issuer that it came from, as in the rollout that brought it. The site may have
// another by now; measured by its roots, what a rollout has verified would be
// drift, healed for ever.
func (w watched) rootsOf(desired []string) string {
	for _, id := range desired {
		v, ok := w.versions[id]
		switch {
		case ok && v.Issuer == "":
			return rootsOfImported(v, w.roots[w.site.Issuer])
		case ok:
			return w.roots[v.Issuer]
		}
	}
	return w.roots[w.site.Issuer]
}

// namesOf are the names that what should be held is for. The site may have others
// by now, which the next version brings: that the one that is served lacks them is
// no drift, and nothing to heal.
func (w watched) namesOf(desired []string) []string {
	for _, id := range desired {
		if v, ok := w.versions[id]; ok {
			return v.Names
		}
	}
	return w.site.Names
}

// glance looks at one target. One that serves but could not be reached for
// deployment, or missed a version, is asked over the line to its node, too.
func (c *Controller) glance(ctx context.Context, w watched, p farm.Place) glance {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	g := glance{target: p.Target.Name}
	desired, older := w.leaves(p.Desired)
	q := probe.Question{Names: w.namesOf(p.Desired), Roots: w.rootsOf(p.Desired), Samples: 1}
	for _, l := range desired {
		q.KeyTypes = append(q.KeyTypes, l.KeyType)
	}
	g.sights = c.look(ctx, p.Farm, p.Target, q)
	if len(desired) > 0 { // else it is not installed yet, and that was tried
		g.drift, g.ours = probe.Drifted(desired, older, probe.Present(g.sights, p.Target.AbsentMax), c.Now())
	}
	silent := probe.Silent(g.sights)
	g.reach = farm.ReachUp
	if silent || p.Late != "" || p.Reach != farm.ReachUp || p.Tries > 0 {
		reached := c.reached(ctx, p)
		switch {
		case silent && !reached:
			g.reach = farm.ReachDown
		case !reached:
			g.reach = farm.ReachHalf
		}
	}
	return g
}

func (w watched) leaves(ids []string) (desired, older []farm.Leaf) {
	for id, v := range w.versions {
		if slices.Contains(ids, id) {
			desired = append(desired, v.Leaves...)
		} else {
			older = append(older, v.Leaves...)
		}
	}
	return desired, older
}

// reached reports that the target can be worked on.
func (c *Controller) reached(ctx context.Context, p farm.Place) bool {
	d, err := c.deployer(ctx, p.Farm, p.Target, deploy.Lease{})
	if err != nil {
		return false
	}
	_, err = d.Inspect(ctx)
	return err == nil
}

// sample asks each balancer often enough that every node should have answered.
// Before the first installation there is nothing to agree on.
func (c *Controller) sample(ctx context.Context, w watched) map[string]probe.Tally {
	if !slices.ContainsFunc(w.places, func(p farm.Place) bool { return len(p.Desired) > 0 }) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	tallies := map[string]probe.Tally{}
	var desired []string
	for _, p := range w.places {
		desired = append(desired, p.Desired...)
	}
	for _, b := range w.site.Balancers {
		q := probe.Question{Endpoint: b, Names: w.namesOf(desired), Roots: w.rootsOf(desired), Samples: 1}
		t, err := probe.Sample(ctx, c.Prober, q, max(20, 4*len(w.places)))
		if err == nil {
			tallies[b.Address] = t
		}
	}
	return tallies
}

// applyLook writes what changed, heals what is ours to heal, and says when to
// look again.
func (c *Controller) applyLook(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	l, ok := f.Result.Value.(looked)
	if !ok {
		return nil
	}
	site, err := tx.Site(ctx, f.Job.Farm, f.Job.Subject)
	if err != nil {
		return err
	}
	again, err := c.lookAgain(ctx, tx, f.Job.Farm)
	if err != nil {
		return err
	}
	late, err := c.noticedAll(ctx, tx, f.Job.Farm, site, l)
	if err != nil {
		return err
	}
	if late {
		again = c.Pace.Late
	}
	return arm(ctx, tx, f.Job.Farm, "look", site.Name, tx.Now().Add(again))
}

// looksPerSecond is the most sites of a farm that are looked at in a second:
// above that the interval stretches.
const looksPerSecond = 20

func (c *Controller) lookAgain(ctx context.Context, tx *store.Tx, farmName string) (time.Duration, error) {
	text, err := tx.Word(ctx, farmName, wordSites)
	if err != nil || text == "" {
		return c.Pace.Look, err
	}
	sites, err := strconv.Atoi(text)
	return max(c.Pace.Look, time.Duration(sites)*time.Second/looksPerSecond), err
}

// nextLook is when a site is looked at after a rollout: at once, but where every target
// was just seen to serve what it should, and there is no balancer to ask.
func (c *Controller) nextLook(ctx context.Context, tx *store.Tx, r farm.Rollout) (time.Time, error) {
	unseen := func(s farm.Step) bool { return s.State != farm.Verified }
	if r.Outcome != farm.Done || slices.ContainsFunc(r.Steps, unseen) {
		return tx.Now(), nil
	}
	site, err := tx.Site(ctx, r.Farm, r.Site)
	if err != nil || len(site.Balancers) > 0 || len(site.Targets) > len(r.Steps) {
		return tx.Now(), unlessGone(err)
	}
	again, err := c.lookAgain(ctx, tx, r.Farm)
	return tx.Now().Add(again), err
}
