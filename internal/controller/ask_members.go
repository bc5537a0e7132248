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

// People may name a site with strategy per-node as a whole: then all its members are
// meant, in the order in which they go.

// sitesNamed lists the sites that a name means: the site, or the members of the one in
// farm.yaml. Where there is none, the error is store.ErrNotFound.
func sitesNamed(ctx context.Context, tx *store.Tx, farmName, name string) ([]farm.Site, error) {
	site, err := tx.Site(ctx, farmName, name)
	if !errors.Is(err, store.ErrNotFound) {
		return []farm.Site{site}, err
	}
	members, listErr := tx.Members(ctx, farmName, name)
	if listErr != nil || len(members) == 0 {
		return nil, errors.Join(listErr, err)
	}
	slices.SortFunc(members, farm.Site.Before)
	return members, nil
}

// namesOf are the names of the sites that a name means.
func (c *Controller) namesOf(ctx context.Context, farmName, name string) (all []string, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		sites, err := sitesNamed(ctx, tx, farmName, name)
		for _, s := range sites {
			all = append(all, s.Name)
		}
		return err
	})
	return all, err
}

// onlyOne refuses the name of a whole site where only one node's part of it can be
// meant.
func onlyOne(ctx context.Context, tx *store.Tx, farmName, name, why string) error {
	sites, err := sitesNamed(ctx, tx, farmName, name)
	if err != nil {
		return err
	}
	return refuseIf(sites[0].Name != name, "site "+name+" has a key and a certificate for each of "+fmt.Sprint(len(sites))+" nodes: "+why, "name one of them, such as "+sites[0].Name)
}

// worse orders the words of a status, the worst first.
var (
	worseSync   = []string{"drifted", "unknown", "in-sync"}
	worseHealth = []string{"degraded", "missing", "progressing", "healthy"}
)

func worst(order []string, a, b string) string {
	if slices.Index(order, b) < slices.Index(order, a) {
		return b
	}
	return a
}

// add counts a member in.
func (s *SiteStatus) add(m SiteStatus) {
	s.Sync, s.Health = worst(worseSync, s.Sync, m.Sync), worst(worseHealth, s.Health, m.Health)
	s.Targets += m.Targets
	s.InStep += m.InStep
	s.Rollout = cmp.Or(s.Rollout, m.Rollout)
	s.Attention = append(s.Attention, m.Attention...)
	s.NotAfter, s.Next = sooner(s.NotAfter, m.NotAfter), sooner(s.Next, m.Next)
	if m.Waits != "" {
		s.Waits = cmp.Or(s.Waits, m.Waits)
	}
	if s.Names == nil {
		s.Names, s.Issuer = m.Names, m.Issuer
	}
	s.Names = slices.DeleteFunc(slices.Clone(s.Names), func(n string) bool { return !slices.Contains(m.Names, n) })
}

// Whole is the status of a site as a whole, of those of its members.
func Whole(name string, members []SiteStatus) SiteStatus {
	s := SiteStatus{Name: name, Sync: "in-sync", Health: "healthy"}
	for _, m := range members {
		s.add(m)
	}
	return s
}

// groupDetail is everything about a site as a whole.
func groupDetail(ctx context.Context, tx *store.Tx, farmName, name string, members []farm.Site) (g SiteDetail, err error) {
	g.Certificate = farm.Certificate{Farm: farmName, Site: name}
	have := 0
	for _, m := range members {
		d, err := detail(ctx, tx, farmName, m)
		if err != nil {
			return g, err
		}
		g.Members = append(g.Members, d.SiteStatus)
		g.Versions, g.Places = append(g.Versions, d.Versions...), append(g.Places, d.Places...)
		if d.Version != "" {
			have++
		}
		g.Policy = d.Policy
	}
	g.SiteStatus = Whole(name, g.Members)
	g.Verdict = fmt.Sprintf("%d of %d nodes have a certificate of their own", have, len(members))
	return g, g.history(ctx, tx, farmName, members)
}

// historyOf is how many members' events are shown of a whole site.
const historyOf = 50

// history adds the newest of what happened to the members.
func (d *SiteDetail) history(ctx context.Context, tx *store.Tx, farmName string, members []farm.Site) error {
	for _, m := range members[:min(len(members), historyOf)] {
		orders, err := tx.Orders(ctx, farmName, store.OrderQuery{Site: m.Name, Limit: 3})
		if err != nil {
			return err
		}
		rollouts, err := tx.Rollouts(ctx, farmName, m.Name, 2)
		if err != nil {
			return err
		}
		events, err := tx.Events(ctx, farmName, store.EventQuery{Site: m.Name, Limit: 20, Newest: true})
		if err != nil {
			return err
		}
		d.Orders, d.Rollouts, d.Events = append(d.Orders, orders...), append(d.Rollouts, rollouts...), append(d.Events, events...)
	}
	slices.SortStableFunc(d.Orders, func(a, b farm.Order) int { return b.Created.Compare(a.Created) })
	slices.SortStableFunc(d.Rollouts, func(a, b farm.Rollout) int { return b.Created.Compare(a.Created) })
	slices.SortStableFunc(d.Events, func(a, b farm.Event) int { return strings.Compare(b.ID, a.ID) })
	d.Orders, d.Rollouts, d.Events = d.Orders[:min(len(d.Orders), 10)], d.Rollouts[:min(len(d.Rollouts), 10)], d.Events[:min(len(d.Events), 20)]
	return nil
}

// groupProgress is what a site as a whole is busy with: it rests when all its members
// do, and waits when none of them can do anything.
func groupProgress(ctx context.Context, tx *store.Tx, farmName, name string, members []farm.Site) (g Progress, err error) {
	g.Name, g.Sync, g.Health, g.Rest = name, "in-sync", "healthy", true
	idle, byRollout := true, false
	for _, m := range members {
		p, err := progress(ctx, tx, farmName, m.Name)
		if err != nil {
			return g, err
		}
		g.add(p.SiteStatus)
		g.Rest = g.Rest && p.Rest
		idle = idle && (p.Rest || p.Waits != "")
		if p.Rest || p.Waits == "" {
			continue
		}
		if rolls := p.Rollout != ""; g.Waits == "" || rolls && !byRollout {
			g.Waits, byRollout = m.Name+": "+p.Waits, rolls
		}
		g.Again, g.Retry = sooner(g.Again, p.Again), sooner(g.Retry, p.Retry)
	}
	if !idle {
		g.Waits, g.Again = "", time.Time{}
	}
	newest, err := newestOf(ctx, tx, farmName, members)
	g.Newest = newest.ID
	return g, err
}

// newestOf is the newest rollout of several sites, one that runs before all others;
// the zero one: there is none.
func newestOf(ctx context.Context, tx *store.Tx, farmName string, sites []farm.Site) (newest farm.Rollout, err error) {
	runs := func(r farm.Rollout) bool { return r.ID != "" && r.Outcome == farm.Running }
	for _, s := range sites {
		all, err := tx.Rollouts(ctx, farmName, s.Name, 1)
		if err != nil {
			return newest, err
		}
		for _, r := range all {
			later := r.Created.After(newest.Created)
			if newest.ID == "" || runs(r) && !runs(newest) || runs(r) == runs(newest) && later {
				newest = r
			}
		}
	}
	return newest, nil
}

// ofWait says for whom a member waits.
func (p *Progress) ofWait(ctx context.Context, tx *store.Tx, farmName string, site farm.Site) (waits bool, err error) {
	if site.Member == nil {
		return false, nil
	}
	if p.Waits, err = tx.Word(ctx, farmName, wordWaits+site.Name); err != nil || p.Waits == "" {
		return false, err
	}
	job, err := tx.Job(ctx, farmName, "check", site.Name)
	if err == nil {
		p.Again = job.RunAt
	}
	return true, unlessGone(err)
}

// tellAll says a word to every rollout of a site's members that it concerns, in one
// transaction: one that begins meanwhile finds it said to a sibling, or is told itself.
func (c *Controller) tellAll(ctx context.Context, farmName string, names []string, word, wave, by string) (r farm.Rollout, err error) {
	err = c.Store.Update(ctx, func(tx *store.Tx) error {
		return each(names, func(name string) error {
			one, err := tellOne(ctx, tx, farmName, name, word, wave, by)
			if errors.Is(err, store.ErrNotFound) {
				return &Refusal{"site " + name + " has no rollout yet", "`certfarm get rollouts` lists them"}
			}
			if err == nil {
				r = one
			}
			return err
		})
	})
	return r, err
}

// each does something for every site of several, and returns the refusal of the first
// only where it was refused for all.
func each(names []string, do func(name string) error) (err error) {
	done := 0
	for _, name := range names {
		one := do(name)
		_, refused := errors.AsType[*Refusal](one)
		switch {
		case one == nil:
			done++
		case refused:
			err = cmp.Or(err, one)
		default:
			return one
		}
	}
	if done > 0 {
		return nil
	}
	return err
}

// ofSite refuses a site that is not there. The whole of a site with strategy per-node
// is, as long as versions of before its strategy changed are.
func ofSite(ctx context.Context, tx *store.Tx, farmName, name string) error {
	versions, err := tx.Versions(ctx, farmName, name)
	if err != nil {
		return err
	}
	if len(versions) > 0 {
		_, err = sitesNamed(ctx, tx, farmName, name)
		return err
	}
	return onlyOne(ctx, tx, farmName, name, "one of them is to be said")
}
