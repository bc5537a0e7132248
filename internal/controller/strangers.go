package controller

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/store"
)

// A valid certificate that is not ours may be a person's night fix, so nothing of
// ours replaces it before a person assents: with `rollout approve`, by asking for a
// renewal, or by importing another. An assent is for what was seen by then: a fix
// that comes later is another one's, and asks again.

// wordAssent + site has the fingerprints that a person assented to replace.
const wordAssent = "assent "

// freshFor is how long a look at a target before Stage holds for its activation.
// What waits longer, for a window or a person, is looked at again.
const freshFor = time.Minute

// A strangerError says which valid certificate that is not ours a target serves.
type strangerError struct{ what string }

// Error says what is there, and how a person assents.
func (e *strangerError) Error() string { return e.what }

// stranger looks whether a target serves a valid certificate that is not ours, and
// that nobody assented to replace. What cannot be seen is no reason to wait.
func (c *Controller) stranger(ctx context.Context, a act, answer *farm.Answer) error {
	k := a.kin
	q := probe.Question{Target: a.step.Target, Names: a.version.Names, Roots: a.roots, Samples: 1}
	if k.holds.ID != "" {
		q.Names, q.Roots = k.holds.Names, k.roots
	}
	for _, l := range slices.Concat(a.version.Leaves, k.holds.Leaves) {
		if !slices.Contains(q.KeyTypes, l.KeyType) {
			q.KeyTypes = append(q.KeyTypes, l.KeyType)
		}
	}
	within, cancel := context.WithTimeout(ctx, silentWithin)
	defer cancel()
	sights := c.look(within, a.Farm, a.place.Target, q)
	what, ours := probe.Drifted(nil, k.leaves, sights, c.Now())
	if ours {
		return nil
	}
	if is, err := c.its(ctx, a, k, sights); err != nil || !is {
		return err
	}
	answer.Sights = sights // they are what a person assents to
	return &strangerError{what}
}

// kin is what a target may serve that is no stranger's.
type kin struct {
	holds  farm.Version // what it should hold; none: nothing was installed yet
	roots  string       // that it is judged by
	leaves []farm.Leaf  // of all of the site's versions
}

// its reports that a foreign certificate that is served is the target's own, is
// nothing of ours, and may not be replaced: not another site's that the server
// shows where a name has no certificate yet, and, where nothing was installed yet,
// in the target's files.
func (c *Controller) its(ctx context.Context, a act, k kin, sights []farm.Sight) (bool, error) {
	foreign := foreignIn(k.leaves, sights)
	if !slices.ContainsFunc(foreign, func(f string) bool { return !slices.Contains(a.Assent, f) }) {
		return false, nil
	}
	others, err := c.neighbours(ctx, a)
	if err != nil {
		return false, err
	}
	foreign = slices.DeleteFunc(foreign, func(f string) bool { return slices.Contains(others, f) })
	if len(foreign) == 0 || k.holds.ID != "" {
		return len(foreign) > 0, nil
	}
	own, err := c.installed(ctx, a)
	// Where they cannot be read nothing is known, and Stage will say why.
	return err == nil && slices.ContainsFunc(foreign, func(f string) bool { return slices.Contains(own, f) }), nil
}

// installed lists the leaves in the target's files.
func (c *Controller) installed(ctx context.Context, a act) ([]string, error) {
	if err := c.open(ctx, &a); err != nil {
		return nil, err
	}
	found, err := a.deployer.Inspect(ctx)
	return found.Leaves, err
}

// foreignIn lists the leaves that were seen and are not among the known.
func foreignIn(known []farm.Leaf, sights []farm.Sight) (all []string) {
	for _, s := range sights {
		for _, f := range s.Fingerprint {
			if !slices.Contains(all, f) && !slices.ContainsFunc(known, func(l farm.Leaf) bool { return l.Fingerprint == f }) {
				all = append(all, f)
			}
		}
	}
	return all
}

// neighbours lists the leaves of the other sites on the target's node.
func (c *Controller) neighbours(ctx context.Context, a act) (all []string, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		places, err := tx.Places(ctx, a.Farm, "")
		if err != nil {
			return err
		}
		met := map[string]bool{a.Site: true}
		for _, p := range places {
			if p.Target.Node != a.place.Target.Node || met[p.Target.Site] {
				continue
			}
			met[p.Target.Site] = true
			versions, err := everHeld(ctx, tx, a.Farm, p.Target.Site)
			if err != nil {
				return err
			}
			for _, v := range versions {
				all = append(all, v.Fingerprints()...)
			}
		}
		return nil
	})
	return all, err
}

// leftAlone answers for those of the acts whose target serves a stranger's
// certificate by now, and returns the others. Who was looked at a moment ago is
// not looked at again.
func (c *Controller) leftAlone(ctx context.Context, verb farm.Verb, acts []act) (others []act, answers []farm.Answer) {
	if verb != farm.DoActivate {
		return acts, nil
	}
	found, seen := make([]error, len(acts)), make([]farm.Answer, len(acts))
	slots := make(chan struct{}, looksAtOnce)
	var wg sync.WaitGroup
	for i, a := range acts {
		if !a.stale {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			found[i] = c.stranger(ctx, a, &seen[i])
			<-slots
		})
	}
	wg.Wait()
	for i, a := range acts {
		if !isStranger(found[i]) {
			others = append(others, a)
			continue
		}
		answers = append(answers, c.answer(ctx, verb, a, func(_ context.Context, _ act, answer *farm.Answer) error {
			answer.Sights = seen[i].Sights
			return found[i]
		}))
	}
	return others, answers
}

// isStranger reports that an error is of a stranger's certificate.
func isStranger(err error) bool {
	_, is := errors.AsType[*strangerError](err)
	return is
}

// keepForeign writes down what a target was left alone for, so that a person may
// assent at once; looks begin nothing by themselves for a while.
func (c *Controller) keepForeign(ctx context.Context, tx *store.Tx, farmName string, s farm.Step) error {
	p, err := tx.Place(ctx, farmName, s.Target)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	p.Drift, p.Foreign, p.Since, p.Again = s.Error, true, tx.Now(), tx.Now().Add(c.Pace.Look)
	return tx.PutPlace(ctx, p)
}

// assent lets the strangers' certificates be replaced that the site's targets were
// seen to serve. It reports whether there are any.
func assent(ctx context.Context, tx *store.Tx, farmName, site string) (bool, error) {
	places, err := tx.Places(ctx, farmName, site)
	if err != nil {
		return false, err
	}
	var all []string
	for _, p := range places {
		if !p.Foreign || p.Released {
			continue
		}
		all = append(all, foreignIn(nil, p.Sights)...)
		p.Again = time.Time{}
		if err := tx.PutPlace(ctx, p); err != nil {
			return false, err
		}
	}
	return len(all) > 0, tx.SetWord(ctx, farmName, wordAssent+site, strings.Join(all, " "))
}

// assented reads what a person assented to replace.
func assented(ctx context.Context, tx *store.Tx, farmName, site string) ([]string, error) {
	text, err := tx.Word(ctx, farmName, wordAssent+site)
	return strings.Fields(text), err
}

// mayReplace reports that a person assented to replace what a target is seen to
// serve, and that there is something to put in its place that is as good.
func mayReplace(ctx context.Context, tx *store.Tx, p farm.Place, v farm.Version) (bool, error) {
	allowed, err := assented(ctx, tx, p.Farm, p.Target.Site)
	if err != nil || len(allowed) == 0 || !tx.Now().Before(v.NotAfter()) {
		return false, err
	}
	versions, err := everHeld(ctx, tx, p.Farm, p.Target.Site)
	if err != nil {
		return false, err
	}
	var ours []farm.Leaf
	for _, v := range versions {
		ours = append(ours, v.Leaves...)
	}
	if slices.ContainsFunc(foreignIn(ours, p.Sights), func(f string) bool { return !slices.Contains(allowed, f) }) {
		return false, nil
	}
	// Where a person asked for a new version, it is what comes.
	asked, err := tx.Word(ctx, p.Farm, wordRenew+p.Target.Site)
	if err != nil || asked != "" {
		return false, err
	}
	cert, err := tx.Certificate(ctx, p.Farm, p.Target.Site)
	return cert.Intent == "", err
}
