package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// erases is how many of a target's last installations may have left something on it.
const erases = 10

// A purge is what erasing a target's copies of old keys takes.
type purge struct {
	place    farm.Place
	receipts []deploy.Receipt // newest first
	deadline time.Duration
	lease    deploy.Lease
	keys     []string    // public keys of the farm whose private ones others know
	leaves   []farm.Leaf // of the site, that have such a key
	look     lookout     // where these may be served
}

// A purged is what came of it.
type purged struct {
	since     time.Time // of the wish
	forgotten deploy.Forgotten
	err       error
}

// armErase has the copies of old keys on a target erased, in the lane of what is
// changed there.
func armErase(ctx context.Context, tx *store.Tx, p farm.Place) error {
	return tx.Enqueue(ctx, farm.Job{
		Farm: p.Farm, Kind: "erase", Subject: p.Target.Name, Lane: laneOf(p.Target.Node + "/" + p.Target.Group), RunAt: tx.Now(),
	})
}

// laneOf is the lane of what is changed in a reload group.
func laneOf(group string) string {
	node, _, _ := strings.Cut(group, "/")
	if node == "" {
		return "place " + group // a share, a vault, a cloud
	}
	return "node " + node
}

// workErase takes away what the last installations left beside what is live. It
// touches nothing that is live, and may be repeated.
func (c *Controller) workErase(ctx context.Context, j farm.Job) farm.Result {
	var p purge
	err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
		p, err = purging(ctx, tx, j.Farm, j.Subject)
		return err
	})
	if err != nil || p.place.Purge.IsZero() {
		return farm.Result{Err: unlessGone(err)}
	}
	ctx, cancel := context.WithTimeout(ctx, p.deadline)
	defer cancel()
	r := purged{since: p.place.Purge}
	p.lease = deploy.Lease{Owner: c.Owner, Epoch: j.Epoch, Nonce: j.Nonce}
	r.forgotten, r.err = c.erase(ctx, p)
	result := farm.Result{Value: r, Err: r.err}
	if r.err != nil { // what others know is not left lying about for longer than need be
		result.Again = c.Now().Add(min(time.Duration(j.Attempt)*c.Pace.Late, c.Pace.Look))
	}
	return result
}

// purging reads what a target is to be rid of; no wish where it is not time: the
// target does not hold another key yet, and the end of a rollout says when; or its node
// is held, and looks ask again.
func purging(ctx context.Context, tx *store.Tx, farmName, target string) (p purge, err error) {
	if p.place, err = tx.Place(ctx, farmName, target); err != nil {
		return p, err
	}
	ready := !p.place.Released && p.place.Late == "" && len(p.place.Desired) > 0
	for _, id := range p.place.Desired {
		v, err := tx.Version(ctx, farmName, id)
		if err := unlessGone(err); err != nil {
			return p, err
		}
		ready = ready && v.State != farm.VersionCompromised
	}
	held, err := tx.Word(ctx, farmName, wordHeld+p.place.Target.Node)
	if err != nil {
		return p, err
	}
	if !ready || held != "" {
		p.place.Purge = time.Time{}
		return p, nil
	}
	site, err := tx.Site(ctx, farmName, p.place.Target.Site)
	if err != nil {
		return p, err
	}
	p.deadline = site.Policy.Deadline
	if p.receipts, err = receiptsOf(ctx, tx, farmName, site.Name, target); err != nil {
		return p, err
	}
	return p, p.known(ctx, tx)
}

// known reads which keys others know, and where they may be served.
func (p *purge) known(ctx context.Context, tx *store.Tx) error {
	words, err := tx.Words(ctx, p.place.Farm, wordCompromised)
	if err != nil {
		return err
	}
	p.keys = slices.Sorted(maps.Keys(words))
	held, err := everHeld(ctx, tx, p.place.Farm, p.place.Target.Site)
	if err != nil {
		return err
	}
	for _, v := range held {
		if v.State == farm.VersionCompromised {
			p.leaves = append(p.leaves, v.Leaves...)
		}
	}
	p.look, err = lookouts(ctx, tx, p.place.Farm, p.place.Target.Site, p.leaves)
	return err
}

// receiptsOf are those of the target's last rollouts, the newest first.
func receiptsOf(ctx context.Context, tx *store.Tx, farmName, site, target string) (all []deploy.Receipt, err error) {
	steps, err := tx.StepsOf(ctx, farmName, site, target, erases)
	if err != nil {
		return nil, err
	}
	for _, s := range steps {
		if s.Receipt == nil {
			continue
		}
		var r deploy.Receipt
		if err := json.Unmarshal(s.Receipt, &r); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// erase discards what each receipt put there. An older one that does not fit the
// target any more, since its options have changed, is no reason to fail: the newest
// is what keeps a way back. Then a place that keeps versions by itself forgets those
// with an old key.
func (c *Controller) erase(ctx context.Context, p purge) (f deploy.Forgotten, err error) {
	d, err := c.deployer(ctx, p.place.Farm, p.place.Target, p.lease)
	if err != nil {
		return f, err
	}
	for i, r := range p.receipts {
		if err := d.Discard(ctx, r); err != nil && (i == 0 || ctx.Err() != nil) {
			return f, err
		} else if err != nil {
			c.Log.Warn("erase copies of an old key", "target", p.place.Target.Name, "error", err)
		}
	}
	keeps, ok := bare(d).(deploy.Forgetter)
	if !ok {
		return f, nil
	}
	if err := c.unread(ctx, p); err != nil {
		return f, err
	}
	return keeps.Forget(ctx, p.keys)
}

// unread says why an old version that is not current may still be what somebody
// reads and serves: one that reads by a version's own name, or reads seldom.
func (c *Controller) unread(ctx context.Context, p purge) error {
	switch seen := c.served(ctx, p.look, p.leaves); {
	case len(seen.By) > 0:
		return fmt.Errorf("the old certificate is still served by %s, so no earlier version is taken away", list(seen.By))
	case seen.Endpoints > 0 && seen.Answered == 0:
		return errors.New("no endpoint answers, so it cannot be told whether one serves the old certificate, and no earlier version is taken away")
	}
	return nil
}

// applyErase writes that a target has no copies of old keys any more, or tells why
// it has.
func (c *Controller) applyErase(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	r, ok := f.Result.Value.(purged)
	if !ok {
		return nil
	}
	p, err := tx.Place(ctx, f.Job.Farm, f.Job.Subject)
	if err != nil {
		return unlessGone(err)
	}
	e := farm.Event{
		Farm: p.Farm, Kind: "copies.erased", Site: p.Target.Site, Node: p.Target.Node, Target: p.Target.Name,
		Text: p.Target.Name + " has no copy of the old key any more",
	}
	switch {
	case r.err != nil && f.Job.Attempt > 1:
		return nil // it was told
	case r.err != nil:
		e.Kind, e.Level = "copies.left", farm.Warn
		e.Text, e.Hint = p.Target.Name+" still has a copy of the old key beside what is live: "+r.err.Error(), "it is tried again by itself"
		return tell(ctx, tx, e)
	case !p.Purge.Equal(r.since):
		return armErase(ctx, tx, p) // it came back meanwhile
	}
	if gone := r.forgotten.Versions; len(gone) > 0 {
		e.Text = p.Target.Name + " gives nobody the old key any more: taken away are the earlier versions " + list(gone)
	}
	if r.forgotten.Left != "" {
		e.Level, e.Text = farm.Warn, e.Text+"; "+r.forgotten.Left
	}
	p.Purge = time.Time{}
	return errors.Join(tx.PutPlace(ctx, p), tell(ctx, tx, e), armCompromise(ctx, tx, p.Farm, p.Target.Site))
}
