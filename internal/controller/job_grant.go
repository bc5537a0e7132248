package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/budget"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// How certificates wait for the limits of a CA.
const (
	// A renewal waits so long for others that may be in more need, even if the CA
	// allows it at once: after a time without a controller all are looked at together.
	gather = time.Minute
	// A certificate that waits is looked at so often all the same, in case whoever
	// was to wake it is gone. What was granted is lost if it is not used in this time.
	turnKept = time.Hour
	// Those that wait are granted in groups, so that a thousand that wait are not
	// looked through for each order.
	grantMost = 10 * time.Minute
	grantSome = 10
)

// takeTurn asks what is left of the issuer's limits for the site's orders. What a
// person asked for, and a first certificate while half of the limit is there, go at
// once; all else waits with its peers until it is granted, the least life left first.
func (s *standing) takeTurn(ctx context.Context, tx *store.Tx, i farm.Issuer) (budget.Answer, error) {
	was, now := s.cert.Turn, tx.Now()
	s.cert.Turn = nil
	turn := farm.Turn{Issuer: i.Name, Names: s.site.Names, Orders: len(s.site.KeyTypes), Since: now, NotBefore: s.good.NotBefore(), NotAfter: s.good.NotAfter()}
	l, err := ledger(ctx, tx, s.cert.Farm, i, turn.Names)
	if err != nil || !l.Counts() || s.exempt(l.Limits, now) {
		return budget.Answer{OK: true}, err
	}
	if was != nil && sameTurn(*was, turn) {
		if was.Granted.Add(turnKept).After(now) {
			return budget.Answer{OK: true}, nil
		}
		turn.Since = was.Since
	}
	return s.orderOrWait(ctx, tx, l, turn)
}

// orderOrWait takes a turn's orders out of the ledger, or has them wait.
func (s *standing) orderOrWait(ctx context.Context, tx *store.Tx, l stored, turn farm.Turn) (budget.Answer, error) {
	now := tx.Now()
	r := budget.Request{Names: turn.Names, Orders: turn.Orders, Whole: s.asked != "" || s.compromised()}
	answer := l.Grants(r, now)
	switch {
	case answer.OK && (r.Whole || s.goesAhead(l.Ledger, now)):
		return answer, l.write(ctx, tx, l.Spend(r, now))
	case !answer.OK && answer.Again.IsZero():
		return answer, nil
	}
	s.cert.Turn = &turn
	why := fmt.Sprintf("it waits for its turn: %s allows %s", turn.Issuer, allowed(l.Limits))
	return budget.Answer{Again: now.Add(turnKept), Why: why}, arm(ctx, tx, s.cert.Farm, "grant", turn.Issuer, now.Add(gather))
}

// sameTurn reports that two turns are for the same orders.
func sameTurn(a, b farm.Turn) bool {
	return a.Issuer == b.Issuer && a.Orders == b.Orders && slices.Equal(a.Names, b.Names)
}

// goesAhead reports that a first certificate need not wait for others: half of the
// limit is there.
func (s *standing) goesAhead(l budget.Ledger, now time.Time) bool {
	return s.good.ID == "" && budget.Used(l.Limits.Orders, l.Orders, now) < 0.5
}

// allowed is what a ledger is kept of, for people.
func allowed(l farm.Limits) string {
	switch {
	case l.Domain.Count == 0:
		return l.Orders.String() + " new orders"
	case l.Orders.Count == 0:
		return l.Domain.String() + " certificates for a domain"
	}
	return fmt.Sprintf("%s new orders, and %s for a domain", l.Orders, l.Domain)
}

// exempt reports that the CA does not count the site's next orders: each replaces a
// certificate within the window that the CA suggests (RFC 9773 §5).
func (s standing) exempt(l farm.Limits, now time.Time) bool {
	ari := s.cert.ARI
	if l.Exempt != farm.ExemptARI || s.newest.ID == "" || s.newest.Issuer != s.issuer.Name || ari.Leaf != leafOf(s.newest) || now.Before(ari.Start) || now.After(ari.End) {
		return false
	}
	shared := slices.ContainsFunc(s.site.Names, func(n string) bool { return slices.Contains(s.newest.Names, n) })
	return shared && !slices.ContainsFunc(s.site.KeyTypes, func(k farm.KeyType) bool { return s.replaces(k) == "" })
}

// applyGrant lets those go that waited longest for an issuer's limits, measured by
// the life that they have left.
func (c *Controller) applyGrant(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	i, err := tx.Issuer(ctx, f.Job.Farm, f.Job.Subject)
	if err != nil {
		return unlessGone(err)
	}
	waiting, turns, err := queueing(ctx, tx, f.Job.Farm, i.Name)
	if err != nil {
		return err
	}
	var names []string
	for _, t := range turns {
		names = append(names, t.Names...)
	}
	l, err := ledger(ctx, tx, f.Job.Farm, i, names)
	if err != nil {
		return err
	}
	granted, then, next := budget.Grant(turns, l.Ledger, tx.Now())
	for _, at := range granted {
		cert := waiting[at]
		cert.Turn.Granted = tx.Now()
		if err := tx.PutCertificate(ctx, cert); err != nil {
			return err
		}
		if err := arm(ctx, tx, cert.Farm, "check", cert.Site, tx.Now()); err != nil {
			return err
		}
	}
	rest := len(waiting) - len(granted)
	if err := errors.Join(l.write(ctx, tx, then), tellQueue(ctx, tx, f.Job.Farm, i, rest, l.Limits)); err != nil || next.IsZero() {
		return err
	}
	pause := grantMost
	if r := l.Limits.Orders; r.Count > 0 {
		pause = min(pause, grantSome*r.Per/time.Duration(r.Count))
	}
	if at := tx.Now().Add(pause); next.Before(at) {
		next = at
	}
	return arm(ctx, tx, f.Job.Farm, "grant", i.Name, next)
}

// queueing are the certificates that wait for an issuer's limits.
func queueing(ctx context.Context, tx *store.Tx, farmName, issuer string) (waiting []farm.Certificate, turns []farm.Turn, err error) {
	all, err := tx.Certificates(ctx, farmName, "", 0)
	for _, cert := range all {
		if t := cert.Turn; t != nil && t.Issuer == issuer && t.Granted.IsZero() {
			waiting, turns = append(waiting, cert), append(turns, *t)
		}
	}
	return waiting, turns, err
}

// An issuer that certificates wait for has this word, since people were told.
const wordQueue = "queue "

// tellQueue tells once that certificates wait for an issuer, however many come and
// go until none is left.
func tellQueue(ctx context.Context, tx *store.Tx, farmName string, i farm.Issuer, rest int, l farm.Limits) error {
	told, err := tx.Word(ctx, farmName, wordQueue+i.Name)
	switch {
	case err != nil || rest > 0 == (told != ""):
		return err
	case rest == 0:
		return tx.SetWord(ctx, farmName, wordQueue+i.Name, "")
	}
	return errors.Join(tx.SetWord(ctx, farmName, wordQueue+i.Name, tx.Now().Format(time.RFC3339)), tell(ctx, tx, farm.Event{
		Farm: farmName, Kind: "budget.waits", Level: farm.Warn,
		Text: fmt.Sprintf("%d certificates wait for the limits of %s (%s); those with the least life left go first", rest, i.Name, allowed(l)),
		Hint: "`certfarm forecast` shows until when",
	}))
}

// A stored is a ledger as the store has it: a word for each bucket that is not full.
// The bucket of orders is the account's; those of domains are the CA's, whichever
// issuer of the farm has its account there.
type stored struct {
	budget.Ledger
	farm   string
	issuer farm.Issuer
}

// ledger reads what an issuer's buckets hold for some names.
func ledger(ctx context.Context, tx *store.Tx, farmName string, i farm.Issuer, names []string) (l stored, err error) {
	l = stored{budget.Ledger{Limits: budget.LimitsOf(i), Domains: map[string]time.Time{}}, farmName, i}
	if l.Limits.Orders.Count > 0 {
		if l.Orders, err = bucket(ctx, tx, farmName, l.ordersWord()); err != nil {
			return l, err
		}
	}
	if l.Limits.Domain.Count == 0 {
		return l, nil
	}
	for _, d := range budget.Domains(names) {
		if l.Domains[d], err = bucket(ctx, tx, farmName, l.domainWord(d)); err != nil {
			return l, err
		}
	}
	return l, nil
}

func (l stored) ordersWord() string {
	return "ledger " + l.issuer.Directory + " orders of " + l.issuer.Name
}

func (l stored) domainWord(domain string) string {
	return "ledger " + l.issuer.Directory + " domain " + domain
}

// bucket is when a bucket is full again; zero: it is full.
func bucket(ctx context.Context, tx *store.Tx, farmName, word string) (full time.Time, err error) {
	text, err := tx.Word(ctx, farmName, word)
	if err != nil || text == "" {
		return full, err
	}
	if full, err = time.Parse(time.RFC3339Nano, text); err != nil {
		return full, fmt.Errorf("when a limit of a CA is full again (%s): %w", word, err)
	}
	return full, nil
}

// write keeps what the buckets hold after orders were granted.
func (l stored) write(ctx context.Context, tx *store.Tx, then budget.Ledger) error {
	put := func(word string, was, is time.Time) error {
		if is.Equal(was) {
			return nil
		}
		return tx.SetWord(ctx, l.farm, word, is.UTC().Format(time.RFC3339Nano))
	}
	if err := put(l.ordersWord(), l.Orders, then.Orders); err != nil {
		return err
	}
	for d, full := range then.Domains {
		if err := put(l.domainWord(d), l.Domains[d], full); err != nil {
			return err
		}
	}
	return nil
}
