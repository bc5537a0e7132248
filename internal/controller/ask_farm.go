package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/plan"
	"github.com/certfarm/certfarm/internal/prove/dns01/provider"
	"github.com/certfarm/certfarm/internal/renew"
	"github.com/certfarm/certfarm/internal/rollout"
	"github.com/certfarm/certfarm/internal/store"
)

// Vocabulary is what a farm.yaml may say of kinds and ways to validate.
func (c *Controller) Vocabulary() config.Vocabulary { return Vocabulary(c.Kinds, c.InPlace) }

// Vocabulary puts kinds into the words that package config reads.
func Vocabulary(kinds deploy.Kinds, inPlace bool) config.Vocabulary {
	v := config.Vocabulary{
		Kinds:         map[string]config.Kind{},
		DNS:           map[string]config.Provider{},
		Receivers:     receiverWords(),
		StartTLS:      startTLS,
		InlineSecrets: inPlace,
		Impossible: func(s farm.Site) string {
			return renew.CourseOf(s).Impossible(renew.Lifetime(s.Profile))
		},
		Unaffordable: unaffordable,
	}
	for _, p := range provider.All() {
		words := config.Provider{Check: p.Check}
		for _, s := range p.Settings {
			if s.Secret {
				words.Secrets = append(words.Secrets, s.Name)
			} else {
				words.Options = append(words.Options, s.Name)
			}
		}
		v.DNS[p.Name] = words
	}
	for name, k := range kinds {
		words := config.Kind{
			Options:   k.Fields(),
			Nodeless:  k.Nodeless,
			OnNode:    k.OnNode,
			OnReaders: k.OnReaders,
			Named:     k.Named,
			Check: func(options []byte, secrets []string) (identity, group string, canonical []byte, err error) {
				f, err := k.Check(options, secrets...)
				return f.Identity, f.Group, f.Options, err
			},
			Places: k.Places,
			NoUndo: k.NoUndo,
		}
		for _, secret := range k.Secrets {
			words.Secrets = append(words.Secrets, secret.Name)
		}
		v.Kinds[name] = words
	}
	return v
}

// Parse reads a farm.yaml in the controller's words.
func (c *Controller) Parse(text []byte, file string) (config.Parsed, error) {
	return config.Parse(text, file, c.Vocabulary())
}

// Apply makes a farm.yaml the farm's new revision, if the stored one is still
// the one that the plan was made against; else a *store.Conflict says who
// changed it. Everything that follows is written in the same transaction. Unlike Plan,
// it always reads the whole text.
func (c *Controller) Apply(ctx context.Context, text []byte, file, by string, was int64) (Plan, error) {
	parsed, err := c.Parse(text, file)
	if err != nil {
		return Plan{}, err
	}
	var p Plan
	err = c.Store.Update(ctx, func(tx *store.Tx) error {
		if ms, err := missingSecrets(ctx, tx, parsed); err != nil || len(ms) > 0 {
			return errors.Join(err, orNil(ms))
		}
		if p, err = planned(ctx, tx, parsed.Farm); err != nil {
			return err
		}
		if err := mayMove(ctx, tx, parsed.Farm.Name, p.Changes); err != nil {
			return err
		}
		revision, err := tx.SaveFarm(ctx, parsed.Farm, text, by, was)
		if err != nil {
			return err
		}
		p.Revision = revision
		if err := c.keepReading(ctx, tx, parsed, revision); err != nil {
			return err
		}
		return c.applied(ctx, tx, parsed.Farm, p, by)
	})
	return p, err
}

// applied arms what a new revision changes.
func (c *Controller) applied(ctx context.Context, tx *store.Tx, f farm.Farm, p Plan, by string) error {
	for _, kind := range keptGoing() {
		if err := arm(ctx, tx, f.Name, kind, f.Name, tx.Now()); err != nil {
			return err
		}
	}
	if err := tx.SetWord(ctx, f.Name, wordSites, strconv.Itoa(len(f.Sites))); err != nil {
		return err
	}
	if err := reinstall(ctx, tx, f.Name, p.Changes); err != nil {
		return err
	}
	if err := leave(ctx, tx, f.Name, p.Changes); err != nil {
		return err
	}
	if err := openAgain(ctx, tx, f, func(farm.Issuer) bool { return true }); err != nil {
		return err
	}
	for _, name := range touched(f, p.Changes) {
		for _, kind := range []string{"check", "look", "records"} {
			if err := arm(ctx, tx, f.Name, kind, name, tx.Now()); err != nil {
				return err
			}
		}
	}
	return tell(ctx, tx, farm.Event{
		Farm: f.Name, Kind: "farm.applied", Actor: by,
		Text: fmt.Sprintf("revision %d applied: %s", p.Revision, farm.Count(len(p.Changes), "change")),
	})
}

// reinstall forgets what targets should hold that are installed in another way or
// place from now on, so that a rollout brings it there.
func reinstall(ctx context.Context, tx *store.Tx, farmName string, changes []plan.Change) error {
	for _, ch := range changes {
		if ch.Do != plan.RollOut || len(ch.Fields) == 0 {
			continue
		}
		for _, target := range ch.Targets {
			p, err := tx.Place(ctx, farmName, target)
			if err != nil {
				return err
			}
			p.Desired, p.Late, p.Drift = nil, "", ""
			if err := tx.PutPlace(ctx, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// leave keeps rollouts that run away from targets that are gone from farm.yaml.
func leave(ctx context.Context, tx *store.Tx, farmName string, changes []plan.Change) error {
	for _, ch := range changes {
		if ch.Do != plan.Release && ch.Do != plan.Forget {
			continue
		}
		for _, site := range ch.Sites() {
			running, err := tx.RunningRollouts(ctx, farmName, site)
			if err != nil {
				return err
			}
			for _, r := range running {
				if err := leaveTargets(ctx, tx, r, ch.Targets); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// leaveTargets takes targets out of a rollout that runs, and tells of each.
func leaveTargets(ctx context.Context, tx *store.Tx, r farm.Rollout, targets []string) error {
	for _, target := range targets {
		was := step(r, target)
		if was.Target == "" {
			continue
		}
		why := "it is gone from farm.yaml, and nothing was made live on it"
		if was.Touched {
			why = "it is gone from farm.yaml, and stays as it is: the new certificate may be live on it"
		}
		r = rollout.Leave(r, target, why)
		is := step(r, target)
		if is.State != farm.Gone && is.Leave != farm.Gone {
			continue
		}
		is.State = farm.Gone
		if err := tell(ctx, tx, stepEvent(r, is, farm.Answer{})); err != nil {
			return err
		}
	}
	if err := tx.PutRollout(ctx, r); err != nil {
		return err
	}
	return arm(ctx, tx, r.Farm, "advance", r.ID, tx.Now())
}

// touched lists the sites that changes concern: all, where a node, an issuer or
// the farm's settings change.
func touched(f farm.Farm, changes []plan.Change) []string {
	concerned := map[string]bool{}
	for _, ch := range changes {
		switch ch.Do {
		case plan.Node, plan.Issuer, plan.Settings:
			for _, s := range f.Sites {
				concerned[s.Name] = true
			}
		default:
			for _, site := range ch.Sites() {
				concerned[site] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(concerned))
}

// FarmText returns the newest farm.yaml as it was written, comments too.
func (c *Controller) FarmText(ctx context.Context, name string) (r store.Revision, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		r, err = tx.Revision(ctx, name)
		return err
	})
	return r, err
}

// Since lists what changed in a farm after one of its revisions, whoever did it; nothing
// where that revision is not kept, or cannot be read any more.
func (c *Controller) Since(ctx context.Context, farmName string, was int64) ([]plan.Change, error) {
	var then, now farm.Farm
	err := c.Store.View(ctx, func(tx *store.Tx) error {
		all, err := tx.Revisions(ctx, farmName, 0)
		at := slices.IndexFunc(all, func(r store.Revision) bool { return r.Number == was })
		if err != nil || at < 0 {
			return err
		}
		parsed, err := c.Parse(all[at].Text, "farm.yaml")
		if err != nil {
			return nil //nolint:nilerr // another Certfarm wrote it: what changed is not known then
		}
		then = parsed.Farm
		now, err = tx.Farm(ctx, farmName)
		return err
	})
	if err != nil || then.Name == "" {
		return nil, err
	}
	return plan.Diff(then, now), nil
}

// Farms lists the farms.
func (c *Controller) Farms(ctx context.Context) (names []string, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		names, err = tx.Farms(ctx)
		return err
	})
	slices.Sort(names)
	return names, err
}

// Retire forgets a target that is gone from farm.yaml; what it serves is left
// alone.
func (c *Controller) Retire(ctx context.Context, farmName, target, by string) error {
	return c.Store.Update(ctx, func(tx *store.Tx) error {
		p, err := tx.Place(ctx, farmName, target)
		if err != nil {
			return err
		}
		if !p.Released {
			return &Refusal{"target " + target + " is still in farm.yaml", "take it out of farm.yaml and apply that first"}
		}
		running, err := tx.RunningRollouts(ctx, farmName, p.Target.Site)
		if err != nil {
			return err
		}
		for _, r := range running {
			if step(r, target).Target != "" {
				return &Refusal{"a rollout of " + r.Site + " works on target " + target, "wait for its end, or `certfarm rollout abort " + r.Site + "`"}
			}
		}
		if err := tx.RemovePlace(ctx, farmName, target); err != nil {
			return err
		}
		return tell(ctx, tx, farm.Event{
			Farm: farmName, Kind: "target.retired", Actor: by, Target: target, Text: target + " is retired; what it serves was left alone",
		})
	})
}

// A Refusal is a request that makes no sense now, and what to do instead.
type Refusal struct{ Problem, Hint string }

// Error is the problem.
func (r *Refusal) Error() string { return r.Problem }
