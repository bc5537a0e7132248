package controller

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/certfarm/certfarm/internal/budget"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/renew"
	"github.com/certfarm/certfarm/internal/store"
)

// A ForecastAsk is what a forecast is made for: the farm as it is, with what might be.
type ForecastAsk struct {
	Days     int           // 0: 90
	AddNames int           // so many new sites of one name
	Under    string        // the domain of those names; empty: each has a domain of its own
	Lifetime time.Duration // of all that is ordered from now on; 0: as it is
	Pause    time.Duration // nothing is ordered so long from now
}

// A ForecastReport is what is to come at each issuer.
type ForecastReport struct {
	At      time.Time        `json:"at"`
	Issuers []IssuerForecast `json:"issuers"`
}

// An IssuerForecast is what is to come at one issuer.
type IssuerForecast struct {
	Issuer       string      `json:"issuer"`
	Certificates int         `json:"certificates" doc:"those that might be added among them"`
	Limits       farm.Limits `json:"limits,omitzero"`
	budget.Forecast
}

// defaultLife is how long certificates live of which nothing is known.
const defaultLife = 90 * 24 * time.Hour

// Forecast plays a farm's next days forward against the limits of its CAs. Nothing is
// asked of anybody, and nothing is changed.
func (c *Controller) Forecast(ctx context.Context, farmName string, ask ForecastAsk) (r ForecastReport, err error) {
	r.At = c.Now()
	var f farm.Farm
	certs, ledgers := map[string][]budget.Cert{}, map[string]budget.Ledger{}
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		if f, err = tx.Farm(ctx, farmName); err != nil {
			return err
		}
		if err := forecasted(ctx, tx, f, certs, r.At); err != nil {
			return err
		}
		for _, i := range f.Issuers {
			if ledgers[i.Name], err = wholeLedger(ctx, tx, farmName, i, certs[i.Name]); err != nil {
				return err
			}
			if err := sharedBuckets(ctx, tx, f, i, ledgers[i.Name]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return r, err
	}
	if n := ask.AddNames; n > 0 {
		add(f, certs, ask, r.At)
	}
	for _, i := range f.Issuers {
		all, l := certs[i.Name], ledgers[i.Name]
		life := usual(all)
		for at := range all {
			all[at].Life, all[at].Exempt = cmp.Or(all[at].Life, life), l.Limits.Exempt == farm.ExemptARI
		}
		r.Issuers = append(r.Issuers, IssuerForecast{i.Name, len(all), l.Limits, budget.Simulate(budget.Scenario{
			Certs: all, Ledger: l, Start: r.At, Days: cmp.Or(ask.Days, 90), Pause: ask.Pause, Life: ask.Lifetime, Before: renew.Before,
		})})
	}
	return r, nil
}

// forecasted reads what is known of a farm's certificates, by issuer.
func forecasted(ctx context.Context, tx *store.Tx, f farm.Farm, certs map[string][]budget.Cert, now time.Time) error {
	all, err := tx.Certificates(ctx, f.Name, "", 0)
	if err != nil {
		return err
	}
	bySite := make(map[string]farm.Certificate, len(all))
	for _, cert := range all {
		bySite[cert.Site] = cert
	}
	for _, s := range f.Sites {
		cert := bySite[s.Name]
		c := budget.Cert{Site: s.Name, Names: s.Names, Orders: len(s.KeyTypes), Due: now, Shared: s.Member != nil}
		if cert.Version != "" {
			v, err := tx.Version(ctx, f.Name, cert.Version)
			if err != nil {
				return fmt.Errorf("forecast for site %s: %w", s.Name, err)
			}
			c.NotAfter, c.Life = v.NotAfter(), v.NotAfter().Sub(v.NotBefore())
			c.Due = dueOf(s.Name, cert, v, now)
		}
		certs[s.Issuer] = append(certs[s.Issuer], c)
	}
	return nil
}

// dueOf is when a certificate will be ordered, if nobody changes anything.
func dueOf(site string, cert farm.Certificate, v farm.Version, now time.Time) time.Time {
	if !cert.Due.IsZero() {
		return now
	}
	return plannedOf(site, cert, leafOf(v), v.NotBefore(), v.NotAfter())
}

// wholeLedger is what an issuer's buckets hold for all names of a farm.
func wholeLedger(ctx context.Context, tx *store.Tx, farmName string, i farm.Issuer, certs []budget.Cert) (budget.Ledger, error) {
	var names []string
	for _, c := range certs {
		names = append(names, c.Names...)
	}
	l, err := ledger(ctx, tx, farmName, i, names)
	return l.Ledger, err
}

// sharedBuckets adds to a ledger what the buckets hold that members have in common.
func sharedBuckets(ctx context.Context, tx *store.Tx, f farm.Farm, i farm.Issuer, l budget.Ledger) error {
	for _, s := range f.Sites {
		bucket := budget.BucketOf(s.Names)
		if _, known := l.Domains[bucket]; s.Member == nil || s.Issuer != i.Name || known {
			continue
		}
		slot := store.Slot(farm.Order{Issuer: s.Issuer, Names: s.Names, Profile: cmp.Or(s.Profile, i.Profile)})
		orders, err := tx.Orders(ctx, f.Name, store.OrderQuery{Slot: slot, Since: tx.Now().Add(-spanOf(s, l.Limits))})
		if err != nil {
			return err
		}
		l.Domains[bucket] = budget.FullAfter(counted(orders, s.Issuer, s.Names, tx.Now()), l.Limits)
	}
	return nil
}

// usual is the lifetime that most certificates have.
func usual(all []budget.Cert) time.Duration {
	count := map[time.Duration]int{}
	for _, c := range all {
		if c.Life > 0 {
			count[c.Life.Round(time.Hour)]++
		}
	}
	most := defaultLife
	for _, life := range slices.Sorted(maps.Keys(count)) {
		if count[life] > count[most] {
			most = life
		}
	}
	return most
}

// add puts sites that might be to the issuer that has most.
func add(f farm.Farm, certs map[string][]budget.Cert, ask ForecastAsk, now time.Time) {
	var to string
	for _, i := range f.Issuers {
		if to == "" || len(certs[i.Name]) > len(certs[to]) {
			to = i.Name
		}
	}
	for n := range ask.AddNames {
		name := "added-" + strconv.Itoa(n+1)
		under := cmp.Or(ask.Under, name+".example")
		certs[to] = append(certs[to], budget.Cert{Site: name, Names: []string{name + "." + under}, Due: now})
	}
}
