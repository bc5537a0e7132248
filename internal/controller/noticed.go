package controller

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/store"
)

// noticedAll writes what a look at a site changed. It reports that some target
// wants to be looked at again soon.
func (c *Controller) noticedAll(ctx context.Context, tx *store.Tx, farmName string, site farm.Site, l looked) (late bool, err error) {
	only, err := observing(ctx, tx, farmName, site.Name)
	if err != nil {
		return false, err
	}
	if only {
		return observedOnly(ctx, tx, farmName, site.Name, l.glances)
	}
	running, err := tx.RunningRollouts(ctx, farmName, site.Name)
	if err != nil || len(running) > 0 {
		return false, err // what was seen is of before it began
	}
	fresh, err := rolledLately(ctx, tx, farmName, site.Name)
	if err != nil {
		return false, err
	}
	for _, g := range l.glances {
		if fresh && g.drift != "" && g.ours {
			late = true // an old worker of the server, perhaps, that is on its way out
			continue
		}
		soon, err := c.noticed(ctx, tx, farmName, site, g)
		if err != nil {
			return false, err
		}
		late = late || soon
	}
	return late, errors.Join(disagreements(ctx, tx, farmName, site, l.tallies), noticedBehind(ctx, tx, farmName, site, l.behind))
}

// observedOnly writes what was seen of a site that is only looked at, for now, and
// reports whether it still is.
func observedOnly(ctx context.Context, tx *store.Tx, farmName, site string, seen []glance) (still bool, err error) {
	if err := observe(ctx, tx, farmName, site, seen); err != nil {
		return false, err
	}
	return observing(ctx, tx, farmName, site)
}

// reloadSettles is how long after a rollout a process of before may still answer.
const reloadSettles = 2 * time.Second

// rolledLately reports that a rollout of the site ended a moment ago.
func rolledLately(ctx context.Context, tx *store.Tx, farmName, site string) (bool, error) {
	newest, err := tx.Rollouts(ctx, farmName, site, 1)
	return len(newest) > 0 && tx.Now().Sub(newest[0].Ended) < reloadSettles, err
}

// noticed writes what a glance changed. It reports that the target wants to be
// looked at again soon.
func (c *Controller) noticed(ctx context.Context, tx *store.Tx, farmName string, site farm.Site, g glance) (late bool, err error) {
	p, err := tx.Place(ctx, farmName, g.target)
	if errors.Is(err, store.ErrNotFound) || err == nil && p.Released {
		return false, nil // taken out of farm.yaml meanwhile
	}
	if err != nil {
		return false, err
	}
	was := p
	p = after(was, g, tx.Now())
	if !reflect.DeepEqual(p, was) {
		if err := tx.PutPlace(ctx, p); err != nil {
			return false, err
		}
	}
	if err := errors.Join(noticedEvents(ctx, tx, site, was, p), tidyUp(ctx, tx, p)); err != nil {
		return false, err
	}
	if answersAgain(was, g) {
		if err := c.retryNow(ctx, tx, farmName, site.Name); err != nil {
			return false, err
		}
	}
	return p.Drift != "" || p.Late != "" || p.Reach != farm.ReachUp, c.heal(ctx, tx, site, p, g.ours)
}

// tidyUp has done what waits for a target to serve what it should, however it came
// to that: the end of a rollout is not always what tells.
func tidyUp(ctx context.Context, tx *store.Tx, is farm.Place) error {
	if is.Drift != "" || is.Late != "" {
		return nil
	}
	if !is.Purge.IsZero() {
		if err := armErase(ctx, tx, is); err != nil {
			return err
		}
	}
	return armPutBack(ctx, tx, is)
}

// seen is what of some sights is worth writing down: not their times.
func seen(sights []farm.Sight) string {
	var b strings.Builder
	for _, s := range sights {
		fmt.Fprintln(&b, s.Endpoint.Address, s.Answered, s.Fingerprint, s.Trusted, s.Distrust)
	}
	return b.String()
}

// after is what is known of a target after a glance.
func after(p farm.Place, g glance, now time.Time) farm.Place {
	was := p
	p.Reach, p.Drift, p.Foreign = g.reach, g.drift, g.drift != "" && !g.ours
	changed := p.Reach != was.Reach || p.Drift != was.Drift
	if changed {
		p.Since = now
	}
	if p.Drift == "" && p.Late != "" { // a person brought it up to date
		p.Late, p.Tries = "", 0
	}
	if changed || seen(was.Sights) != seen(g.sights) {
		p.Sights, p.Looked = g.sights, now
	}
	if g.reach == farm.ReachUp && was.Reach != farm.ReachUp && was.Reach != farm.ReachUnknown {
		p.Again = time.Time{} // it answers: try at once
	}
	return p
}

// answersAgain reports that a target that could not be reached, or was silent, can
// be worked on and serves. One that is silent is not back yet.
func answersAgain(was farm.Place, g glance) bool {
	away := was.Reach != farm.ReachUp && was.Reach != farm.ReachUnknown
	return g.reach == farm.ReachUp && !probe.Silent(g.sights) && (away || probe.Silent(was.Sights))
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
	if p.Drift == "" || p.Reach != farm.ReachUp || p.Again.After(tx.Now()) {
		return nil
	}
	v, err := tx.Version(ctx, p.Farm, p.Desired[0])
	if err != nil || v.State != farm.VersionGood {
		return err
	}
	if may, err := mayHeal(ctx, tx, site, p, v, ours); err != nil || !may {
		return err
	}
	if may, _, err := mayChange(ctx, tx, p); err != nil || !may {
		return err
	}
	reason := reasonDrift
	if p.Late != "" {
		reason = "late target brought up to date"
	}
	_, err = start(ctx, tx, site, p.Farm, v, []farm.Place{p}, reason)
	return err
}

// mayHeal reports that nobody wants the target left as it is.
func mayHeal(ctx context.Context, tx *store.Tx, site farm.Site, p farm.Place, v farm.Version, ours bool) (bool, error) {
	held, err := tx.Word(ctx, p.Farm, wordHeld+p.Target.Node)
	switch {
	case err != nil || held != "":
		return false, err
	case !ours:
		return mayReplace(ctx, tx, p, v)
	}
	if site.Policy.Drift != farm.Report || p.Late != "" {
		return true, nil
	}
	return servesRefused(ctx, tx, p)
}

// servesRefused reports that a target was seen to serve a leaf that clients refuse,
// or whose key others know: that is nothing to be reported only.
func servesRefused(ctx context.Context, tx *store.Tx, p farm.Place) (bool, error) {
	versions, err := everHeld(ctx, tx, p.Farm, p.Target.Site)
	return slices.ContainsFunc(versions, func(v farm.Version) bool {
		if v.State != farm.VersionCompromised && v.State != farm.VersionRevoked {
			return false
		}
		return slices.ContainsFunc(p.Sights, func(s farm.Sight) bool {
			return slices.ContainsFunc(s.Fingerprint, func(f string) bool { return slices.Contains(v.Fingerprints(), f) })
		})
	}), err
}

func noticedEvents(ctx context.Context, tx *store.Tx, site farm.Site, was, is farm.Place) error {
	if err := tellReach(ctx, tx, was, is); err != nil || is.Drift == was.Drift {
		return err
	}
	e := farm.Event{Farm: is.Farm, Site: site.Name, Node: is.Target.Node, Target: is.Target.Name}
	e.Kind, e.Level, e.Text = "target.drift", farm.Warn, is.Target.Name+": "+is.Drift
	switch {
	case is.Drift == "":
		e.Kind, e.Level, e.Text = "target.in-step", farm.Info, is.Target.Name+" serves what it should again"
	case is.Foreign:
		e.Hint = "it is left alone: `certfarm rollout approve " + site.Name + "` replaces it, `certfarm import " + site.Name + " …` makes it ours"
	}
	return tell(ctx, tx, e)
}

// tellReach tells that a target is reached in another way than before.
func tellReach(ctx context.Context, tx *store.Tx, was, is farm.Place) error {
	if is.Reach == was.Reach || was.Reach == farm.ReachUnknown {
		return nil
	}
	e := farm.Event{
		Farm: is.Farm, Site: is.Target.Site, Node: is.Target.Node, Target: is.Target.Name, Kind: "target." + string(is.Reach),
		Level: farm.Warn, Text: is.Target.Name + " cannot be reached and serves nothing",
	}
	switch is.Reach {
	case farm.ReachHalf:
		e.Text = is.Target.Name + " serves, but cannot be reached for deployment"
	case farm.ReachUp:
		e.Level, e.Text = farm.Info, is.Target.Name+" answers again"
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
		agreed, err := agrees(ctx, tx, farmName, site, t)
		if err != nil {
			return err
		}
		if !agreed {
			is = fmt.Sprintf("%d connections met %d leaves, %d failed", t.Sights, len(t.Leaves), t.Failed)
		}
		if (is == "") == (was == "") {
			continue
		}
		if err := tx.SetWord(ctx, farmName, word, is); err != nil {
			return err
		}
		e := farm.Event{Farm: farmName, Site: site.Name, About: address, Kind: "balancer.agrees", Text: "balancer " + address + " serves one certificate"}
		if is != "" {
			e.Kind, e.Level, e.Text = "balancer.disagrees", farm.Warn, "balancer "+address+": "+is
		}
		if err := tell(ctx, tx, e); err != nil {
			return err
		}
	}
	return nil
}
