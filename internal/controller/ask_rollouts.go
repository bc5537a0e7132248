package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

func compare(a, b string) int { return cmp.Compare(a, b) }

// Rollout finds a rollout by its id, or the newest of a site by the site's name.
func (c *Controller) Rollout(ctx context.Context, farmName, idOrSite string) (r farm.Rollout, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		r, err = findRollout(ctx, tx, farmName, idOrSite)
		return err
	})
	return r, err
}

// Rollouts lists the newest rollouts; site empty: of all sites.
func (c *Controller) Rollouts(ctx context.Context, farmName, site string, limit int) ([]farm.Rollout, error) {
	return c.RolloutsAfter(ctx, farmName, site, "", limit)
}

// RolloutsAfter lists rollouts that come after the one with an id, newest first; empty:
// from the newest. Where that one is there no more, it is store.ErrNoPlace.
func (c *Controller) RolloutsAfter(ctx context.Context, farmName, site, after string, limit int) (all []farm.Rollout, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		all, err = tx.RolloutsAfter(ctx, farmName, site, after, limit)
		return err
	})
	return all, err
}

func findRollout(ctx context.Context, tx *store.Tx, farmName, idOrSite string) (farm.Rollout, error) {
	r, err := tx.Rollout(ctx, farmName, idOrSite)
	if !errors.Is(err, store.ErrNotFound) {
		return r, err
	}
	all, err := tx.Rollouts(ctx, farmName, idOrSite, 1)
	if err != nil {
		return r, err
	}
	members, err := tx.Members(ctx, farmName, idOrSite)
	if err != nil {
		return r, err
	}
	if r, err = newestOf(ctx, tx, farmName, members); err == nil && r.ID == "" && len(all) > 0 {
		r = all[0]
	}
	if err == nil && r.ID == "" {
		err = fmt.Errorf("rollout of %s: %w", idOrSite, store.ErrNotFound)
	}
	return r, err
}

// The words that a person may say to a rollout that runs.
const (
	Pause   = "pause"
	Resume  = "resume"
	Abort   = "abort"
	Approve = "approve"
)

// Tell says a word to a running rollout. Wave names the wave to approve; empty:
// the next that waits.
func (c *Controller) Tell(ctx context.Context, farmName, idOrSite, word, wave, by string) (r farm.Rollout, err error) {
	names, err := c.namesOf(ctx, farmName, idOrSite)
	if err == nil && names[0] != idOrSite {
		return c.tellAll(ctx, farmName, names, word, wave, by)
	}
	if unlessGone(err) != nil {
		return r, err
	}
	err = c.Store.Update(ctx, func(tx *store.Tx) error {
		r, err = tellOne(ctx, tx, farmName, idOrSite, word, wave, by)
		return err
	})
	return r, err
}

func tellOne(ctx context.Context, tx *store.Tx, farmName, idOrSite, word, wave, by string) (r farm.Rollout, err error) {
	if r, err = findRollout(ctx, tx, farmName, idOrSite); err != nil {
		return r, err
	}
	if word == Approve && wave == "" {
		if done, err := allow(ctx, tx, r, by); err != nil || done {
			return r, err
		}
	}
	if r.Outcome != farm.Running {
		return r, &Refusal{fmt.Sprintf("rollout %s has ended: %s", r.ID, r.Outcome), "`certfarm rollout undo " + r.Site + "` brings the version before back"}
	}
	if err := obey(&r, word, wave, by); err != nil {
		return r, err
	}
	if err := tx.PutRollout(ctx, r); err != nil {
		return r, err
	}
	if err := tell(ctx, tx, farm.Event{
		Farm: farmName, Kind: "rollout." + word, Site: r.Site, Rollout: r.ID, Actor: by, Text: by + ": " + word + " " + wave,
	}); err != nil {
		return r, err
	}
	return r, arm(ctx, tx, farmName, "advance", r.ID, tx.Now())
}

// allow lets go on what waits for a person's word beside waves: strangers'
// certificates, which may be replaced then, and a version whose rollout was
// aborted. It reports that there was something and no rollout has a use for the
// word.
func allow(ctx context.Context, tx *store.Tx, r farm.Rollout, by string) (bool, error) {
	replace, err := assent(ctx, tx, r.Farm, r.Site)
	if err != nil {
		return false, err
	}
	cert, err := tx.Certificate(ctx, r.Farm, r.Site)
	if err != nil {
		return false, err
	}
	again := cert.Aborted != "" && r.Outcome != farm.Running
	if !replace && !again {
		return false, nil
	}
	text := "what was aborted is rolled out again"
	if replace {
		text = "certificates that are not ours may be replaced"
	}
	if err := tell(ctx, tx, farm.Event{
		Farm: r.Farm, Kind: "rollout." + Approve, Site: r.Site, Rollout: r.ID, Actor: by, Text: by + ": " + text,
	}); err != nil {
		return false, err
	}
	if again {
		cert.Aborted, cert.AbortedBy = "", ""
	}
	return r.Outcome != farm.Running || !waitsForApproval(r), tryNow(ctx, tx, cert)
}

// tryNow has a site checked and looked at now, and what waits for its next try
// tried.
func tryNow(ctx context.Context, tx *store.Tx, cert farm.Certificate) error {
	if !cert.Retry.IsZero() {
		cert.Retry = tx.Now()
	}
	if err := tx.PutCertificate(ctx, cert); err != nil {
		return err
	}
	for _, kind := range []string{"check", "look"} {
		if err := arm(ctx, tx, cert.Farm, kind, cert.Site, tx.Now()); err != nil {
			return err
		}
	}
	return nil
}

func obey(r *farm.Rollout, word, wave, by string) error {
	switch word {
	case Pause:
		r.Paused = true
	case Resume:
		r.Paused = false
	case Abort:
		r.Abort = "aborted by " + by
	case Approve:
		for i := range r.Waves {
			w := &r.Waves[i]
			if w.Approve && w.Approved == "" && (wave == "" || wave == w.Name) {
				w.Approved = by
				return nil
			}
		}
		return &Refusal{"no wave of " + r.Site + " waits for approval", "`certfarm rollout status " + r.Site + "` shows the waves"}
	default:
		return &Refusal{"no such word: " + word, "pause, resume, abort or approve"}
	}
	return nil
}

// Undo brings a version back to every target of a site, as a rollout of its own: the
// one before the newest, or the one that is named by its id or by the beginning of a
// leaf's fingerprint.
func (c *Controller) Undo(ctx context.Context, farmName, site, to, by string) error {
	names, err := c.namesOf(ctx, farmName, site)
	if err != nil {
		return err
	}
	return each(names, func(name string) error { return c.undoOne(ctx, farmName, name, to, by) })
}

func (c *Controller) undoOne(ctx context.Context, farmName, site, to, by string) error {
	return c.Store.Update(ctx, func(tx *store.Tx) error {
		if running, err := tx.RunningRollouts(ctx, farmName, site); err != nil || len(running) > 0 {
			return errors.Join(err, refuseIf(len(running) > 0, "a rollout of "+site+" runs", "`certfarm rollout abort "+site+"` puts everything back"))
		}
		versions, err := waysBack(ctx, tx, farmName, site)
		if err != nil {
			return err
		}
		back, err := wayBack(versions, tx.Now(), site, to)
		if err != nil {
			return err
		}
		v, err := withdrawUpTo(ctx, tx, versions, back, by)
		if err != nil {
			return err
		}
		if err := tell(ctx, tx, farm.Event{
			Farm: farmName, Kind: "rollout.undo", Site: site, Version: v.ID, Actor: by,
			Text: fmt.Sprintf("%s brings version %s back", by, farm.Short(leafOf(v))),
		}); err != nil {
			return err
		}
		return arm(ctx, tx, farmName, "check", site, tx.Now())
	})
}

// wayBack is the id of the version that is brought back: the one before the newest, or
// the one that was named.
func wayBack(versions []farm.Version, now time.Time, site, to string) (string, error) {
	back := servable(versions, now)
	if len(back) < 2 {
		return "", &Refusal{"site " + site + " has no earlier version that is still good", "`certfarm renew " + site + "` orders a new one; a change of strategy is undone by applying the farm.yaml from before"}
	}
	if to == "" {
		return back[1], nil
	}
	listed := "`certfarm describe site " + site + "` lists the versions"
	for _, v := range versions {
		if v.ID != to && !strings.HasPrefix(v.Leaf(), strings.ToLower(to)) {
			continue
		}
		switch at := slices.Index(back, v.ID); {
		case at == 0:
			return "", &Refusal{"version " + farm.Short(v.Leaf()) + " is the newest already", listed}
		case at < 0:
			return "", &Refusal{"version " + farm.Short(v.Leaf()) + " cannot be brought back: it was withdrawn, was never everywhere, has ended, or its key was erased", listed}
		}
		return v.ID, nil
	}
	return "", &Refusal{"site " + site + " has no version " + to, listed}
}

// withdrawUpTo withdraws the good versions that are newer than one of them, which is
// brought back: one that was never everywhere among them, too.
func withdrawUpTo(ctx context.Context, tx *store.Tx, versions []farm.Version, id, by string) (to farm.Version, err error) {
	for _, v := range versions { // newest first
		if v.ID == id {
			return v, nil
		}
		if v.State != farm.VersionGood {
			continue
		}
		if err := withdraw(ctx, tx, v, by); err != nil {
			return to, err
		}
	}
	return to, fmt.Errorf("version %s: %w", id, store.ErrNotFound)
}

// withdraw marks a version that a person undid, and forgets that it was to be
// tried again.
func withdraw(ctx context.Context, tx *store.Tx, v farm.Version, by string) error {
	v.State, v.Reason = farm.VersionWithdrawn, "undone by "+by
	if err := tx.PutVersion(ctx, v); err != nil {
		return err
	}
	cert, err := tx.Certificate(ctx, v.Farm, v.Site)
	if err != nil {
		return err
	}
	cert.Retries, cert.Retry, cert.Aborted, cert.AbortedBy = 0, time.Time{}, "", ""
	if err := tx.PutCertificate(ctx, cert); err != nil {
		return err
	}
	return tx.SetWord(ctx, v.Farm, wordUndone+v.Site, tx.Now().Format(time.RFC3339))
}

func refuseIf(is bool, problem, hint string) error {
	if !is {
		return nil
	}
	return &Refusal{problem, hint}
}

// Freeze stops all activations of a farm, or lets them go on.
func (c *Controller) Freeze(ctx context.Context, farmName, by string, on bool) error {
	return c.Store.Update(ctx, func(tx *store.Tx) error {
		value, text := "", "activations go on"
		if on {
			value, text = by, "frozen: nothing is activated until it is lifted"
		}
		if err := tx.SetWord(ctx, farmName, wordFrozen, value); err != nil {
			return err
		}
		if err := advanceAll(ctx, tx, farmName); err != nil {
			return err
		}
		return tell(ctx, tx, farm.Event{Farm: farmName, Kind: "farm.freeze", Actor: by, Level: farm.Warn, Text: by + ": " + text})
	})
}

// advanceAll lets every running rollout of a farm decide again.
func advanceAll(ctx context.Context, tx *store.Tx, farmName string) error {
	running, err := tx.RunningRollouts(ctx, farmName, "")
	if err != nil {
		return err
	}
	for _, r := range running {
		if err := arm(ctx, tx, farmName, "advance", r.ID, tx.Now()); err != nil {
			return err
		}
	}
	return nil
}

// Frozen says who froze the farm, or nothing.
func (c *Controller) Frozen(ctx context.Context, farmName string) (by string, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		by, err = tx.Word(ctx, farmName, wordFrozen)
		return err
	})
	return by, err
}

// Hold keeps every change away from a node, or releases it: then what it missed
// is brought there.
func (c *Controller) Hold(ctx context.Context, farmName, node, by string, on bool) error {
	return c.Store.Update(ctx, func(tx *store.Tx) error {
		if _, err := tx.Node(ctx, farmName, node); err != nil {
			return err
		}
		value, text := "", "is released"
		if on {
			value, text = by, "is held: nothing is changed on it"
		}
		if err := tx.SetWord(ctx, farmName, wordHeld+node, value); err != nil {
			return err
		}
		if err := advanceAll(ctx, tx, farmName); err != nil {
			return err
		}
		places, err := tx.Places(ctx, farmName, "")
		if err != nil {
			return err
		}
		for _, p := range places {
			if p.Target.Node != node || on {
				continue
			}
			for _, kind := range []string{"check", "look"} {
				if err := arm(ctx, tx, farmName, kind, p.Target.Site, tx.Now()); err != nil {
					return err
				}
			}
		}
		return tell(ctx, tx, farm.Event{Farm: farmName, Kind: "node.hold", Node: node, Actor: by, Text: node + " " + text})
	})
}
