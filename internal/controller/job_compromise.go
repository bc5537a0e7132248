package controller

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/renew"
	"github.com/certfarm/certfarm/internal/store"
)

// An exposure is what is known of a site whose keys others know.
type exposure struct {
	renew.Exposure
	cert farm.Certificate
	bad  []farm.Version // whose keys others know
	look lookout
}

// exposed reads it; open is false where no journey is under way.
func exposed(ctx context.Context, tx *store.Tx, farmName, site string) (x exposure, open bool, err error) {
	if x.cert, err = tx.Certificate(ctx, farmName, site); err != nil || !x.cert.Compromise.Open() {
		return x, false, err
	}
	versions, err := tx.Versions(ctx, farmName, site)
	if err != nil {
		return x, false, err
	}
	for _, v := range versions {
		if v.State == farm.VersionCompromised {
			x.bad = append(x.bad, v)
			x.count(v, tx.Now())
		}
	}
	x.Now = x.cert.Compromise.Now
	if x.look, err = lookouts(ctx, tx, farmName, site, leavesOf(x.bad)); err != nil {
		return x, false, err
	}
	x.Endpoints = x.look.asks()
	return x, true, x.places(ctx, tx, farmName, site)
}

// count adds what is left to do about one version.
func (x *exposure) count(v farm.Version, now time.Time) {
	for _, l := range v.Leaves {
		switch {
		case l.Key.Sealed != "":
			x.Keys++
		case l.Key.Node != "":
			if on := "node " + l.Key.Node + " (where it was made)"; !slices.Contains(x.Copies, on) {
				x.Copies = append(x.Copies, on)
			}
		}
	}
	switch left := len(v.Unrevoked(now)); {
	case v.Revocation != nil:
		x.Revoking += left
	case now.Before(v.NotAfter()):
		x.Unasked += len(v.Leaves)
	}
}

// places reads whether every target should hold another key, and where copies of
// old ones are.
func (x *exposure) places(ctx context.Context, tx *store.Tx, farmName, site string) error {
	places, err := everOf(ctx, tx, farmName, site)
	if err != nil {
		return err
	}
	running, err := tx.RunningRollouts(ctx, farmName, site)
	if err != nil {
		return err
	}
	x.Replaced = len(running) == 0 && x.cert.Intent == ""
	for _, p := range places {
		if p.Released {
			continue
		}
		if !p.Purge.IsZero() && p.Target.Site == site {
			x.Copies = append(x.Copies, p.Target.Name)
		}
		old := func(v farm.Version) bool { return slices.Contains(p.Desired, v.ID) }
		if len(p.Desired) == 0 && p.Target.Site == site || slices.ContainsFunc(x.bad, old) {
			x.Replaced, x.Lacking = false, append(x.Lacking, p.Target.Name)
		}
	}
	return nil
}

// workCompromise asks every endpoint what it serves, where that is what comes next.
func (c *Controller) workCompromise(ctx context.Context, j farm.Job) farm.Result {
	var x exposure
	var open, only bool
	err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
		if only, err = observing(ctx, tx, j.Farm, j.Subject); err != nil || only {
			return err
		}
		x, open, err = exposed(ctx, tx, j.Farm, j.Subject)
		return err
	})
	switch {
	case err != nil:
		return farm.Result{Err: err}
	case only:
		return farm.Result{Again: c.Now().Add(c.Pace.Late)} // it is of a backup
	case !open:
		return farm.Result{}
	}
	var seen *Served
	if renew.Flee(x.Exposure).Do == renew.Look {
		s := c.served(ctx, x.look, leavesOf(x.bad))
		seen = &s
	}
	return farm.Result{Value: seen}
}

// applyCompromise does what comes next on the journey.
func (c *Controller) applyCompromise(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	seen, ok := f.Result.Value.(*Served)
	if !ok {
		return nil
	}
	x, open, err := exposed(ctx, tx, f.Job.Farm, f.Job.Subject)
	if err != nil || !open {
		return err
	}
	if seen != nil {
		x.Looked, x.Serving, x.Answered, x.Endpoints = true, seen.By, seen.Answered, seen.Endpoints
	}
	next := renew.Flee(x.Exposure)
	again, err := c.flees(ctx, tx, &x, next)
	if err != nil {
		return err
	}
	if err := x.note(ctx, tx, next, seen); err != nil || next.Do == renew.Over {
		return err
	}
	return arm(ctx, tx, f.Job.Farm, "compromise", f.Job.Subject, again)
}

// flees does what comes next, and says when to look again.
func (c *Controller) flees(ctx context.Context, tx *store.Tx, x *exposure, next renew.Flight) (again time.Time, err error) {
	again = tx.Now()
	switch next.Do {
	case renew.Revoke:
		err = x.revoke(ctx, tx)
	case renew.Erase:
		err = x.erase(ctx, tx)
	case renew.Await:
		if again = again.Add(c.Pace.Look); len(x.Serving) > 0 {
			again = tx.Now().Add(c.Pace.Late)
		}
	}
	if err == nil && next.Stage == farm.Erasing {
		err = x.forget(ctx, tx)
	}
	return again, err
}

// note writes how far the journey is, and tells what changes.
func (x *exposure) note(ctx context.Context, tx *store.Tx, next renew.Flight, seen *Served) error {
	was, is := *x.cert.Compromise, *x.cert.Compromise
	is.Stage, is.Waits = next.Stage, next.Why
	if was == is && next.Do != renew.Over {
		return nil
	}
	if next.Do == renew.Over {
		is.Ended = tx.Now()
	}
	x.cert.Compromise = &is
	if err := tx.PutCertificate(ctx, x.cert); err != nil {
		return err
	}
	e, news := x.news(was, is, seen)
	if !news {
		return nil
	}
	return tell(ctx, tx, e)
}

// news is what people are told of how far the journey is. The orders, the rollout,
// the revocations and the copies that are erased tell of themselves.
func (x *exposure) news(was, is farm.Compromise, seen *Served) (e farm.Event, news bool) {
	e = farm.Event{Farm: x.cert.Farm, Site: x.cert.Site, Kind: "compromise." + string(is.Stage), Text: is.Waits}
	switch {
	case !is.Ended.IsZero():
		e.Kind, e.Text = "compromise.over", "the old key is gone: every target has another one, what had it is revoked, and it is erased"
		return e, true
	case is.Stage == farm.Revoking && is.Waits == "":
		e.Text = "the old certificates are revoked now"
		if seen != nil && !x.Now {
			e.Text = "no endpoint serves an old certificate: they are revoked now"
		}
		if seen != nil && len(seen.Silent) > 0 {
			e.Level, e.Text = farm.Warn, e.Text+"; "+seen.silence()
			e.Hint = "what is silent is brought the new certificate when it answers; if it serves the old one before, clients refuse it"
		}
		return e, true
	case is.Waits == was.Waits:
		return e, false
	case x.Looked:
		e.Level = farm.Warn
		e.Hint = "they are brought up to date as soon as they can be; take them out of the balancer, or say `certfarm compromise " + x.cert.Site + " --revoke-now`"
		return e, true
	}
	return e, is.Stage == farm.Erasing && is.Waits != ""
}

// revoke has the old leaves revoked.
func (x *exposure) revoke(ctx context.Context, tx *store.Tx) error {
	for _, v := range x.bad {
		if v.Revocation != nil || !tx.Now().Before(v.NotAfter()) {
			continue
		}
		wish(&v, issue.KeyCompromise, x.cert.Compromise.By, tx)
		for _, l := range v.Leaves {
			if err := tx.SetWord(ctx, v.Farm, wordRevoked+l.Fingerprint, v.Site); err != nil {
				return err
			}
		}
		if err := errors.Join(tx.PutVersion(ctx, v), arm(ctx, tx, v.Farm, "revoke", v.ID, tx.Now())); err != nil {
			return err
		}
	}
	return nil
}

// forget has nodes erase the old keys that they hold.
func (x *exposure) forget(ctx context.Context, tx *store.Tx) error {
	for _, v := range x.bad {
		if err := armForget(ctx, tx, v); err != nil {
			return err
		}
	}
	return nil
}

// erase erases the old keys that are stored.
func (x *exposure) erase(ctx context.Context, tx *store.Tx) error {
	erased := false
	for _, v := range x.bad {
		some, err := eraseKeys(ctx, tx, &v)
		if err != nil {
			return err
		}
		erased = erased || some
	}
	if !erased {
		return nil
	}
	return tell(ctx, tx, farm.Event{
		Farm: x.cert.Farm, Kind: "keys.erased", Site: x.cert.Site, Text: "the old keys are erased from the store",
	})
}
