package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/budget"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/renew"
	"github.com/certfarm/certfarm/internal/store"
)

// A checked is what a check learned outside.
type checked struct {
	suggestion *farm.Suggestion
	barred     map[string]string // issuers that may not issue for the site, and why; nil: nobody looked
}

// workCheck asks the CA when it wants a site's newest version renewed, where
// that is due to be asked.
func (c *Controller) workCheck(ctx context.Context, j farm.Job) farm.Result {
	var s standing
	err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
		s, err = stand(ctx, tx, j.Farm, j.Subject)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return farm.Result{} // gone from farm.yaml
	}
	if err != nil {
		return farm.Result{Err: err}
	}
	var v checked
	if s.newest.Issuer != "" && renew.Due(s.facts(), c.Now()).Ask {
		suggestion := c.suggest(ctx, j.Farm, s.newest)
		v.suggestion = &suggestion
		s.hear(v)
	}
	if len(s.site.Fallbacks) > 0 && s.cert.Intent == "" && renew.Due(s.facts(), c.Now()).Due {
		v.barred = c.barred(ctx, j.Farm, s.site)
	}
	return farm.Result{Value: v}
}

// suggest asks for renewal information. A CA that does not answer suggests
// nothing: the share of life decides, and it is asked again in a while.
func (c *Controller) suggest(ctx context.Context, farmName string, v farm.Version) farm.Suggestion {
	now := c.Now()
	account, _, err := c.account(ctx, farmName, v.Issuer)
	var s farm.Suggestion
	if err == nil {
		s, err = account.Suggest(ctx, v.Leaves[0].Chain, now)
	}
	if err != nil {
		c.Log.Warn("renewal information", "site", v.Site, "error", err)
		s = farm.Suggestion{Ask: now.Add(6 * time.Hour)} // RFC 9773 §4.3.3
	}
	s.Leaf = leafOf(v)
	return s
}

// applyCheck brings a site's certificate where it should be: an order where one
// is due, a rollout where a target should hold another version.
func (c *Controller) applyCheck(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	s, err := stand(ctx, tx, f.Job.Farm, f.Job.Subject)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if is, err := observing(ctx, tx, f.Job.Farm, s.site.Name); err != nil || is {
		return errors.Join(err, arm(ctx, tx, f.Job.Farm, "look", s.site.Name, tx.Now()))
	}
	if v, ok := f.Result.Value.(checked); ok {
		s.hear(v)
		s.unseen = v.barred == nil && len(s.site.Fallbacks) > 0
		if err := s.together(ctx, tx, v); err != nil {
			return err
		}
	}
	if err := c.bring(ctx, tx, &s); err != nil {
		return err
	}
	if err := s.replacedNow(ctx, tx); err != nil {
		return err
	}
	if err := tx.PutCertificate(ctx, s.cert); err != nil || s.cert.Next.IsZero() {
		return err // an order runs: its end checks again
	}
	return arm(ctx, tx, f.Job.Farm, "check", s.site.Name, s.cert.Next)
}

// hear keeps what the CA suggests, unless it is about a version that is not the
// newest any more, and which issuers may not issue.
func (s *standing) hear(v checked) {
	if v.barred != nil {
		s.cert.Barred = v.barred
	}
	if v.suggestion != nil && v.suggestion.Leaf == leafOf(s.newest) {
		s.cert.ARI = keepChoice(s.cert.ARI, *v.suggestion)
	}
}

// bring orders a version where one is due, begins to roll out the good one where
// it is missing, and notes why, and when to look again.
func (c *Controller) bring(ctx context.Context, tx *store.Tx, s *standing) error {
	if err := s.hasten(ctx, tx); err != nil {
		return err
	}
	now := tx.Now()
	before := s.cert.Verdict
	if err := c.intendIfDue(ctx, tx, s, s.judge(now), before); err != nil {
		return err
	}
	if s.good.ID != "" && !s.cert.Retry.After(now) && now.Before(s.good.NotAfter()) {
		if err := c.rollOut(ctx, tx, s.cert, s.good); err != nil {
			return err
		}
	}
	if s.cert.Retry.After(now) && (s.cert.Next.IsZero() || s.cert.Retry.Before(s.cert.Next)) {
		s.cert.Next = s.cert.Retry
	}
	return nil
}

// judge notes whether a version is due, and why.
func (s *standing) judge(now time.Time) (due bool) {
	verdict := renew.Due(s.facts(), now)
	wanted := verdict.Due || s.cert.Intent != ""
	s.cert.Due = dueSince(s.cert.Due, wanted, now)
	s.cert.Verdict, s.cert.Next = verdict.Why+s.abort(), verdict.Again
	if !wanted {
		s.cert.Failures = 0 // what failed was for something that nobody wants any more
	}
	return verdict.Due
}

// dueSince is since when a certificate is due; zero: it is not.
func dueSince(was time.Time, due bool, now time.Time) time.Time {
	switch {
	case !due:
		return time.Time{}
	case was.IsZero():
		return now
	}
	return was
}

// abort says, after why a certificate is or is not due, that its newest version is
// not rolled out.
func (s standing) abort() string {
	if s.newest.ID == "" || s.newest.ID != s.cert.Aborted {
		return ""
	}
	return "; the newest version is not rolled out by itself: " + s.cert.AbortedBy
}

// keepChoice keeps the random time that was chosen while the CA's window stays
// the same: drawing again each time would favour early ones.
func keepChoice(was, is farm.Suggestion) farm.Suggestion {
	if was.Leaf == is.Leaf && was.Start.Equal(is.Start) && was.End.Equal(is.End) && !was.Chosen.IsZero() {
		is.Chosen = was.Chosen
	}
	return is
}

// intendIfDue makes orders for a version that is due, unless they run already. One
// that is not due any more waits for no turn.
func (c *Controller) intendIfDue(ctx context.Context, tx *store.Tx, s *standing, due bool, before string) error {
	if !due {
		s.cert.Turn = nil
		if err := s.waitsNoMore(ctx, tx); err != nil {
			return err
		}
	}
	if !due || s.cert.Intent != "" {
		return nil
	}
	if s.unseen { // it became due while the check ran
		s.cert.Next = tx.Now()
		return nil
	}
	return c.intend(ctx, tx, s, before)
}

// intend makes the orders that become the next version, one a key type, unless
// the CA's limits say to wait.
func (c *Controller) intend(ctx context.Context, tx *store.Tx, s *standing, before string) error {
	if why, err := s.orderly(ctx, tx); err != nil || why != "" {
		s.cert.Verdict, s.cert.Next = s.cert.Verdict+", but "+why, tx.Now().Add(waitAgain)
		return err
	}
	choice, err := s.turnTo(ctx, tx)
	if err != nil {
		return err
	}
	answer, err := s.allow(ctx, tx)
	if err != nil {
		return err
	}
	if !answer.OK {
		s.putOff(answer, choice.Switch)
		return waits(ctx, tx, s.cert, before)
	}
	if err := tellChoice(ctx, tx, s.cert, s.site, choice); err != nil {
		return err
	}
	o := farm.Order{
		Farm: s.cert.Farm, Site: s.site.Name, Issuer: s.issuer.Name, Names: s.site.Names, Profile: s.profile,
		Validations: s.site.Validations, Intent: store.NewID("int"), State: farm.OrderNew, Created: tx.Now(), Updated: tx.Now(),
		Exempt: s.exempt(budget.LimitsOf(s.issuer), tx.Now()),
	}
	for _, kind := range s.site.KeyTypes {
		o.ID, o.KeyType, o.Replaces = store.NewID("ord"), kind, s.replaces(kind)
		if err := tx.PutOrder(ctx, o); err != nil {
			return err
		}
		if err := armOrder(ctx, tx, o); err != nil {
			return err
		}
	}
	s.cert.Intent, s.cert.LastOrder, s.cert.Next = o.Intent, tx.Now(), time.Time{}
	for _, word := range []string{wordRenew, wordAhead} {
		if err := tx.SetWord(ctx, o.Farm, word+s.site.Name, ""); err != nil {
			return err
		}
	}
	return tell(ctx, tx, farm.Event{
		Farm: o.Farm, Kind: "certificate.due", Site: o.Site,
		Text: fmt.Sprintf("%s: ordering a certificate for %s", s.cert.Verdict, strings.Join(o.Names, ", ")),
	})
}

// armOrder has an order's next step done now, in the lane of its slot.
func armOrder(ctx context.Context, tx *store.Tx, o farm.Order) error {
	return tx.Enqueue(ctx, farm.Job{
		Farm: o.Farm, Kind: "order", Subject: o.ID, Lane: "order " + store.Slot(o), RunAt: tx.Now(),
	})
}

// putOff notes why an order has to wait, and until when.
func (s *standing) putOff(a budget.Answer, others time.Time) {
	s.cert.Verdict, s.cert.Next = s.cert.Verdict+", but "+a.Why, sooner(a.Again, others)
	if a.Waits { // what failed may be of a time before farm.yaml asked for something else
		s.cert.Failures = max(1, s.cert.Failures)
	}
}

// waits tells once that an order is put off.
func waits(ctx context.Context, tx *store.Tx, cert farm.Certificate, before string) error {
	if cert.Verdict == before || cert.Turn != nil {
		return nil // those that wait for their turn are told of together
	}
	e := farm.Event{Farm: cert.Farm, Kind: "certificate.waits", Level: farm.Warn, Site: cert.Site, Text: cert.Verdict}
	if !cert.Next.IsZero() {
		e.Hint = "it is ordered by itself at " + cert.Next.UTC().Format("2006-01-02 15:04 MST")
	}
	return tell(ctx, tx, e)
}
