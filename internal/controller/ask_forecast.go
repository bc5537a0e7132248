package controller

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
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

// A Replaced is an issuer in whose place another gets orders.
type Replaced struct {
	For    string
	Sites  []string
	Orders int
	From   time.Time // when the first of them is ordered
}

// InPlaceOf is whom the issuer stands in for, by name.
func (f IssuerForecast) InPlaceOf() (all []Replaced) {
	for _, in := range f.StandsIn {
		at := slices.IndexFunc(all, func(r Replaced) bool { return r.For == in.For })
		if at < 0 {
			at = len(all)
			all = append(all, Replaced{For: in.For, From: in.From})
		}
		r := &all[at]
		r.Sites, r.Orders = append(r.Sites, in.Site), r.Orders+in.Orders
		if in.From.Before(r.From) {
			r.From = in.From
		}
	}
	slices.SortFunc(all, func(a, b Replaced) int { return strings.Compare(a.For, b.For) })
	return all
}

// defaultLife is how long certificates live of which nothing is known.
const defaultLife = 90 * 24 * time.Hour

// An outlook is what a forecast of a farm is made from.
type outlook struct {
	f       farm.Farm
	certs   []budget.Cert
	issuers []budget.Issuer              // as in farm.yaml
	barred  map[string]map[string]string // by site: issuers that may not issue for it, and why
}

// Forecast plays a farm's next days forward against the limits of its CAs. Nothing is
// asked of anybody, and nothing is changed.
func (c *Controller) Forecast(ctx context.Context, farmName string, ask ForecastAsk) (r ForecastReport, err error) {
	r.At = c.Now()
	var o outlook
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		o, err = lookOut(ctx, tx, farmName)
		return err
	})
	if err != nil {
		return r, err
	}
	o.add(ask, r.At)
	o.live()
	certificates := map[string]int{}
	for _, cert := range o.certs {
		certificates[cert.Issuers[0]]++
	}
	s := o.scenario(r.At)
	s.Days, s.Pause, s.Life = cmp.Or(ask.Days, 90), ask.Pause, ask.Lifetime
	for n, forecast := range budget.Simulate(s) {
		i := o.issuers[n]
		r.Issuers = append(r.Issuers, IssuerForecast{i.Name, certificates[i.Name], i.Ledger.Limits, forecast})
	}
	return r, nil
}

// scenario is what is to come, if nobody changes anything.
func (o outlook) scenario(now time.Time) budget.Scenario {
	return budget.Scenario{Certs: o.certs, Issuers: o.issuers, Start: now, Days: 90, Before: renew.Before, Choose: o.chooser()}
}

// chooser has a site's issuers asked in turn as they really are.
func (o outlook) chooser() func(budget.Waiting, []budget.Offer, time.Time) ([]string, time.Time) {
	courses := map[string]renew.Course{}
	for _, s := range o.f.Sites {
		if len(s.Fallbacks) > 0 {
			courses[s.Name] = renew.CourseOf(s)
		}
	}
	return func(w budget.Waiting, offers []budget.Offer, now time.Time) (line []string, again time.Time) {
		var has farm.Version
		if !w.NotAfter.IsZero() {
			has.Leaves = []farm.Leaf{{NotBefore: w.NotBefore, NotAfter: w.NotAfter}}
		}
		var all []renew.Candidate
		for _, i := range offers {
			all = append(all, renew.Candidate{Issuer: i.Issuer, Bars: o.barred[w.Site][i.Issuer], Why: i.Why, Until: i.Until})
		}
		choice := renew.Choose(all, w.Since, renew.LastSafe(has, courses[w.Site]), now)
		line = append(line, choice.Issuer)
		switch {
		case choice.Switch.IsZero():
		case all[0].Why == "" && now.Add(turnKept).Before(choice.Switch):
			return line, now.Add(turnKept) // its issuer may not have as much room as there seemed to be
		default:
			return line, choice.Switch
		}
		// From now on it is looked at again and again, and who has room is asked.
		for _, i := range all {
			if i.Bars == "" && i.Issuer != choice.Issuer {
				line = append(line, i.Issuer)
			}
		}
		return line, time.Time{}
	}
}

// lookOut reads what is known of a farm's certificates and of what its CAs allow.
func lookOut(ctx context.Context, tx *store.Tx, farmName string) (o outlook, err error) {
	if o.f, err = tx.Farm(ctx, farmName); err != nil {
		return o, err
	}
	if err := o.read(ctx, tx); err != nil {
		return o, err
	}
	for _, i := range o.f.Issuers {
		var names []string
		for _, c := range o.certs {
			if slices.Contains(c.Issuers, i.Name) {
				names = append(names, c.Names...)
			}
		}
		l, err := ledger(ctx, tx, farmName, i, names)
		if err != nil {
			return o, err
		}
		if err := sharedBuckets(ctx, tx, o.f, i, l.Ledger); err != nil {
			return o, err
		}
		row, err := tx.Account(ctx, farmName, i.Name, i.Directory)
		if unlessGone(err) != nil {
			return o, err
		}
		o.issuers = append(o.issuers, budget.Issuer{Name: i.Name, CA: i.Directory, Ledger: l.Ledger, Hold: row.HoldUntil, Life: renew.Lifetime(i.Profile)})
	}
	return o, nil
}

// read reads what is known of the farm's certificates.
func (o *outlook) read(ctx context.Context, tx *store.Tx) error {
	all, err := tx.Certificates(ctx, o.f.Name, "", 0)
	if err != nil {
		return err
	}
	bySite := make(map[string]farm.Certificate, len(all))
	for _, cert := range all {
		bySite[cert.Site] = cert
	}
	o.barred = map[string]map[string]string{}
	for _, s := range o.f.Sites {
		cert := bySite[s.Name]
		o.barred[s.Name] = cert.Barred
		c := budget.Cert{
			Site: s.Name, Names: s.Names, Issuers: s.Issuers(), Orders: len(s.KeyTypes), Due: tx.Now(), Since: cert.Due,
			Shared: s.Member != nil, Life: renew.Lifetime(s.Profile),
		}
		if cert.Version != "" {
			v, err := tx.Version(ctx, o.f.Name, cert.Version)
			if err != nil {
				return fmt.Errorf("forecast for site %s: %w", s.Name, err)
			}
			c.Had, c.NotAfter, c.Life = v.Issuer, v.NotAfter(), v.NotAfter().Sub(v.NotBefore())
			if cert.Due.IsZero() {
				c.Due = plannedOf(s.Name, cert, leafOf(v), v.NotBefore(), v.NotAfter())
			}
		}
		o.certs = append(o.certs, c)
	}
	return nil
}

// live says how long those certificates live of which nothing is known: as most of the
// same issuer.
func (o *outlook) live() {
	of := map[string][]budget.Cert{}
	for _, c := range o.certs {
		from := cmp.Or(c.Had, c.Issuers[0])
		of[from] = append(of[from], c)
	}
	for n, i := range o.issuers {
		o.issuers[n].Life = usual(of[i.Name], i.Life)
	}
	for n, c := range o.certs {
		at := slices.IndexFunc(o.issuers, func(i budget.Issuer) bool { return i.Name == c.Issuers[0] })
		o.certs[n].Life = cmp.Or(c.Life, o.issuers[at].Life)
	}
}

// sharedBuckets adds to a ledger what the buckets hold that members have in common.
func sharedBuckets(ctx context.Context, tx *store.Tx, f farm.Farm, i farm.Issuer, l budget.Ledger) error {
	for _, s := range f.Sites {
		bucket := budget.BucketOf(s.Names)
		if _, known := l.Domains[bucket]; s.Member == nil || !slices.Contains(s.Issuers(), i.Name) || known {
			continue
		}
		of := standing{site: s}
		of.askAt(i)
		slot := store.Slot(farm.Order{Issuer: i.Name, Names: s.Names, Profile: of.profile})
		orders, err := tx.Orders(ctx, f.Name, store.OrderQuery{Slot: slot, Since: tx.Now().Add(-spanOf(s, l.Limits))})
		if err != nil {
			return err
		}
		l.Domains[bucket] = budget.FullAfter(counted(orders, i.Name, s.Names, tx.Now()), l.Limits)
	}
	return nil
}

// usual is the lifetime that most certificates have; where none is known, that of the
// issuer's profile, or the one that most CAs give.
func usual(all []budget.Cert, profile time.Duration) time.Duration {
	count := map[time.Duration]int{}
	for _, c := range all {
		if c.Life > 0 {
			count[c.Life.Round(time.Hour)]++
		}
	}
	most := cmp.Or(profile, defaultLife)
	for _, life := range slices.Sorted(maps.Keys(count)) {
		if count[life] > count[most] {
			most = life
		}
	}
	return most
}

// add adds sites that might be, with the issuers that most sites have.
func (o *outlook) add(ask ForecastAsk, now time.Time) {
	if len(o.issuers) == 0 {
		return
	}
	most, count := []string{o.issuers[0].Name}, map[string]int{}
	for _, s := range o.f.Sites {
		key := strings.Join(s.Issuers(), " ")
		if count[key]++; count[key] > count[strings.Join(most, " ")] {
			most = s.Issuers()
		}
	}
	for n := range ask.AddNames {
		name := "added-" + strconv.Itoa(n+1)
		under := cmp.Or(ask.Under, name+".example")
		o.certs = append(o.certs, budget.Cert{Site: name, Names: []string{name + "." + under}, Issuers: most, Due: now})
	}
}
