package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/budget"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/plan"
	"github.com/certfarm/certfarm/internal/renew"
	"github.com/certfarm/certfarm/internal/store"
)

// share asks, for a member's orders, the bucket that all have in common whose names are
// the same. What the CA does not count, since it replaces a certificate in its own
// time, takes nothing from it.
func (s standing) share(orders []farm.Order, l farm.Limits, now time.Time) budget.Answer {
	if s.site.Member == nil || s.exempt(l, now) {
		return budget.Answer{OK: true}
	}
	return budget.Shared(counted(orders, s.issuer.Name, s.site.Names, now), len(s.site.KeyTypes), l, now)
}

// spanOf is how far back orders count. A bucket that many share may be all but empty for
// weeks: what it holds is only known from when it was full.
func spanOf(site farm.Site, l farm.Limits) time.Duration {
	span := max(budget.Span, l.Names.Per)
	if site.Member != nil {
		span = max(kept, 2*span)
	}
	return span
}

// counted are the times at which a CA counts the certificates of orders for some names:
// when it issued them, or now at the earliest.
func counted(orders []farm.Order, issuer string, names []string, now time.Time) (spent []time.Time) {
	for _, o := range orders {
		same := o.Issuer == issuer && store.Slot(farm.Order{Names: o.Names}) == store.Slot(farm.Order{Names: names})
		if !same || o.Exempt && o.Replaces != "" {
			continue
		}
		switch {
		case o.State == farm.OrderDone:
			spent = append(spent, o.Updated)
		case !o.State.Ended():
			spent = append(spent, now)
		}
	}
	return spent
}

// own are the orders of the site itself: a member answers only for them when it comes
// to what failed, and to how many are too many for one certificate.
func (s standing) own(orders []farm.Order) []farm.Order {
	if s.site.Member == nil {
		return orders
	}
	return slices.DeleteFunc(slices.Clone(orders), func(o farm.Order) bool { return o.Site != s.site.Name })
}

// unaffordable says why nodes cannot all have a certificate within an issuer's limits,
// and what to do instead.
func unaffordable(members []farm.Site, i farm.Issuer) (why, hint string) {
	first := members[0]
	if len(members) > 1 && !sameNames(members) {
		return "", ""
	}
	life := cmp.Or(renew.Lifetime(cmp.Or(first.Profile, i.Profile)), defaultLife)
	n := budget.Renewals{Nodes: len(members), Orders: len(first.KeyTypes), Life: life, Every: renew.Interval(life)}
	if why = n.Impossible(budget.LimitsOf(i)); why == "" {
		return "", ""
	}
	return why, `give each node a name of its own (node_name: "{node}.nodes.example.com"), take a profile whose certificates live longer, split the nodes into sites with other names, or use central`
}

// sameNames reports that all members are for exactly the same names.
func sameNames(members []farm.Site) bool {
	return !slices.ContainsFunc(members, func(m farm.Site) bool { return !slices.Equal(m.Names, members[0].Names) })
}

// A PerNode is what the first certificates of a site's nodes take of a CA's limits.
type PerNode struct {
	Site string `json:"site"`
	budget.Price
	Text string   `json:"text" doc:"the price, for people"`
	Warn string   `json:"warn,omitempty" doc:"what is in danger meanwhile"`
	Hint string   `json:"hint,omitempty"`
	Kept []string `json:"kept,omitempty" doc:"members that have a certificate from before that is still good"`
}

// prices are what a plan's new members cost, where some have what will do.
func prices(ctx context.Context, tx *store.Tx, wanted farm.Farm, changes []plan.Change, have map[string]bool) (all []PerNode, err error) {
	own := map[string]farm.Site{}
	for _, s := range wanted.Sites {
		if s.Member != nil {
			own[s.Name] = s
		}
	}
	for _, ch := range changes {
		if ch.Do != plan.Issue {
			continue
		}
		var members []farm.Site
		for _, name := range ch.Sites() {
			if s, is := own[name]; is {
				members = append(members, s)
			}
		}
		if len(members) == 0 {
			continue
		}
		p, err := price(ctx, tx, wanted, ch, members, have)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// price is what the members of one change cost; those with a certificate that will do
// cost nothing.
func price(ctx context.Context, tx *store.Tx, wanted farm.Farm, ch plan.Change, members []farm.Site, have map[string]bool) (p PerNode, err error) {
	p.Site = ch.Name
	var lacking []farm.Site
	for _, m := range members {
		if have[m.Name] {
			p.Kept = append(p.Kept, m.Name)
		} else {
			lacking = append(lacking, m)
		}
	}
	if len(lacking) == 0 {
		p.Text = farm.Count(len(members), "node") + ": each has a certificate from before that is still good: nothing is ordered"
		return p, nil
	}
	i := slices.IndexFunc(wanted.Issuers, func(i farm.Issuer) bool { return i.Name == members[0].Issuer })
	if i < 0 {
		return p, nil
	}
	l := budget.LimitsOf(wanted.Issuers[i])
	first := lacking[0]
	slot := store.Slot(farm.Order{Issuer: first.Issuer, Names: first.Names, Profile: cmp.Or(first.Profile, wanted.Issuers[i].Profile)})
	orders, err := tx.Orders(ctx, wanted.Name, store.OrderQuery{Slot: slot, Since: tx.Now().Add(-spanOf(first, l))})
	if err != nil {
		return p, err
	}
	same := len(members) == 1 || sameNames(members)
	p.Price = budget.Priced(len(lacking), len(first.KeyTypes), same, counted(orders, first.Issuer, first.Names, tx.Now()), l, tx.Now())
	p.Text = p.String()
	if p.Every > 0 && same {
		p.Hint = `with a name of its own for each node they need not wait for each other: node_name: "{node}.nodes.example.com"`
	}
	return p, p.danger(ctx, tx, wanted.Name, lacking)
}

// danger warns where what the targets serve now is over before the last node has its
// own: nobody renews that any more.
func (p *PerNode) danger(ctx context.Context, tx *store.Tx, farmName string, lacking []farm.Site) error {
	for _, m := range lacking {
		for _, t := range m.Targets {
			place, err := tx.Place(ctx, farmName, t.Name)
			if unlessGone(err) != nil {
				return err
			}
			for _, id := range place.Desired {
				v, err := tx.Version(ctx, farmName, id)
				if err != nil {
					return err
				}
				if end := v.NotAfter(); end.Before(tx.Now().Add(p.Last)) && p.Warn == "" {
					p.Warn = fmt.Sprintf("%s expires at %s, before the last node has its own", farm.Short(v.Leaf()), end.UTC().Format("2006-01-02 15:04 MST"))
					p.Hint = "renew site " + p.Site + " before its strategy changes, or give each node a name of its own (node_name)"
				}
			}
		}
	}
	return nil
}
