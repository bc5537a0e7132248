package controller

import (
	"context"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// An Overview is what a farm looks like at one glance: what asks for a person first.
type Overview struct {
	Farm      string                `json:"farm"`
	At        time.Time             `json:"at"`
	Sites     int                   `json:"sites"`
	Targets   int                   `json:"targets"`
	Standings map[farm.Standing]int `json:"standings" doc:"targets by how they stand"`
	Frozen    string                `json:"frozen,omitempty" doc:"who stopped all activations"`
	Attention []Attention           `json:"attention" doc:"what asks for a person, or soon will; the most pressing first"`
	Busy      []Progress            `json:"busy" doc:"sites with a rollout that runs"`
	More      bool                  `json:"more" doc:"there is more than is told here"`
	Deaf      []ReceiverState       `json:"deaf,omitempty" doc:"receivers of notifications that did not take the last message"`
	Events    []farm.Event          `json:"events" doc:"the newest, newest first"`

	sees func(site string) bool
}

// An Attention is one site that asks for a person, or soon will.
type Attention struct {
	Site    string    `json:"site"`
	Why     []string  `json:"why"`
	Urgent  bool      `json:"urgent" doc:"nothing that Certfarm does by itself will mend it"`
	Since   time.Time `json:"since,omitzero" doc:"since when, where that is known"`
	Ends    time.Time `json:"ends,omitzero" doc:"when what is served expires"`
	Next    string    `json:"next,omitempty" doc:"what it waits for"`
	Again   time.Time `json:"again,omitzero" doc:"when it goes on by itself"`
	Rollout string    `json:"rollout,omitempty"`
	Do      string    `json:"do,omitempty" enum:"approve,resume,decide,renew,verify" doc:"what a person can do; decide: whether a certificate that is not ours stays"`
}

// The most that an overview tells of.
const (
	overviewSites  = 20
	overviewPlaces = 60
	overviewEvents = 12
	overviewRead   = 200 // events that are read for these
)

// troubled are the standings that an overview tells of.
var troubled = []farm.Standing{farm.Stranger, farm.Silent, farm.Drifted, farm.Behind, farm.Unreachable}

// Overview tells what a farm looks like to who sees some sites; nil: all. What it costs
// does not grow with the farm then, but for counting.
func (c *Controller) Overview(ctx context.Context, farmName string, sees func(site string) bool) (o Overview, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		o = Overview{sees: sees, Farm: farmName, At: tx.Now(), Standings: map[farm.Standing]int{}, Attention: []Attention{}, Busy: []Progress{}}
		if err := o.count(ctx, tx); err != nil {
			return err
		}
		if err := o.busy(ctx, tx); err != nil {
			return err
		}
		if err := o.attend(ctx, tx); err != nil {
			return err
		}
		if err := o.listen(ctx, tx); err != nil {
			return err
		}
		events, err := tx.Events(ctx, farmName, store.EventQuery{Limit: overviewRead, Newest: true})
		for _, e := range events {
			if len(o.Events) < overviewEvents && o.shows(e.Site) {
				o.Events = append(o.Events, e)
			}
		}
		return err
	})
	return o, err
}

// listen tells of the receivers that do not hear, to who sees the whole farm.
func (o *Overview) listen(ctx context.Context, tx *store.Tx) error {
	settings, err := tx.Settings(ctx, o.Farm)
	if err != nil || o.sees != nil {
		return unlessGone(err)
	}
	all, err := receivers(ctx, tx, o.Farm, settings.Notifications)
	for _, r := range all {
		if r.Error != "" {
			o.Deaf = append(o.Deaf, r)
		}
	}
	return err
}

func (o *Overview) shows(site string) bool { return o.sees == nil || o.sees(site) }

func (o *Overview) count(ctx context.Context, tx *store.Tx) (err error) {
	if o.Frozen, err = tx.Word(ctx, o.Farm, wordFrozen); err != nil {
		return err
	}
	if o.sees != nil {
		return o.countSeen(ctx, tx)
	}
	if o.Sites, err = tx.SiteCount(ctx, o.Farm, ""); err != nil {
		return err
	}
	tallies, err := tx.Tallies(ctx, o.Farm, false)
	for _, t := range tallies {
		o.Standings[t.Standing] += t.Targets
		if t.Standing != farm.Released {
			o.Targets += t.Targets
		}
	}
	return err
}

// countSeen counts for who does not see every site.
func (o *Overview) countSeen(ctx context.Context, tx *store.Tx) error {
	rows, err := tx.Rows(ctx, o.Farm, "", store.ByName, 0, 0)
	if err != nil {
		return err
	}
	var sites []string
	for _, r := range rows {
		if o.sees(r.Site) {
			sites = append(sites, r.Site)
		}
	}
	cells, err := tx.Cells(ctx, o.Farm, sites)
	o.Sites, o.Targets = len(sites), len(cells)
	for _, c := range cells {
		o.Standings[c.Standing]++
	}
	return err
}

// busy tells of the rollouts that run.
func (o *Overview) busy(ctx context.Context, tx *store.Tx) error {
	sites, err := tx.RollingSites(ctx, o.Farm, 0)
	if err != nil {
		return err
	}
	sites = slices.DeleteFunc(sites, func(site string) bool { return !o.shows(site) })
	o.More = len(sites) > overviewSites
	for _, site := range sites[:min(len(sites), overviewSites)] {
		p, err := progress(ctx, tx, o.Farm, site)
		if err := unlessGone(err); err != nil {
			return err
		}
		if p.Name != "" {
			o.Busy = append(o.Busy, p)
		}
	}
	return nil
}

// A roll is sites that ask for attention, each once, with the earliest time since
// when that is known.
type roll struct {
	sites   []string
	since   map[string]time.Time
	foreign map[string]bool // a target of the site serves a certificate that is not ours
}

func (r *roll) add(site string, at time.Time) {
	was, known := r.since[site]
	switch {
	case !known:
		r.sites = append(r.sites, site)
		r.since[site] = at
	case !at.IsZero() && (was.IsZero() || at.Before(was)):
		r.since[site] = at
	}
}

// attend tells of the sites that fail, or whose targets are not as they should be,
// or whose rollout waits for a person.
func (o *Overview) attend(ctx context.Context, tx *store.Tx) error {
	r := roll{since: map[string]time.Time{}, foreign: map[string]bool{}}
	if err := o.call(ctx, tx, &r); err != nil {
		return err
	}
	for _, site := range r.sites {
		if !o.shows(site) {
			continue
		}
		if len(o.Attention) == overviewSites {
			o.More = true
			break
		}
		a, err := attention(ctx, tx, o.Farm, site, r)
		if err := unlessGone(err); err != nil {
			return err
		}
		if len(a.Why) > 0 {
			o.Attention = append(o.Attention, a)
		}
	}
	slices.SortStableFunc(o.Attention, pressing)
	return nil
}

// call puts the sites that ask for attention on a roll. Who does not see every site has
// all of them called, and theirs shown.
func (o *Overview) call(ctx context.Context, tx *store.Tx, r *roll) error {
	sites, targets := overviewSites, overviewPlaces
	if o.sees != nil {
		sites, targets = 0, 0
	}
	for _, p := range o.Busy {
		if p.Waits != "" && p.Again.IsZero() {
			r.add(p.Name, time.Time{})
		}
	}
	failing, err := tx.FailingCertificates(ctx, o.Farm, sites)
	if err != nil {
		return err
	}
	for _, c := range failing {
		r.add(c.Site, c.Due)
	}
	places, err := tx.PlacesIn(ctx, o.Farm, troubled, targets)
	for _, p := range places {
		r.add(p.Target.Site, p.Since)
		r.foreign[p.Target.Site] = r.foreign[p.Target.Site] || p.Standing() == farm.Stranger
	}
	o.More = o.More || len(places) == overviewPlaces
	return err
}

// pressing puts what nobody but a person mends first, and then what ends first.
func pressing(a, b Attention) int {
	if a.Urgent != b.Urgent {
		if a.Urgent {
			return -1
		}
		return 1
	}
	return a.Ends.Compare(b.Ends)
}

func attention(ctx context.Context, tx *store.Tx, farmName, site string, r roll) (a Attention, err error) {
	p, err := progress(ctx, tx, farmName, site)
	if err != nil {
		return a, err
	}
	a = Attention{Site: site, Why: p.Attention, Since: r.since[site], Ends: p.NotAfter, Next: p.Waits, Again: p.next(), Rollout: p.Rollout}
	if len(a.Why) == 0 && p.Waits != "" {
		a.Why = []string{p.Waits}
	}
	waits := p.Rollout != "" && p.Waits != "" && p.Again.IsZero()
	a.Urgent = waits || r.foreign[site] || !p.NotAfter.IsZero() && tx.Now().After(p.NotAfter)
	a.Do, err = remedy(ctx, tx, farmName, p, waits, r.foreign[site])
	return a, err
}

// next is when a site goes on by itself.
func (p Progress) next() time.Time {
	if p.Again.IsZero() {
		return p.Retry
	}
	return p.Again
}

// remedy is what a person can do about a site; waits: its rollout waits for them;
// foreign: a certificate that is not ours does.
func remedy(ctx context.Context, tx *store.Tx, farmName string, p Progress, waits, foreign bool) (string, error) {
	switch {
	case waits:
		r, err := tx.Rollout(ctx, farmName, p.Rollout)
		if r.Paused {
			return Resume, err
		}
		return Approve, err
	case foreign:
		return "decide", nil
	case p.Health == "degraded" && p.Rollout == "":
		return "renew", nil
	}
	return "verify", nil
}

// Troubled lists up to limit targets that are not as they should be, what needs a
// person first.
func (c *Controller) Troubled(ctx context.Context, farmName string, limit int) (all []farm.Place, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		all, err = tx.PlacesIn(ctx, farmName, troubled, limit)
		return err
	})
	return all, err
}
