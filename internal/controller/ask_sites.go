package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/store"
)

// A SiteStatus is one line about a site. Sync and health are two things: a farm
// may serve what it should while a renewal fails, and the other way round.
type SiteStatus struct {
	Name      string    `json:"name"`
	Sync      string    `json:"sync" enum:"in-sync,drifted,unknown"`
	Health    string    `json:"health" enum:"healthy,progressing,degraded,missing"`
	Names     []string  `json:"names"`
	Issuer    string    `json:"issuer"`
	Fallbacks []string  `json:"fallbacks,omitempty" doc:"issuers that are asked in turn when that one cannot issue in time"`
	Version   string    `json:"version,omitempty" doc:"fingerprint of the first leaf that the targets should hold"`
	NotAfter  time.Time `json:"not_after,omitzero"`
	Next      time.Time `json:"next,omitzero" doc:"when the certificate is looked at or renewed next"`
	Verdict   string    `json:"verdict,omitempty" doc:"why it is or is not due"`
	Targets   int       `json:"targets"`
	InStep    int       `json:"in_step" doc:"targets seen to serve what they should"`
	Rollout   string    `json:"rollout,omitempty" doc:"the one that runs"`
	Of        string    `json:"of,omitempty" doc:"the site in farm.yaml that it is one node's part of (strategy per-node)"`
	Waits     string    `json:"waits,omitempty" doc:"of a node's part: why it waits for those that go first"`
	Attention []string  `json:"attention,omitempty" doc:"what asks for a person, in words"`
}

// A SiteDetail is everything about a site.
type SiteDetail struct {
	SiteStatus
	Certificate farm.Certificate `json:"certificate"`
	Versions    []farm.Version   `json:"versions"`
	Places      []farm.Place     `json:"places"`
	Orders      []farm.Order     `json:"orders"`
	Rollouts    []farm.Rollout   `json:"rollouts"`
	Events      []farm.Event     `json:"events"`
	Policy      farm.Policy      `json:"policy"`
	Members     []SiteStatus     `json:"members,omitempty" doc:"of a site with strategy per-node: each node's part, in the order in which they go"`
}

// Shown is what people may see of it: no deployer's notes, and nothing that answers the
// CA's questions.
func (d SiteDetail) Shown() SiteDetail {
	d.Rollouts, d.Orders = slices.Clone(d.Rollouts), slices.Clone(d.Orders)
	for i := range d.Rollouts {
		d.Rollouts[i] = d.Rollouts[i].Shown()
	}
	for i := range d.Orders {
		d.Orders[i].Authz = nil
	}
	return d
}

// Sites lists sites by name, after a name, at most limit (0: 100).
func (c *Controller) Sites(ctx context.Context, farmName, after string, limit int) (all []SiteStatus, err error) {
	if limit <= 0 {
		limit = 100
	}
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		sites, err := tx.Sites(ctx, farmName, after, limit)
		if err != nil {
			return err
		}
		for _, s := range sites {
			d, err := detail(ctx, tx, farmName, s)
			if err != nil {
				return err
			}
			all = append(all, d.SiteStatus)
		}
		return nil
	})
	return all, err
}

// Describe tells everything about a site.
func (c *Controller) Describe(ctx context.Context, farmName, name string) (d SiteDetail, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		sites, err := sitesNamed(ctx, tx, farmName, name)
		if err != nil {
			return err
		}
		if sites[0].Name != name {
			d, err = groupDetail(ctx, tx, farmName, name, sites)
			return err
		}
		if d, err = detail(ctx, tx, farmName, sites[0]); err != nil {
			return err
		}
		if d.Orders, err = tx.Orders(ctx, farmName, store.OrderQuery{Site: name, Limit: 10}); err != nil {
			return err
		}
		if d.Rollouts, err = tx.Rollouts(ctx, farmName, name, 5); err != nil {
			return err
		}
		d.Events, err = tx.Events(ctx, farmName, store.EventQuery{Site: name, Limit: 20, Newest: true})
		return err
	})
	return d, err
}

func detail(ctx context.Context, tx *store.Tx, farmName string, site farm.Site) (d SiteDetail, err error) {
	d.Policy = site.Policy
	d.Name, d.Names, d.Issuer, d.Fallbacks = site.Name, site.Names, site.Issuer, site.Fallbacks
	if d.Certificate, err = tx.Certificate(ctx, farmName, site.Name); err != nil {
		return d, err
	}
	if d.Versions, err = tx.Versions(ctx, farmName, site.Name); err != nil {
		return d, err
	}
	if site.Member != nil {
		d.Of = site.Member.Of
		if d.Waits, err = tx.Word(ctx, farmName, wordWaits+site.Name); err != nil {
			return d, err
		}
	}
	if d.Places, err = tx.Places(ctx, farmName, site.Name); err != nil {
		return d, err
	}
	running, err := tx.RunningRollouts(ctx, farmName, site.Name)
	if err != nil {
		return d, err
	}
	if len(running) > 0 {
		d.Rollout = running[0].ID
	}
	d.Next, d.Verdict = d.Certificate.Next, d.Certificate.Verdict
	before, err := heldBefore(ctx, tx, farmName, site.Name)
	if err != nil {
		return d, err
	}
	d.judge(before, tx.Now())
	if d.Certificate.Intent == "" {
		return d, nil
	}
	return d, errors.Join(d.ofOrders(ctx, tx, farmName), d.ofAccount(ctx, tx, farmName))
}

// judge fills in what the rows together say.
func (d *SiteDetail) judge(before []farm.Version, now time.Time) {
	versions := map[string]farm.Version{}
	for _, v := range slices.Concat(before, d.Versions) {
		versions[v.ID] = v
	}
	d.Sync, d.Health = "in-sync", "healthy"
	for _, p := range d.Places {
		d.ofPlace(p, versions)
		d.ofWindow(p, versions[d.Certificate.Version], now)
	}
	switch {
	case d.Rollout != "" || d.Certificate.Intent != "":
		d.Health = "progressing"
	case d.Certificate.Failures > 0 || d.Certificate.Retries > 0 || len(d.Attention) > 0 || !d.NotAfter.IsZero() && now.After(d.NotAfter):
		d.Health = "degraded"
	}
	d.ofTries()
	d.ofCompromise(now)
	d.ofAbort(versions[d.Certificate.Aborted])
}

// ofPlace counts one target in.
func (d *SiteDetail) ofPlace(p farm.Place, versions map[string]farm.Version) {
	if p.Released {
		d.Attention = append(d.Attention, p.Target.Name+" is gone from farm.yaml and left alone until `certfarm retire`")
		return
	}
	d.Targets++
	if len(p.Desired) == 0 {
		d.Sync, d.Health = "unknown", "missing"
		return
	}
	if v := versions[p.Desired[0]]; d.NotAfter.IsZero() || v.NotAfter().Before(d.NotAfter) {
		d.Version, d.NotAfter = leafOf(v), v.NotAfter()
	}
	if inStep(p, versions) {
		d.InStep++
		return
	}
	d.Sync = "drifted"
	if why := p.Trouble(); why != "" {
		d.Attention = append(d.Attention, why)
	}
}

// ofWindow tells of a target that the newest version has not reached, since its own
// window is shut.
func (d *SiteDetail) ofWindow(p farm.Place, newest farm.Version, now time.Time) {
	open, opens := farm.Open(p.Target.Windows, now)
	if open || p.Released || newest.State != farm.VersionGood || slices.Contains(p.Desired, newest.ID) || d.Rollout != "" || d.Certificate.Intent != "" {
		return
	}
	d.Sync = "drifted"
	d.Attention = append(d.Attention, fmt.Sprintf("%s has a window of its own: %s goes there at %s", p.Target.Name, farm.Short(leafOf(newest)), opens.UTC().Format("2006-01-02 15:04 MST")))
}

// ofTries says what went wrong last and is tried again.
func (d *SiteDetail) ofTries() {
	if d.Certificate.Failures > 0 && d.Certificate.Intent == "" {
		d.Attention = append(d.Attention, "the last order or version failed: "+d.Certificate.Verdict)
	}
	if d.Certificate.Retries > 0 {
		d.Attention = append(d.Attention, "the last rollout was restored; it is tried again at "+d.Certificate.Retry.UTC().Format("2006-01-02 15:04 MST"))
	}
}

// ofCompromise says how far the journey away from a key is that others know, and
// what the CA would not revoke.
func (d *SiteDetail) ofCompromise(now time.Time) {
	if j := d.Certificate.Compromise; j.Open() {
		text := "its key is known to others; " + string(j.Stage)
		if j.Waits != "" {
			text += ": " + j.Waits
		}
		d.Attention = append(d.Attention, text)
		if d.Health == "healthy" {
			d.Health = "progressing"
		}
	}
	for _, v := range d.Versions {
		for _, l := range v.Leaves {
			if l.NotRevoked != "" && now.Before(l.NotAfter) {
				d.Attention = append(d.Attention, farm.Short(l.Fingerprint)+" (serial "+l.Serial+") is not revoked: "+l.NotRevoked)
				if d.Health == "healthy" {
					d.Health = "degraded"
				}
			}
		}
	}
}

// ofAbort says that the newest version is not everywhere since a person aborted
// its rollout.
func (d *SiteDetail) ofAbort(v farm.Version) {
	if v.ID == "" || v.ID != d.Certificate.Version || v.State != farm.VersionGood {
		return
	}
	d.Attention = append(d.Attention, "the rollout of "+farm.Short(leafOf(v))+" was "+d.Certificate.AbortedBy+
		": it is not tried again before `certfarm rollout approve "+d.Name+"` or `certfarm renew "+d.Name+"`")
	if d.Health == "healthy" {
		d.Health = "degraded"
	}
}

// ofOrders says why the orders under way do not get on.
func (d *SiteDetail) ofOrders(ctx context.Context, tx *store.Tx, farmName string) error {
	orders, err := tx.OrdersOfIntent(ctx, farmName, d.Certificate.Intent)
	for _, o := range orders {
		if why, _, _ := strings.Cut(o.Error, "\n"); why != "" && !o.State.Ended() {
			d.Attention = append(d.Attention, "its order waits: "+why)
		}
	}
	return err
}

// ofAccount says whether the CA keeps the whole account waiting.
func (d *SiteDetail) ofAccount(ctx context.Context, tx *store.Tx, farmName string) error {
	for _, name := range append([]string{d.Issuer}, d.Fallbacks...) {
		i, err := tx.Issuer(ctx, farmName, name)
		if err != nil {
			return err
		}
		a, err := tx.Account(ctx, farmName, i.Name, i.Directory)
		if err := unlessGone(err); err != nil {
			return err
		}
		if a.HoldUntil.After(tx.Now()) {
			d.Attention = append(d.Attention, "issuer "+i.Name+" waits until "+a.HoldUntil.UTC().Format("2006-01-02 15:04 MST")+": "+a.HoldWhy)
		}
	}
	return nil
}

// inStep reports that every endpoint that must was last seen to serve what the target
// should hold.
func inStep(p farm.Place, versions map[string]farm.Version) bool {
	var leaves []farm.Leaf
	for _, id := range p.Desired {
		leaves = append(leaves, versions[id].Leaves...)
	}
	for _, s := range probe.Present(p.Sights, p.Target.AbsentMax) {
		if ok, _, _ := probe.Judge(leaves, s, s.At); !ok {
			return false
		}
	}
	return len(p.Sights) > 0
}

// Renew orders a new certificate for a site now, within the CA's limits. Where an
// order is under way already there is nothing to ask for; one that the CA has not
// heard of yet, since a preflight holds it, is tried again at once.
func (c *Controller) Renew(ctx context.Context, farmName, site, by string) error {
	return c.Store.Update(ctx, func(tx *store.Tx) error {
		sites, err := sitesNamed(ctx, tx, farmName, site)
		if err != nil {
			return err
		}
		for _, s := range sites {
			if err := renewOne(ctx, tx, farmName, s.Name, by); err != nil {
				return err
			}
		}
		return nil
	})
}

func renewOne(ctx context.Context, tx *store.Tx, farmName, site, by string) error {
	cert, err := tx.Certificate(ctx, farmName, site)
	if err != nil {
		return err
	}
	if cert.Intent != "" {
		err = hurry(ctx, tx, farmName, cert.Intent)
	} else {
		err = tx.SetWord(ctx, farmName, wordRenew+site, by)
	}
	if err != nil {
		return err
	}
	return goOn(ctx, tx, farmName, site)
}

// goOn checks a site now of which a person has said what is to be served: what was
// only looked at, or left alone, need not be any longer.
func goOn(ctx context.Context, tx *store.Tx, farmName, site string) error {
	if err := observed(ctx, tx, farmName, site); err != nil {
		return err
	}
	if _, err := assent(ctx, tx, farmName, site); err != nil {
		return err
	}
	return arm(ctx, tx, farmName, "check", site, tx.Now())
}

// hurry has the orders of an intent that were not opened yet tried now.
func hurry(ctx context.Context, tx *store.Tx, farmName, intent string) error {
	orders, err := tx.OrdersOfIntent(ctx, farmName, intent)
	if err != nil {
		return err
	}
	for _, o := range orders {
		if o.State != farm.OrderNew {
			continue
		}
		o.Again = time.Time{}
		if err := tx.PutOrder(ctx, o); err != nil {
			return err
		}
		if err := armOrder(ctx, tx, o); err != nil {
			return err
		}
	}
	return nil
}
