package controller

import (
	"cmp"
	"time"

	"github.com/certfarm/certfarm/internal/budget"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/plan"
	"github.com/certfarm/certfarm/internal/renew"
)

// A PlanWarning tells what can be applied, and will lead to trouble.
type PlanWarning struct {
	Issuer string `json:"issuer"`
	Text   string `json:"text"`
	Hint   string `json:"hint"`
}

// overloaded are the concerned issuers whose limits do not carry what the whole farm keeps
// from them.
func overloaded(wanted farm.Farm, changes []plan.Change) (all []PlanWarning) {
	issuers := concerned(wanted, changes)
	if len(issuers) == 0 {
		return nil
	}
	certs := map[string][]budget.Cert{}
	for i := range wanted.Sites { // they may be many, and each is large
		s := &wanted.Sites[i]
		certs[s.Issuer] = append(certs[s.Issuer], budget.Cert{Site: s.Name, Names: s.Names, Orders: len(s.KeyTypes), Life: renew.Lifetime(s.Profile)})
	}
	for _, i := range issuers {
		of := certs[i.Name]
		for at := range of {
			of[at].Life = cmp.Or(of[at].Life, renew.Lifetime(i.Profile), defaultLife)
		}
		for _, text := range budget.Overload(of, budget.LimitsOf(i), lead, interval) {
			all = append(all, PlanWarning{i.Name, text,
				"take a profile whose certificates live longer, put more names into one certificate, share the sites among issuers, or ask the CA for more and say so in limits; `certfarm forecast` plays it day by day"})
		}
	}
	return all
}

// concerned are the issuers at which the plan changes what is ordered, and that limit how
// much that may be. Of the sites, it needs those that change.
func concerned(wanted farm.Farm, changes []plan.Change) (all []farm.Issuer) {
	changed := map[string]bool{}
	ordered := map[string]bool{}
	for _, ch := range changes {
		changed[ch.Name] = changed[ch.Name] || ch.Do == plan.Issuer
		for _, name := range ch.Sites() {
			ordered[name] = ordered[name] || ch.Do == plan.Issue
		}
	}
	for i := range wanted.Sites {
		s := &wanted.Sites[i]
		changed[s.Issuer] = changed[s.Issuer] || ordered[s.Name]
	}
	for _, i := range wanted.Issuers {
		if l := budget.LimitsOf(i); changed[i.Name] && (l.Orders.Count > 0 || l.Domain.Count > 0) {
			all = append(all, i)
		}
	}
	return all
}

// Neither counts on the jitter of a site: a farm must do without it.
func lead(c budget.Cert) time.Duration     { return c.Life - renew.Interval(c.Life) }
func interval(c budget.Cert) time.Duration { return renew.Interval(c.Life) }
