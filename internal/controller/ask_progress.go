package controller

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/rollout"
	"github.com/certfarm/certfarm/internal/store"
)

// Progress is what a site is busy with. Who follows a site asks for it until it
// rests, or until it waits for longer than they do.
type Progress struct {
	SiteStatus
	Rest   bool      `json:"rest" doc:"no order and no rollout is under way, and no check or look is due now"`
	Newest string    `json:"newest,omitempty" doc:"the newest rollout, which runs or has ended"`
	Waits  string    `json:"waits,omitempty" doc:"what it waits for, where nothing can be done now"`
	Again  time.Time `json:"again,omitzero" doc:"when it goes on by itself; not set: when a person acts, or a node answers"`
	Retry  time.Time `json:"retry,omitzero" doc:"when the version that was put back is rolled out again"`
}

// Progress tells what the named sites are busy with, in the order asked.
func (c *Controller) Progress(ctx context.Context, farmName string, sites ...string) (all []Progress, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		for _, name := range sites {
			p, err := progress(ctx, tx, farmName, name)
			if err != nil {
				return err
			}
			all = append(all, p)
		}
		return nil
	})
	return all, err
}

func progress(ctx context.Context, tx *store.Tx, farmName, name string) (p Progress, err error) {
	sites, err := sitesNamed(ctx, tx, farmName, name)
	if err != nil {
		return p, err
	}
	if sites[0].Name != name {
		return groupProgress(ctx, tx, farmName, name, sites)
	}
	return oneProgress(ctx, tx, farmName, sites[0])
}

// oneProgress is what one site is busy with.
func oneProgress(ctx context.Context, tx *store.Tx, farmName string, site farm.Site) (p Progress, err error) {
	name := site.Name
	d, err := detail(ctx, tx, farmName, site)
	if err != nil {
		return p, err
	}
	newest, err := tx.Rollouts(ctx, farmName, name, 1)
	if err != nil {
		return p, err
	}
	p.of(d, newest, tx.Now())
	switch {
	case p.Rollout != "":
		return p, p.ofRollout(ctx, tx, farmName)
	case d.Certificate.Intent != "":
		return p, p.ofOrders(ctx, tx, farmName, d.Certificate.Intent)
	}
	for _, kind := range []string{"check", "look", "compromise"} {
		busy, err := dueNow(ctx, tx, farmName, kind, name)
		if busy || err != nil {
			return p, err
		}
	}
	if waits, err := p.ofWait(ctx, tx, farmName, site); err != nil || waits {
		return p, err
	}
	busy, err := p.ofRevocations(ctx, tx, farmName, d.Versions)
	p.Rest = err == nil && !busy && !p.ofCompromise(d)
	return p, err
}

// of fills in what is known of the site and its newest rollout.
func (p *Progress) of(d SiteDetail, newest []farm.Rollout, now time.Time) {
	p.SiteStatus = d.SiteStatus
	if d.Rollout == "" && d.Certificate.Retry.After(now) {
		p.Retry = d.Certificate.Retry
	}
	if len(newest) > 0 {
		p.Newest = newest[0].ID
	}
}

// ofCompromise reports that a key is known to others and not done away with, and
// says what that waits for.
func (p *Progress) ofCompromise(d SiteDetail) bool {
	j := d.Certificate.Compromise
	if !j.Open() || j.Stage == farm.Erasing {
		return false
	}
	p.Waits = cmp.Or(j.Waits, "the key is known to others")
	if d.Versions[0].State == farm.VersionCompromised { // no other was ordered yet
		p.Waits += "; of the certificate: " + d.Verdict
	}
	return true
}

// ofRevocations reports that the CA is asked to revoke something, and says what
// that waits for.
func (p *Progress) ofRevocations(ctx context.Context, tx *store.Tx, farmName string, versions []farm.Version) (busy bool, err error) {
	for _, v := range versions {
		if len(v.Unrevoked(tx.Now())) == 0 {
			continue
		}
		now, err := dueNow(ctx, tx, farmName, "revoke", v.ID)
		if err != nil || now {
			return true, err
		}
		p.Waits, p.Again = cmp.Or(v.Revocation.Error, "the CA is asked to revoke "+farm.Short(leafOf(v))), v.Revocation.Again
		busy = true
	}
	return busy, nil
}

// ofRollout says what the running rollout waits for.
func (p *Progress) ofRollout(ctx context.Context, tx *store.Tx, farmName string) error {
	r, err := tx.Rollout(ctx, farmName, p.Rollout)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(r.Steps, func(s farm.Step) bool { return s.Doing != "" }) {
		return nil
	}
	frozen, err := tx.Word(ctx, farmName, wordFrozen)
	if err != nil {
		return err
	}
	held, err := heldNode(ctx, tx, r)
	if err != nil {
		return err
	}
	if d := rollout.Next(r, frozen != "" || held != "", tx.Now()); len(d.Acts) == 0 && d.Outcome == farm.Running {
		p.Waits, p.Again = cmp.Or(d.Why, "the rollout waits"), d.Until
		if held != "" && frozen == "" {
			p.Waits = "node " + held + " is held: `certfarm node release " + held + "` lets it go on"
		}
	}
	return nil
}

// ofOrders says what the orders of an intent wait for.
func (p *Progress) ofOrders(ctx context.Context, tx *store.Tx, farmName, intent string) error {
	orders, err := tx.OrdersOfIntent(ctx, farmName, intent)
	if err != nil {
		return err
	}
	for _, o := range orders {
		job, err := tx.Job(ctx, farmName, "order", o.ID)
		if errors.Is(err, store.ErrNotFound) || err == nil && (job.Owner != "" || !job.RunAt.After(tx.Now())) {
			continue
		}
		if err != nil {
			return err
		}
		if p.Waits == "" || job.RunAt.Before(p.Again) {
			p.Waits, p.Again = "the order is "+string(o.State), job.RunAt
			if why := cmp.Or(o.Error, job.Error); why != "" {
				p.Waits += ": " + why
			} else if len(p.Attention) > 0 {
				p.Waits = p.Attention[0] // such as an account that cannot be opened
			}
		}
	}
	return nil
}

// dueNow reports that a job runs or could.
func dueNow(ctx context.Context, tx *store.Tx, farmName, kind, subject string) (bool, error) {
	j, err := tx.Job(ctx, farmName, kind, subject)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil && (j.Owner != "" || !j.RunAt.After(tx.Now())), err
}
