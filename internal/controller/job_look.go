package controller

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

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
}

// A watched site is what a look at it takes.
type watched struct {
	site     farm.Site
	places   []farm.Place
	versions map[string]farm.Version
	roots    string
	busy     bool
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
	l.tallies = c.sample(ctx, w)
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
			if !p.Released && len(p.Desired) > 0 {
				w.places = append(w.places, p)
			}
		}
		versions, err := tx.Versions(ctx, farmName, name)
		if err != nil {
			return err
		}
		w.versions = map[string]farm.Version{}
		for _, v := range versions {
			w.versions[v.ID] = v
		}
		if w.roots, err = roots(ctx, tx, farmName, w.site.Issuer); err != nil {
			return err
		}
		running, err := tx.RunningRollouts(ctx, farmName, name)
		w.busy = len(running) > 0
		return err
	})
	return w, err
}

// glance looks at one target. One that serves but could not be reached for
// deployment, or missed a version, is asked over the line to its node, too.
func (c *Controller) glance(ctx context.Context, w watched, p farm.Place) glance {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	g := glance{target: p.Target.Name}
	desired, older := w.leaves(p.Desired)
	q := probe.Question{Names: w.site.Names, Roots: w.roots, Samples: 1}
	for _, l := range desired {
		q.KeyTypes = append(q.KeyTypes, l.KeyType)
	}
	g.sights = c.look(ctx, p.Farm, p.Target, q)
	g.drift, g.ours = probe.Drifted(desired, older, g.sights, c.Now())
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
	h, err := c.host(ctx, p.Farm, p.Target.Node)
	if err != nil {
		return false
	}
	d, err := c.Kinds.Open(p.Target.Kind, p.Target.Options, h)
	if err != nil {
		return false
	}
	_, err = d.Inspect(ctx)
	return err == nil
}

// sample asks each balancer often enough that every node should have answered.
func (c *Controller) sample(ctx context.Context, w watched) map[string]probe.Tally {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	tallies := map[string]probe.Tally{}
	for _, b := range w.site.Balancers {
		q := probe.Question{Endpoint: b, Names: w.site.Names, Roots: w.roots, Samples: 1}
		t, err := probe.Sample(ctx, c.Prober, q, max(20, 4*len(w.places)))
		if err == nil {
			tallies[b.Address] = t
		}
	}
	return tallies
}

// applyLook writes what changed, and heals what is ours to heal.
func (c *Controller) applyLook(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	l, ok := f.Result.Value.(looked)
	if !ok {
		return nil
	}
	site, err := tx.Site(ctx, f.Job.Farm, f.Job.Subject)
	if err != nil {
		return err
	}
	running, err := tx.RunningRollouts(ctx, f.Job.Farm, site.Name)
	if err != nil {
		return err
	}
	again := c.Pace.Look
	if len(running) == 0 { // else what was seen is of before it began
		for _, g := range l.glances {
			late, err := c.noticed(ctx, tx, f.Job.Farm, site, g)
			if err != nil {
				return err
			}
			if late {
				again = c.Pace.Late
			}
		}
		if err := disagreements(ctx, tx, f.Job.Farm, site, l.tallies); err != nil {
			return err
		}
	}
	return arm(ctx, tx, f.Job.Farm, "look", site.Name, tx.Now().Add(again))
}

// noticed writes what a glance changed. It reports that the target wants to be
// looked at again soon.
func (c *Controller) noticed(ctx context.Context, tx *store.Tx, farmName string, site farm.Site, g glance) (late bool, err error) {
	p, err := tx.Place(ctx, farmName, g.target)
	if err != nil {
		return false, err
	}
	was := p
	back := g.reach == farm.ReachUp && was.Reach != farm.ReachUp && was.Reach != farm.ReachUnknown
	p.Reach, p.Drift = g.reach, g.drift
	if p.Reach != was.Reach || p.Drift != was.Drift {
		p.Since = tx.Now()
	}
	if p.Drift == "" && p.Late != "" { // a person brought it up to date
		p.Late, p.Tries = "", 0
	}
	if seen(was.Sights) != seen(g.sights) || p.Reach != was.Reach || p.Drift != was.Drift {
		p.Sights, p.Looked = g.sights, tx.Now()
	}
	if back {
		p.Again = time.Time{} // it answers: try at once
	}
	if !reflect.DeepEqual(p, was) {
		if err := tx.PutPlace(ctx, p); err != nil {
			return false, err
		}
	}
	if err := noticedEvents(ctx, tx, site, was, p); err != nil {
		return false, err
	}
	if back {
		if err := c.retryNow(ctx, tx, farmName, site.Name); err != nil {
			return false, err
		}
	}
	return p.Drift != "" || p.Late != "" || p.Reach != farm.ReachUp, c.heal(ctx, tx, site, p, g.ours)
}

// seen is what of some sights is worth writing down: not their times.
func seen(sights []farm.Sight) string {
	var b strings.Builder
	for _, s := range sights {
		fmt.Fprintln(&b, s.Endpoint.Address, s.Answered, s.Fingerprint, s.Trusted, s.Distrust)
	}
	return b.String()
}

// retryNow rolls a restored version out again at once: the node that failed
// answers.
func (c *Controller) retryNow(ctx context.Context, tx *store.Tx, farmName, site string) error {
	cert, err := tx.Certificate(ctx, farmName, site)
	if err != nil || cert.Retry.IsZero() {
		return err
	}
	cert.Retry = tx.Now()
	if err := tx.PutCertificate(ctx, cert); err != nil {
		return err
	}
	return arm(ctx, tx, farmName, "check", site, tx.Now())
}

// heal begins a one-target rollout where the target does not serve what it
// should, it can be worked on, and what it serves is nobody else's.
func (c *Controller) heal(ctx context.Context, tx *store.Tx, site farm.Site, p farm.Place, ours bool) error {
	if p.Drift == "" || p.Reach != farm.ReachUp || !ours || p.Again.After(tx.Now()) {
		return nil
	}
	if site.Policy.Drift == farm.Report && p.Late == "" {
		return nil
	}
	if held, err := tx.Word(ctx, p.Farm, wordHeld+p.Target.Node); err != nil || held != "" {
		return err
	}
	v, err := tx.Version(ctx, p.Farm, p.Desired[0])
	if err != nil || v.State != farm.VersionGood {
		return err
	}
	reason := "drift healed"
	if p.Late != "" {
		reason = "late target brought up to date"
	}
	_, err = start(ctx, tx, site, p.Farm, v, []farm.Place{p}, reason)
	return err
}

func noticedEvents(ctx context.Context, tx *store.Tx, site farm.Site, was, is farm.Place) error {
	e := farm.Event{Farm: is.Farm, Site: site.Name, Node: is.Target.Node, Target: is.Target.Name}
	if is.Reach != was.Reach && was.Reach != farm.ReachUnknown {
		e.Kind, e.Level, e.Text = "target."+string(is.Reach), farm.Warn, is.Target.Name+" cannot be reached and serves nothing"
		switch is.Reach {
		case farm.ReachHalf:
			e.Text = is.Target.Name + " serves, but cannot be reached for deployment"
		case farm.ReachUp:
			e.Level, e.Text = farm.Info, is.Target.Name+" answers again"
		}
		if err := tell(ctx, tx, e); err != nil {
			return err
		}
	}
	if is.Drift == was.Drift {
		return nil
	}
	e.Kind, e.Level, e.Text = "target.drift", farm.Warn, is.Target.Name+": "+is.Drift
	if is.Drift == "" {
		e.Kind, e.Level, e.Text = "target.in-step", farm.Info, is.Target.Name+" serves what it should again"
	}
	return tell(ctx, tx, e)
}

// disagreements tells of balancers behind which something else is served. That
// asks for attention; it is never a reason to restore.
func disagreements(ctx context.Context, tx *store.Tx, farmName string, site farm.Site, tallies map[string]probe.Tally) error {
	for address, t := range tallies {
		word := "balancer " + site.Name + " " + address
		was, err := tx.Word(ctx, farmName, word)
		if err != nil {
			return err
		}
		is := ""
		if _, ok := t.Agreed(); !ok {
			is = fmt.Sprintf("%d connections met %d leaves, %d failed", t.Sights, len(t.Leaves), t.Failed)
		}
		if (is == "") == (was == "") {
			continue
		}
		if err := tx.SetWord(ctx, farmName, word, is); err != nil {
			return err
		}
		e := farm.Event{Farm: farmName, Site: site.Name, Kind: "balancer.agrees", Text: "balancer " + address + " serves one certificate"}
		if is != "" {
			e.Kind, e.Level, e.Text = "balancer.disagrees", farm.Warn, "balancer "+address+": "+is
		}
		if err := tell(ctx, tx, e); err != nil {
			return err
		}
	}
	return nil
}

// saw keeps what an act saw of a target.
func saw(ctx context.Context, tx *store.Tx, farmName, target string, sights []farm.Sight) error {
	p, err := tx.Place(ctx, farmName, target)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	p.Sights, p.Looked = sights, tx.Now()
	return tx.PutPlace(ctx, p)
}
