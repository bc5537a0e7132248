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

// keep takes out of a plan the orders for what there is already: farm.yaml asks again
// for what the newest version was got for, as when a mistake in it is taken back.
func keep(ctx context.Context, tx *store.Tx, wanted farm.Farm, changes []plan.Change) error {
	var asked []string
	for _, ch := range changes {
		if ordersAnew(ch) {
			asked = append(asked, ch.Sites()...)
		}
	}
	if len(asked) == 0 {
		return nil
	}
	versions, err := tx.VersionsOfSites(ctx, wanted.Name, asked)
	if err != nil || len(versions) == 0 {
		return err
	}
	sites := map[string]*farm.Site{}
	for i := range wanted.Sites { // they may be many, and each is large
		if s := &wanted.Sites[i]; len(versions[s.Name]) > 0 {
			sites[s.Name] = s
		}
	}
	lacks := func(name string) bool {
		return sites[name] == nil || !willDo(*sites[name], wanted.Issuers, versions[name], tx.Now())
	}
	for i, ch := range changes {
		if ordersAnew(ch) && !slices.ContainsFunc(ch.Sites(), lacks) {
			changes[i].Do, changes[i].Certificate = plan.Site, false
			changes[i].Why += "; the certificate from before will do: nothing is ordered"
		}
	}
	return nil
}

// ordersAnew reports that a change asks for another certificate by other words of
// farm.yaml, and not of another CA that has the same name, or for other holders.
func ordersAnew(ch plan.Change) bool {
	return ch.Do == plan.Issue && len(ch.Fields) > 0 && !ch.Moves()
}

// willDo reports that the newest of a site's versions, newest first, is what the site
// is wanted for, and is good.
func willDo(site farm.Site, issuers []farm.Issuer, versions []farm.Version, now time.Time) bool {
	s := standing{site: site}
	s.choose(versions)
	if i := slices.IndexFunc(issuers, func(i farm.Issuer) bool { return i.Name == site.Issuer }); i >= 0 {
		s.askAt(issuers[i])
	}
	return s.good.ID != "" && s.good.ID == s.newest.ID && renew.Fits(s.good, s.want()) && now.Before(s.good.NotAfter())
}
