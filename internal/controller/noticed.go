package controller

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/store"
)

// noticedAll writes what a look at a site changed. It reports that some target
// wants to be looked at again soon.
func (c *Controller) noticedAll(ctx context.Context, tx *store.Tx, farmName string, site farm.Site, l looked) (late bool, err error) {
	if only, err := observing(ctx, tx, farmName, site.Name); err != nil || only {
		if err != nil {
			return false, err
		}
		return false, observe(ctx, tx, farmName, site.Name, l.glances)
	}
	running, err := tx.RunningRollouts(ctx, farmName, site.Name)
	if err != nil || len(running) > 0 {
		return false, err // what was seen is of before it began
	}
	for _, g := range l.glances {
		soon, err := c.noticed(ctx, tx, farmName, site, g)
		if err != nil {
			return false, err
		}
		late = late || soon
	}
	return late, disagreements(ctx, tx, farmName, site, l.tallies)
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
	reason := reasonDrift
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
