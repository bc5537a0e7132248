package controller

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/budget"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/renew"
	"github.com/certfarm/certfarm/internal/store"
)

// What is known of a CA that did not do what it was asked is forgotten after this
// time: nobody asked it since.
const troubleKept = 48 * time.Hour

// barsWithin bounds a look at what bars issuers.
const barsWithin = 30 * time.Second

// askAt has the site's next certificate asked for at an issuer. The profile that the
// site itself names is one of its first issuer; the others have their own.
func (s *standing) askAt(i farm.Issuer) {
	s.issuer, s.profile = i, i.Profile
	if i.Name == s.site.Issuer {
		s.profile = cmp.Or(s.site.Profile, i.Profile)
	}
}

// turnTo chooses among the site's issuers the one that is asked for its next
// certificate, and says why in the verdict. The others have accounts opened, so that
// records that name them can be set before they are needed.
func (s *standing) turnTo(ctx context.Context, tx *store.Tx) (choice renew.Choice, err error) {
	if len(s.site.Fallbacks) == 0 {
		return renew.Choice{Issuer: s.site.Issuer}, nil
	}
	for _, name := range s.site.Issuers() {
		if err := s.openAhead(ctx, tx, name); err != nil {
			return choice, err
		}
	}
	all, err := s.candidates(ctx, tx)
	if err != nil {
		return choice, err
	}
	choice = renew.Choose(all, s.cert.Due, s.lastSafe(), tx.Now())
	if choice.Why != "" {
		s.cert.Verdict += "; " + choice.Why
	}
	if t := s.cert.Turn; t != nil && t.Issuer != choice.Issuer {
		s.cert.Turn = nil
	}
	i, err := tx.Issuer(ctx, s.cert.Farm, choice.Issuer)
	s.askAt(i)
	return choice, err
}

// openAhead has the account at an issuer opened, if there is none.
func (s *standing) openAhead(ctx context.Context, tx *store.Tx, name string) error {
	i, err := tx.Issuer(ctx, s.cert.Farm, name)
	if err != nil {
		return err
	}
	row, err := tx.Account(ctx, s.cert.Farm, i.Name, i.Directory)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return openFirst(ctx, tx, s.cert.Farm, name)
	case err != nil || row.URL != "" || row.HoldUntil.After(tx.Now()):
		return err
	}
	return openFirst(ctx, tx, s.cert.Farm, name)
}

// candidates is what is known of each issuer of the site, in their order.
func (s standing) candidates(ctx context.Context, tx *store.Tx) (all []renew.Candidate, err error) {
	for _, name := range s.site.Issuers() {
		i, err := tx.Issuer(ctx, s.cert.Farm, name)
		if err != nil {
			return nil, err
		}
		c, err := s.candidate(ctx, tx, i)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// candidate is what is known of one issuer. The standing is a copy.
func (s standing) candidate(ctx context.Context, tx *store.Tx, i farm.Issuer) (c renew.Candidate, err error) {
	c.Issuer, c.Bars = i.Name, s.cert.Barred[i.Name]
	row, err := tx.Account(ctx, s.cert.Farm, i.Name, i.Directory)
	if err := unlessGone(err); err != nil {
		return c, err
	}
	if c.Failed, err = s.failedAt(ctx, tx, i.Name); err != nil {
		return c, err
	}
	if c.Why, c.Since, c.Until = trouble(row, tx.Now()); c.Why != "" {
		return c, nil
	}
	s.askAt(i)
	answer, err := s.ceiling(ctx, tx)
	if err == nil && answer.OK {
		answer, err = s.room(ctx, tx)
	}
	if err == nil && !answer.OK {
		c.Why, c.Until = "takes no order now ("+answer.Why+")", answer.Again
	}
	return c, err
}

// failedAt is when the site's last order at an issuer failed, or was given up, since
// its certificate is due; zero: none did.
func (s standing) failedAt(ctx context.Context, tx *store.Tx, issuer string) (at time.Time, err error) {
	if s.cert.Due.IsZero() {
		return at, nil
	}
	orders, err := tx.Orders(ctx, s.cert.Farm, store.OrderQuery{Site: s.site.Name, Since: s.cert.Due})
	for _, o := range orders {
		if o.Issuer == issuer && o.External == "" && o.State == farm.OrderFailed && !o.Outdated && o.Updated.After(at) {
			at = o.Updated
		}
	}
	return at, err
}

// room asks whether the issuer's buckets hold the site's orders, and takes nothing. What
// was granted is taken out of them already.
func (s standing) room(ctx context.Context, tx *store.Tx) (budget.Answer, error) {
	if t := s.cert.Turn; t != nil && t.Issuer == s.issuer.Name && t.Granted.Add(turnKept).After(tx.Now()) {
		return budget.Answer{OK: true}, nil
	}
	l, err := ledger(ctx, tx, s.cert.Farm, s.issuer, s.site.Names)
	if err != nil || !l.Counts() || s.exempt(l.Limits, tx.Now()) {
		return budget.Answer{OK: true}, err
	}
	return l.Grants(budget.Request{Names: s.site.Names, Orders: len(s.site.KeyTypes), Whole: s.asked != "" || s.compromised()}, tx.Now()), nil
}

// trouble is what is wrong with an account or its CA: it keeps us waiting, or does not
// do what it is asked. Until is the CA's own word; where it gave none, nobody knows.
func trouble(a store.Account, now time.Time) (why string, since, until time.Time) {
	known := !a.Silent.IsZero() && now.Before(a.Failed.Add(troubleKept))
	switch {
	case known && a.URL == "":
		return "opens no account (" + a.HoldWhy + ")", a.Silent, time.Time{}
	case a.HoldUntil.After(now):
		return "keeps the account waiting (" + a.HoldWhy + ")", a.Silent, a.HoldUntil
	case known:
		return "does not answer as it should", a.Silent, time.Time{}
	}
	return "", since, until
}

// tellChoice tells that another than the site's first issuer is asked, and why.
func tellChoice(ctx context.Context, tx *store.Tx, cert farm.Certificate, site farm.Site, choice renew.Choice) error {
	if choice.Issuer == site.Issuer {
		return nil
	}
	return tell(ctx, tx, farm.Event{
		Farm: cert.Farm, Kind: "issuer.next", Level: farm.Warn, Site: cert.Site, Text: choice.Why,
		Hint: "the next renewal begins with " + site.Issuer + " again; `certfarm describe site " + cert.Site + "` shows the state",
	})
}

// barred looks which of a site's issuers may not issue for it: CAA records forbid the
// CA, our account there or the method (RFC 8659, RFC 8657), or the records of
// dns-persist-01 name another account. What cannot be found out bars nobody: a
// preflight looks again before the order.
func (c *Controller) barred(ctx context.Context, farmName string, site farm.Site) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, barsWithin)
	defer cancel()
	all := map[string]string{}
	for _, name := range site.Issuers() {
		p := preflight{c: c, farm: farmName, site: site.Name, names: site.Names, validations: site.Validations}
		if err := c.Store.View(ctx, func(tx *store.Tx) error { return p.read(ctx, tx, name) }); err != nil {
			c.Log.Warn("what bars an issuer", "site", site.Name, "issuer", name, "error", err)
			continue
		}
		if why := p.bars(ctx); why != "" {
			all[name] = why
		}
	}
	return all
}

// bars says what of the site's zones forbids the issuer; empty: nothing.
func (p preflight) bars(ctx context.Context) string {
	if p.account.Key == (farm.KeyRef{}) {
		return "" // it was never used: its account is made first
	}
	found := p.caa(ctx)
	var kept []string // names that are proven by records that stay
	for _, name := range p.names {
		if farm.ValidationOf(p.validations, name).Method == farm.DNSPersist01 {
			kept = append(kept, name)
		}
	}
	if len(kept) > 0 && p.account.URL != "" {
		found = append(found, p.persistent(ctx, kept)...)
	}
	whys := map[string]bool{}
	for _, f := range found {
		if f.Verdict == http01.Wrong {
			whys[strings.TrimSpace(f.Check+" of "+f.Name+": "+f.Saw)] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(whys)), "; ")
}

// overtaken finds out whether another issuer is to be asked in place of the order's,
// which is in trouble; if not yet, when that is looked at again.
func (o *ordering) overtaken(ctx context.Context, tx *store.Tx) error {
	own, some := o.inTrouble(tx.Now())
	if !some || len(o.site.Fallbacks) == 0 || o.order.External != "" || o.order.State.Ended() {
		return nil
	}
	s, err := stand(ctx, tx, o.order.Farm, o.order.Site)
	if err != nil || s.cert.Intent != o.order.Intent {
		return err
	}
	all, err := s.candidates(ctx, tx)
	if err != nil {
		return err
	}
	for i, c := range all {
		if c.Issuer == own.Issuer {
			own.Bars, own.Failed = c.Bars, c.Failed
			all[i] = own
		}
	}
	choice := renew.Choose(all, s.cert.Due, s.lastSafe(), tx.Now())
	if o.turns = choice.Switch; choice.Issuer != o.order.Issuer {
		o.giveUp = cmp.Or(choice.Why, own.Issuer+" "+own.Why+"; "+choice.Issuer+" is asked")
	}
	return nil
}

// inTrouble is the order's own issuer as the order sees it: its account or its CA is in
// trouble, or else the order does not get on.
func (o *ordering) inTrouble(now time.Time) (c renew.Candidate, some bool) {
	c.Issuer = o.order.Issuer
	c.Why, c.Since, c.Until = trouble(o.account, now)
	if c.Why == "" && o.order.Error != "" {
		c.Why = "does not get on with an order (" + o.order.Error + ")"
	}
	return c, c.Why != ""
}

// givenUp ends an order that nobody refused.
func (c *Controller) givenUp(o ordering) farm.Result {
	o.order.State, o.order.Error, o.order.GivenUp = farm.OrderFailed, o.giveUp, true
	o.order.Outdated = o.outdated
	return farm.Result{Value: ordered{order: o.order}, Again: c.Now()}
}

// inTime has an order looked at when another issuer may be asked in its place.
func (o ordering) inTime(r farm.Result) farm.Result {
	if !o.turns.IsZero() && !r.Again.IsZero() && o.turns.Before(r.Again) {
		r.Again = o.turns
	}
	return r
}

// An answered is how a CA took what it was asked.
type answered int

const (
	notAsked answered = iota
	asItShould
	notAsItShould
)

// howAnswered judges a CA by the error of a step. A refusal is an answer; that we
// are told to wait with certain names says nothing of the CA.
func howAnswered(err error) answered {
	later, told := errors.AsType[*issue.Later](err)
	switch {
	case err == nil || errors.Is(err, issue.Refused):
		return asItShould
	case errors.Is(err, context.Canceled) || told && !later.Account:
		return notAsked
	}
	return notAsItShould
}

// wellAgain is how a CA took a step that went well: told only where it did not do so
// before.
func (o ordering) wellAgain() answered {
	if o.account.Silent.IsZero() {
		return notAsked
	}
	return asItShould
}

// noteAnswer keeps since when a CA does not do what it is asked.
func noteAnswer(ctx context.Context, tx *store.Tx, o ordered) error {
	if o.order.External != "" || o.answered == notAsked {
		return nil
	}
	i, err := tx.Issuer(ctx, o.order.Farm, o.order.Issuer)
	if err != nil {
		return err
	}
	a, err := tx.Account(ctx, o.order.Farm, i.Name, i.Directory)
	if err != nil || o.answered == asItShould && a.Silent.IsZero() {
		return err
	}
	if o.answered == asItShould {
		a.Silent, a.Failed = time.Time{}, time.Time{}
		return tx.PutAccount(ctx, a)
	}
	a.Failed = tx.Now()
	if a.Silent.IsZero() {
		a.Silent = tx.Now()
	}
	return tx.PutAccount(ctx, a)
}
