package controller

import (
	"context"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/budget"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/renew"
	"github.com/certfarm/certfarm/internal/store"
)

// A Measure is what can be read off the store at one moment, for metrics: the same
// from every controller.
type Measure struct {
	At    time.Time
	Farms []FarmMeasure
	Seats []store.Seat // the controllers
	CA    AgentsCA     // of the agents
}

// A FarmMeasure is the measure of one farm.
type FarmMeasure struct {
	Farm         string
	Frozen       bool
	Certificates []CertificateMeasure // by site
	Targets      []store.Tally        // by node and standing
	Places       []farm.Place         // each target, or only those that are not as they should be: see Whole
	Whole        bool                 // Places has every target
	Rollouts     map[string]int       // that run, by what they do: running, waiting or back
	Limits       []LimitMeasure
	Jobs         store.JobCount
	Waiting      time.Duration // how long the job has been due that has been due longest, and that nobody does
	Looked       time.Duration // no site was looked at longer ago than this
	Epoch        int64         // the highest of all lanes
}

// A CertificateMeasure is one site's certificate.
type CertificateMeasure struct {
	Site      string
	NotBefore time.Time // of the newest version; zero: there is none yet
	NotAfter  time.Time
	Renewal   time.Time // when the next is ordered, or since when it is due
	WindowEnd time.Time // of the time in which the CA wants it renewed (RFC 9773); zero: it did not say
	Orders    int       // that failed in a row
	Retries   int       // rollouts of the newest version that were put back in a row
}

// Ready says whether there is a certificate that is valid and whose last order and
// rollout did what they were to. It is not known before the first.
func (c CertificateMeasure) Ready(now time.Time) (ready, known bool) {
	failing := c.Orders > 0 || c.Retries > 0
	if c.NotAfter.IsZero() && !failing {
		return false, false
	}
	return !failing && now.After(c.NotBefore) && now.Before(c.NotAfter), true
}

// A LimitMeasure is a limit of a CA, and how much of it is left.
type LimitMeasure struct {
	Issuer string
	Limit  string // orders, accounts, or domain: the one of which least is left
	Most   int
	Left   float64
}

// What a rollout that runs does, for a FarmMeasure.
const (
	rolloutRuns  = "running"
	rolloutWaits = "waiting" // for a person
	rolloutBack  = "back"    // puts all back
)

// measuredPlaces bounds the targets that are measured one by one: where a farm has more,
// only those that are not as they should be are, and they up to as many.
const measuredPlaces = 5000

// untoward are the standings of targets that are not as they should be.
var untoward = []farm.Standing{farm.Stranger, farm.Silent, farm.Drifted, farm.Behind, farm.Unreachable, farm.Missing}

// Measure reads what metrics tell of all farms. What it costs grows with the number of
// certificates, and not with that of targets.
func (c *Controller) Measure(ctx context.Context) (m Measure, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		m = Measure{At: tx.Now()}
		if m.Seats, err = tx.Seats(ctx); err != nil {
			return err
		}
		if _, m.CA, err = c.agentsCAState(ctx, tx); err != nil {
			return err
		}
		farms, err := tx.Farms(ctx)
		if err != nil {
			return err
		}
		for _, name := range farms {
			f := FarmMeasure{Farm: name}
			if err := f.read(ctx, tx); err != nil {
				return err
			}
			if f.Looked, err = c.oldestLook(ctx, tx, name); err != nil {
				return err
			}
			m.Farms = append(m.Farms, f)
		}
		return nil
	})
	return m, err
}

// oldestLook is how long ago the last look at any site was at most. A look that shows
// nothing new is not written down, so it is told by when the next is due.
func (c *Controller) oldestLook(ctx context.Context, tx *store.Tx, farmName string) (age time.Duration, err error) {
	every, err := c.lookAgain(ctx, tx, farmName)
	if err != nil {
		return 0, err
	}
	due, err := tx.LongestDue(ctx, farmName, "look")
	if err != nil || due.IsZero() {
		return 0, err
	}
	return every + max(0, tx.Now().Sub(due)), nil
}

// Alive is how many controllers were heard of lately, and how many were not.
func (m Measure) Alive() (alive, silent int) {
	for _, s := range m.Seats {
		if m.At.Sub(s.Seen) > aliveWithin {
			silent++
		} else {
			alive++
		}
	}
	return alive, silent
}

func (f *FarmMeasure) read(ctx context.Context, tx *store.Tx) error {
	frozen, err := tx.Word(ctx, f.Farm, wordFrozen)
	if err != nil {
		return err
	}
	f.Frozen = frozen != ""
	for _, part := range []func(context.Context, *store.Tx) error{f.certificates, f.rollouts, f.limits, f.jobs} {
		if err := part(ctx, tx); err != nil {
			return err
		}
	}
	return f.targets(ctx, tx, measuredPlaces)
}

func (f *FarmMeasure) certificates(ctx context.Context, tx *store.Tx) error {
	rows, err := tx.Rows(ctx, f.Farm, "", store.ByName, 0, 0)
	if err != nil {
		return err
	}
	certs, err := tx.Certificates(ctx, f.Farm, "", 0)
	if err != nil {
		return err
	}
	known := make(map[string]farm.Certificate, len(certs))
	for _, c := range certs {
		known[c.Site] = c
	}
	for _, r := range rows {
		cert := known[r.Site]
		one := CertificateMeasure{
			Site: r.Site, NotBefore: r.NotBefore, NotAfter: r.NotAfter,
			Renewal: cert.Due, Orders: cert.Failures, Retries: cert.Retries,
		}
		if cert.ARI.Leaf == r.Leaf {
			one.WindowEnd = cert.ARI.End
		}
		if one.Renewal.IsZero() && !r.NotAfter.IsZero() {
			one.Renewal = plannedOf(r.Site, cert, r.Leaf, r.NotBefore, r.NotAfter)
		}
		f.Certificates = append(f.Certificates, one)
	}
	return nil
}

// plannedOf is when a certificate that is not due yet will be ordered.
func plannedOf(site string, cert farm.Certificate, leaf string, notBefore, notAfter time.Time) time.Time {
	if cert.ARI.Leaf == leaf && !cert.ARI.Chosen.IsZero() {
		return cert.ARI.Chosen
	}
	return notAfter.Add(-renew.Before(site, notAfter.Sub(notBefore)))
}

// targets counts the targets, and reads them, or most of those that are not as they
// should be.
func (f *FarmMeasure) targets(ctx context.Context, tx *store.Tx, most int) (err error) {
	if f.Targets, err = tx.Tallies(ctx, f.Farm, true); err != nil {
		return err
	}
	targets := 0
	for _, t := range f.Targets {
		targets += t.Targets
	}
	standings := untoward
	if f.Whole = targets <= most; f.Whole {
		standings = farm.Standings
	}
	f.Places, err = tx.PlacesIn(ctx, f.Farm, standings, most)
	f.Places = slices.DeleteFunc(f.Places, func(p farm.Place) bool { return p.Released })
	return err
}

func (f *FarmMeasure) rollouts(ctx context.Context, tx *store.Tx) error {
	f.Rollouts = map[string]int{rolloutRuns: 0, rolloutWaits: 0, rolloutBack: 0}
	heads, err := tx.RunningHeads(ctx, f.Farm)
	for _, r := range heads {
		switch {
		case r.Back != "":
			f.Rollouts[rolloutBack]++
		case r.Paused || waitsForApproval(r):
			f.Rollouts[rolloutWaits]++
		default:
			f.Rollouts[rolloutRuns]++
		}
	}
	return err
}

func (f *FarmMeasure) jobs(ctx context.Context, tx *store.Tx) (err error) {
	if f.Jobs, err = tx.CountJobs(ctx, f.Farm); err != nil {
		return err
	}
	due, err := tx.Waiting(ctx, f.Farm)
	if err != nil {
		return err
	}
	if !due.IsZero() {
		f.Waiting = tx.Now().Sub(due)
	}
	f.Epoch, err = tx.LaneEpoch(ctx, f.Farm)
	return err
}

// limits reads what is left of the limits that the issuers' CAs have.
func (f *FarmMeasure) limits(ctx context.Context, tx *store.Tx) error {
	all, err := tx.Issuers(ctx, f.Farm)
	if err != nil {
		return err
	}
	for _, i := range all {
		l, err := ledger(ctx, tx, f.Farm, i, nil)
		if err != nil {
			return err
		}
		now := tx.Now()
		f.limit(i, "orders", l.Limits.Orders, budget.Used(l.Limits.Orders, l.Orders, now))
		full, err := bucket(ctx, tx, f.Farm, openingsWord(i))
		if err != nil {
			return err
		}
		f.limit(i, "accounts", l.Limits.Accounts, budget.Used(l.Limits.Accounts, full, now))
		words, err := tx.Words(ctx, f.Farm, l.domainWord(""))
		if err != nil {
			return err
		}
		most := 0.0
		for _, text := range words {
			if full, err := time.Parse(time.RFC3339Nano, text); err == nil {
				most = max(most, budget.Used(l.Limits.Domain, full, now))
			}
		}
		f.limit(i, "domain", l.Limits.Domain, most)
	}
	return nil
}

func (f *FarmMeasure) limit(i farm.Issuer, name string, r farm.Rate, used float64) {
	if r.Count > 0 {
		f.Limits = append(f.Limits, LimitMeasure{Issuer: i.Name, Limit: name, Most: r.Count, Left: float64(r.Count) * max(0, 1-used)})
	}
}
