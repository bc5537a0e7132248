package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/store"
)

// A restored backup may be long past: the farm may serve newer certificates than
// it knows. So a site of a restored farm is only looked at, until what its
// targets serve is known to be ours, or a person says what to do. Nothing is
// ordered or rolled out before.

// wordObserved + site is set when a site of a restored farm has been looked at.
const wordObserved = "observed "

// observing reports that a site must be looked at before anything is done.
func observing(ctx context.Context, tx *store.Tx, farmName, site string) (bool, error) {
	since, err := tx.Word(ctx, farmName, store.Observing)
	if err != nil || since == "" {
		return false, err
	}
	seen, err := tx.Word(ctx, farmName, wordObserved+site)
	return seen != since, err
}

// observeAll has the sites of a restored farm looked at that were not yet, no more
// of them a second than is good.
func observeAll(ctx context.Context, tx *store.Tx, farmName string) error {
	since, err := tx.Word(ctx, farmName, store.Observing)
	if err != nil || since == "" {
		return err
	}
	for n, after := 0, ""; ; {
		sites, err := tx.Sites(ctx, farmName, after, looksPerSecond)
		if err != nil || len(sites) == 0 {
			return err
		}
		for _, s := range sites {
			after = s.Name
			is, err := observing(ctx, tx, farmName, s.Name)
			if err != nil {
				return err
			}
			if !is {
				continue
			}
			if err := arm(ctx, tx, farmName, "look", s.Name, tx.Now().Add(time.Duration(n)*time.Second/looksPerSecond)); err != nil {
				return err
			}
			n++
		}
	}
}

// observed marks a site as looked at.
func observed(ctx context.Context, tx *store.Tx, farmName, site string) error {
	is, err := observing(ctx, tx, farmName, site)
	if err != nil || !is {
		return err
	}
	since, err := tx.Word(ctx, farmName, store.Observing)
	if err != nil {
		return err
	}
	if err := tx.SetWord(ctx, farmName, wordObserved+site, since); err != nil {
		return err
	}
	running, err := tx.RunningRollouts(ctx, farmName, site)
	if err != nil {
		return err
	}
	for _, r := range running {
		if err := overtaken(ctx, tx, r); err != nil {
			return err
		}
	}
	return arm(ctx, tx, farmName, "check", site, tx.Now())
}

// overtaken ends a rollout that ran when the backup was made. Nobody knows how it
// went on, and its receipts are of then: to go on, or back, by them might bring an
// older version back over a newer one. What is still to be done is done by a new one.
func overtaken(ctx context.Context, tx *store.Tx, r farm.Rollout) error {
	r.Outcome, r.Ended = farm.Superseded, tx.Now()
	r.Why = "it ran when the backup was made that was restored; what the targets serve now counts"
	for i := range r.Steps {
		r.Steps[i].Doing = ""
	}
	if err := tx.PutRollout(ctx, r); err != nil {
		return err
	}
	return tell(ctx, tx, endEvent(r))
}

// observe takes what the targets of a site serve for what they should hold, where
// it is one of our versions. Where it is a certificate that the backup does not
// know, a person must say what to do. A target that is silent was not seen: where
// all are, nothing is known of the site, and it is looked at again; else the silent
// ones count as down, and what they serve when they answer is looked at then.
func observe(ctx context.Context, tx *store.Tx, farmName, site string, glances []glance) error {
	versions, err := everHeld(ctx, tx, farmName, site)
	if err != nil {
		return err
	}
	silent, err := allUnseen(ctx, tx, farmName, glances)
	if err != nil {
		return err
	}
	for _, g := range glances {
		p, err := tx.Place(ctx, farmName, g.target)
		if err != nil {
			return err
		}
		if g.drift != "" && !g.ours {
			return unknown(ctx, tx, p, g)
		}
		if v := servedVersion(versions, g.sights); v != "" && !slices.Equal(p.Desired, []string{v}) {
			p.Desired, p.Late, p.Drift, p.Foreign = []string{v}, "", "", false
			if err := tx.PutPlace(ctx, p); err != nil {
				return err
			}
		}
	}
	if silent {
		return nil
	}
	return observed(ctx, tx, farmName, site)
}

// allUnseen writes down which targets were silent. It reports that all were.
func allUnseen(ctx context.Context, tx *store.Tx, farmName string, glances []glance) (bool, error) {
	silent := 0
	for _, g := range glances {
		if !probe.Silent(g.sights) {
			continue
		}
		silent++
		if err := unseen(ctx, tx, farmName, g); err != nil {
			return false, err
		}
	}
	return silent > 0 && silent == len(glances), nil
}

// unseen writes down that a target was silent when a restored farm was looked at:
// what the backup says of it holds no more than that it was so once.
func unseen(ctx context.Context, tx *store.Tx, farmName string, g glance) error {
	p, err := tx.Place(ctx, farmName, g.target)
	if err != nil || p.Reach == g.reach && probe.Silent(p.Sights) {
		return err // said before
	}
	p.Reach, p.Drift, p.Since, p.Sights, p.Looked = g.reach, g.drift, tx.Now(), g.sights, tx.Now()
	if err := tx.PutPlace(ctx, p); err != nil {
		return err
	}
	return tell(ctx, tx, farm.Event{
		Farm: p.Farm, Kind: "restore.silent", Level: farm.Warn, Site: p.Target.Site, Node: p.Target.Node, Target: p.Target.Name,
		Text: p.Target.Name + " is silent: what it serves since the backup was made is not known",
		Hint: fmt.Sprintf("a site of which no target answers waits; `certfarm renew %s` does not", p.Target.Site),
	})
}

// servedVersion is the version that every endpoint that answers serves.
func servedVersion(versions []farm.Version, sights []farm.Sight) (id string) {
	for _, s := range sights {
		if !s.Answered {
			continue
		}
		i := slices.IndexFunc(versions, func(v farm.Version) bool {
			return slices.ContainsFunc(s.Fingerprint, func(f string) bool { return slices.Contains(v.Fingerprints(), f) })
		})
		if i < 0 || id != "" && versions[i].ID != id {
			return ""
		}
		id = versions[i].ID
	}
	return id
}

func unknown(ctx context.Context, tx *store.Tx, p farm.Place, g glance) error {
	if p.Drift == g.drift {
		return nil // said before
	}
	p.Drift, p.Foreign, p.Since, p.Sights, p.Looked = g.drift, true, tx.Now(), g.sights, tx.Now()
	if err := tx.PutPlace(ctx, p); err != nil {
		return err
	}
	return tell(ctx, tx, farm.Event{
		Farm: p.Farm, Kind: "restore.unknown", Level: farm.Alarm, Site: p.Target.Site, Node: p.Target.Node, Target: p.Target.Name,
		Text: fmt.Sprintf("%s: %s; the restored backup does not know it, so nothing is changed", p.Target.Name, g.drift),
		Hint: fmt.Sprintf("`certfarm import %s …` makes it ours, `certfarm renew %s` replaces it", p.Target.Site, p.Target.Site),
	})
}
