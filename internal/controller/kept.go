package controller

import (
	"context"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/plan"
	"github.com/certfarm/certfarm/internal/renew"
	"github.com/certfarm/certfarm/internal/store"
)

// alreadyHad are the sites of a plan's orders for which farm.yaml asks again for what their
// newest version was got for, as when a mistake in it is taken back.
func alreadyHad(ctx context.Context, tx *store.Tx, wanted farm.Farm, changes []plan.Change) (map[string]bool, error) {
	var asked []string
	for _, ch := range changes {
		if ordersAnew(ch) {
			asked = append(asked, ch.Sites()...)
		}
	}
	if len(asked) == 0 {
		return nil, nil
	}
	versions, err := tx.VersionsOfSites(ctx, wanted.Name, asked)
	if err != nil || len(versions) == 0 {
		return nil, err
	}
	have := map[string]bool{}
	for _, name := range asked {
		have[name] = true // one that is no more needs none
	}
	for i := range wanted.Sites { // they may be many, and each is large
		if s := &wanted.Sites[i]; have[s.Name] {
			have[s.Name] = willDo(s, wanted.Issuers, versions[s.Name], tx.Now())
		}
	}
	return have, nil
}

// keep takes the orders out of a plan for which there is what will do.
func keep(changes []plan.Change, have map[string]bool) {
	for i, ch := range changes {
		if !ordersAnew(ch) || slices.ContainsFunc(ch.Sites(), func(name string) bool { return !have[name] }) {
			continue
		}
		changes[i].Certificate = false
		changes[i].Why += "; the certificate from before will do: nothing is ordered"
		if !ch.Moves() { // else other keys go to the targets all the same
			changes[i].Do = plan.Site
		}
	}
}

// ordersAnew reports that a change asks for another certificate by other words of
// farm.yaml, and not of another CA that has the same name.
func ordersAnew(ch plan.Change) bool { return ch.Do == plan.Issue && len(ch.Fields) > 0 }

// willDo reports that the newest of a site's versions, newest first, is what the site
// is wanted for, and is good.
func willDo(site *farm.Site, issuers []farm.Issuer, versions []farm.Version, now time.Time) bool {
	if len(versions) == 0 {
		return false
	}
	s := standing{site: *site}
	s.choose(versions)
	if i := slices.IndexFunc(issuers, func(i farm.Issuer) bool { return i.Name == site.Issuer }); i >= 0 {
		s.askAt(issuers[i])
	}
	return s.good.ID != "" && s.good.ID == s.newest.ID && renew.Fits(s.good, s.want()) && now.Before(s.good.NotAfter())
}
