package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/budget"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// A ReplaceAsk says which certificates are to be replaced; all that is said must hold.
type ReplaceAsk struct {
	Issuer  string    `json:"issuer,omitempty" doc:"that issued them"`
	Before  time.Time `json:"before,omitzero" doc:"issued before this"`
	After   time.Time `json:"after,omitzero" doc:"issued at this time or later"`
	Serials []string  `json:"serials,omitempty" maxItems:"100000" doc:"serial numbers in hex, as CAs publish them"`
	Sites   []string  `json:"sites,omitempty" doc:"of these sites only"`
	Reason  string    `json:"reason,omitempty" maxLength:"500" doc:"why, for the journal"`
}

// A ReplacePlan is what a mass replacement would be.
type ReplacePlan struct {
	At      time.Time         `json:"at"`
	Sites   []string          `json:"sites" doc:"whose certificates are replaced, in the order in which they go"`
	Unknown int               `json:"unknown,omitempty" doc:"serial numbers of no certificate that is meant"`
	Issuers []ReplaceForecast `json:"issuers" doc:"that the new ones come from"`
}

// A ReplaceForecast is how long one issuer takes.
type ReplaceForecast struct {
	Issuer       string         `json:"issuer"`
	Certificates int            `json:"certificates"`
	Orders       int            `json:"orders"`
	Pace         string         `json:"pace" doc:"for people"`
	Done         time.Time      `json:"done,omitzero" doc:"when the last is ordered; not set: not within 90 days"`
	Waited       int            `json:"waited" doc:"times that a certificate waits for the limits, other renewals too"`
	Lapses       []budget.Lapse `json:"lapses,omitempty" doc:"certificates that expire before their turn"`
}

// A CampaignStatus is how far a mass replacement is.
type CampaignStatus struct {
	farm.Campaign
	Done     int      `json:"done" doc:"replaced, and seen on all their targets"`
	Waiting  int      `json:"waiting" doc:"for their turn, or for the limits of the CA"`
	Ordering int      `json:"ordering"`
	Rolling  int      `json:"rolling" doc:"the new one is there, and is being rolled out"`
	Failed   int      `json:"failed" doc:"rollouts that were put back or stopped, and have not succeeded since; two, and more than a tenth of those tried, stop the replacement"`
	Failing  []string `json:"failing,omitempty" doc:"sites whose last order or rollout failed; it is tried again"`
}

// A member is a certificate that is to be replaced.
type member struct {
	site farm.Site
	cert farm.Certificate
	v    farm.Version
}

// PlanReplace says which certificates a mass replacement would take, and how long.
// Nothing is changed.
func (c *Controller) PlanReplace(ctx context.Context, farmName string, ask ReplaceAsk) (p ReplacePlan, err error) {
	p.At = c.Now()
	var o outlook
	var all []member
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		if o, err = lookOut(ctx, tx, farmName); err != nil {
			return err
		}
		if all, err = members(ctx, tx, o.f, ask); err != nil || len(all) > 0 {
			return err
		}
		return ask.stranger(o.f)
	})
	if err != nil {
		return p, err
	}
	serials := plainSerials(ask.Serials)
	for _, m := range all {
		p.Sites = append(p.Sites, m.site.Name)
		for _, l := range m.v.Leaves {
			delete(serials, plainSerial(l.Serial))
		}
	}
	p.Unknown = len(serials)
	for _, fc := range o.replacing(all, p.At) {
		if fc.Certificates > 0 {
			p.Issuers = append(p.Issuers, fc)
		}
	}
	return p, nil
}

// replacing plays forward what each issuer has to do. Nothing of it is exempt from
// limits, to be on the safe side.
func (o outlook) replacing(all []member, now time.Time) (forecasts []ReplaceForecast) {
	o.live()
	begins := map[string]time.Time{}
	for n := range o.issuers {
		i := &o.issuers[n]
		i.Ledger.Limits.Exempt = farm.ExemptNone
		forecasts = append(forecasts, paced(*i, all, begins, now))
	}
	for n := range o.certs {
		if at, is := begins[o.certs[n].Site]; is {
			o.certs[n].Due = at
		}
	}
	for n, out := range budget.Simulate(o.scenario(now)) {
		fc := &forecasts[n]
		fc.Waited, fc.Lapses = out.Waited, out.Lapses
		switch {
		case out.Drained.After(fc.Done):
			fc.Done = out.Drained
		case out.Waited > 0 && out.Drained.IsZero():
			fc.Done = time.Time{}
		}
	}
	return forecasts
}

// paced is when those of an issuer begin, and the last of them at the earliest.
func paced(i budget.Issuer, all []member, begins map[string]time.Time, now time.Time) (fc ReplaceForecast) {
	fc.Issuer, fc.Pace = i.Name, budget.Staggering(i.Ledger.Limits)
	for n, m := range all {
		if m.site.Issuer != i.Name {
			continue
		}
		at := now.Add(budget.Stagger(n, i.Ledger.Limits))
		begins[m.site.Name], fc.Done = at, at
		fc.Certificates, fc.Orders = fc.Certificates+1, fc.Orders+len(m.site.KeyTypes)
	}
	return fc
}

// members finds the certificates that are meant, those with the least life left first.
func members(ctx context.Context, tx *store.Tx, f farm.Farm, ask ReplaceAsk) (all []member, err error) {
	if err := ask.check(f); err != nil {
		return nil, err
	}
	serials := plainSerials(ask.Serials)
	certs, err := tx.Certificates(ctx, f.Name, "", 0)
	if err != nil {
		return nil, err
	}
	bySite := make(map[string]farm.Certificate, len(certs))
	for _, cert := range certs {
		bySite[cert.Site] = cert
	}
	for _, s := range f.Sites {
		cert := bySite[s.Name]
		if cert.Version == "" || len(ask.Sites) > 0 && !slices.Contains(ask.Sites, s.Name) {
			continue
		}
		v, err := tx.Version(ctx, f.Name, cert.Version)
		if err != nil {
			return nil, err
		}
		if ask.means(v, serials) {
			all = append(all, member{s, cert, v})
		}
	}
	slices.SortStableFunc(all, func(a, b member) int { return a.v.NotAfter().Compare(b.v.NotAfter()) })
	return all, nil
}

// check refuses what names nothing that is there, and what would take everything.
func (a ReplaceAsk) check(f farm.Farm) error {
	if a.Issuer == "" && len(a.Serials) == 0 && len(a.Sites) == 0 {
		return &Refusal{"it is not said which certificates are to be replaced", "name their issuer, their serial numbers or their sites"}
	}
	for _, s := range a.Serials {
		if plain := plainSerial(s); plain == "" || strings.Trim(plain, "0123456789abcdef") != "" {
			return &Refusal{fmt.Sprintf("%q is no serial number", s), "write it in hex, as the CA publishes it: 0A:1B:2C or a1b2c"}
		}
	}
	for _, name := range a.Sites {
		if !slices.ContainsFunc(f.Sites, func(s farm.Site) bool { return s.Name == name }) {
			return fmt.Errorf("site %s: %w", name, store.ErrNotFound)
		}
	}
	return nil
}

// means reports whether a version is one of those that are meant. When a CA issued is
// known to a moment, and certificates are dated back: one that may have been issued in
// the time that is said is taken.
func (a ReplaceAsk) means(v farm.Version, serials map[string]bool) bool {
	issuer := v.Issuer
	if issuer == "" && v.StandsFor != nil {
		issuer = v.StandsFor.Issuer
	}
	first, last := v.NotBefore(), v.Created
	if v.Issuer == "" || last.Before(first) {
		last = first // it was imported, or our clock is behind
	}
	switch {
	case a.Issuer != "" && a.Issuer != issuer,
		!a.Before.IsZero() && !first.Before(a.Before),
		!a.After.IsZero() && last.Before(a.After):
		return false
	}
	return len(serials) == 0 || slices.ContainsFunc(v.Leaves, func(l farm.Leaf) bool { return serials[plainSerial(l.Serial)] })
}

// plainSerial is a serial number as it is compared: hex without colons, zeros at the
// front, or case.
func plainSerial(s string) string {
	s = strings.ToLower(strings.NewReplacer(":", "", " ", "").Replace(s))
	return strings.TrimLeft(strings.TrimPrefix(s, "0x"), "0")
}

// stranger refuses an issuer that nobody knows: a slip of the finger is not to look like
// a farm without affected certificates.
func (a ReplaceAsk) stranger(f farm.Farm) error {
	if a.Issuer == "" || slices.ContainsFunc(f.Issuers, func(i farm.Issuer) bool { return i.Name == a.Issuer }) {
		return nil
	}
	return &Refusal{"no issuer is called " + a.Issuer + ", and no certificate that is meant is of one that was", "`certfarm describe site NAME` says who issued what"}
}

func plainSerials(all []string) map[string]bool {
	plain := map[string]bool{}
	for _, s := range all {
		plain[plainSerial(s)] = true
	}
	return plain
}

// Replace begins a mass replacement: every certificate that is meant becomes due, those
// with the least life left first, within the limits of its issuer. It goes on by
// itself until each is on all its targets.
func (c *Controller) Replace(ctx context.Context, farmName string, ask ReplaceAsk, by string) (s CampaignStatus, err error) {
	err = c.Store.Update(ctx, func(tx *store.Tx) error {
		f, err := tx.Farm(ctx, farmName)
		if err != nil {
			return err
		}
		all, err := members(ctx, tx, f, ask)
		if err != nil {
			return err
		}
		if len(all) == 0 {
			return &Refusal{"no certificate is meant by that", "`certfarm get sites` lists them, `certfarm describe site NAME` says who issued what, and when"}
		}
		s = CampaignStatus{Campaign: farm.Campaign{
			ID: store.NewID("rep"), Farm: farmName, By: by, Issuer: ask.Issuer, Begun: tx.Now(), Total: len(all),
			Reason: cmp.Or(ask.Reason, "said by "+by),
		}, Waiting: len(all)}
		if err := enlist(ctx, tx, f, s.Campaign, all); err != nil {
			return err
		}
		if err := putCampaign(ctx, tx, s.Campaign); err != nil {
			return err
		}
		if err := arm(ctx, tx, farmName, "replace", s.ID, tx.Now().Add(campaignEvery)); err != nil {
			return err
		}
		return tell(ctx, tx, farm.Event{
			Farm: farmName, Kind: "replacement.began", Level: farm.Warn, Actor: by,
			Text: fmt.Sprintf("%s replaces certificates (%d): %s", by, len(all), s.Reason), Hint: "`certfarm get replacements` shows how far it is",
		})
	})
	return s, err
}

// enlist makes the members due, each at its time. One that an earlier mass replacement
// has not replaced yet is taken over.
func enlist(ctx context.Context, tx *store.Tx, f farm.Farm, is farm.Campaign, all []member) error {
	limits := map[string]farm.Limits{}
	for _, i := range f.Issuers {
		limits[i.Name] = budget.LimitsOf(i)
	}
	lost := map[string]int{} // by mass replacement
	for n, m := range all {
		if had := m.cert.Replace; had != nil {
			lost[had.Campaign]++
		}
		m.cert.Replace = &farm.Replacement{
			Campaign: is.ID, Version: m.v.ID, At: tx.Now().Add(budget.Stagger(n, limits[m.site.Issuer])), Why: "it is replaced with others: " + is.Reason,
		}
		if err := tx.PutCertificate(ctx, m.cert); err != nil {
			return err
		}
		if err := arm(ctx, tx, f.Name, "check", m.site.Name, m.cert.Replace.At); err != nil {
			return err
		}
	}
	return takeOver(ctx, tx, f.Name, lost)
}

// Replacements tells how far a farm's mass replacements are, the newest first.
func (c *Controller) Replacements(ctx context.Context, farmName string) (all []CampaignStatus, err error) {
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		if _, err := tx.Revision(ctx, farmName); err != nil {
			return err
		}
		known, err := campaigns(ctx, tx, farmName)
		if err != nil {
			return err
		}
		for _, k := range known {
			s, err := statusOf(ctx, tx, k)
			if err != nil {
				return err
			}
			all = append(all, s)
		}
		return nil
	})
	return all, err
}

// count sorts what is left to do.
func (s *CampaignStatus) count(left []farm.Certificate) {
	s.Done = max(0, s.Total-s.Left-len(left))
	for _, cert := range left {
		if cert.Replace.Failed {
			s.Failed++
		}
		switch {
		case cert.Version != cert.Replace.Version:
			s.Rolling++
		case cert.Intent != "":
			s.Ordering++
		default:
			s.Waiting++
		}
		if cert.Failures > 0 || cert.Retries > 0 {
			s.Failing = append(s.Failing, cert.Site)
		}
	}
}

// CancelReplacement ends a mass replacement: what has not been ordered yet keeps its
// certificate; orders and rollouts that run go on.
func (c *Controller) CancelReplacement(ctx context.Context, farmName, id, by string) error {
	return c.Store.Update(ctx, func(tx *store.Tx) error {
		is, err := campaign(ctx, tx, farmName, id)
		if err != nil {
			return err
		}
		if !is.Ended.IsZero() {
			return &Refusal{"mass replacement " + id + " is over", "`certfarm get replacements` shows all"}
		}
		left, err := replacing(ctx, tx, is)
		if err != nil {
			return err
		}
		for _, cert := range left {
			cert.Replace = nil
			if cert.Intent == "" {
				cert.Turn = nil
			}
			if err := tx.PutCertificate(ctx, cert); err != nil {
				return err
			}
			if err := arm(ctx, tx, farmName, "check", cert.Site, tx.Now()); err != nil {
				return err
			}
		}
		is.Ended, is.Canceled, is.Left = tx.Now(), by, is.Left+len(left)
		if err := putCampaign(ctx, tx, is); err != nil {
			return err
		}
		return tell(ctx, tx, farm.Event{
			Farm: farmName, Kind: "replacement.canceled", Level: farm.Warn, Actor: by,
			Text: fmt.Sprintf("%s ended the replacement of %d certificates; %d were not replaced yet", by, is.Total, len(left)),
		})
	})
}
