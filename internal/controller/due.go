package controller

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"time"

	"github.com/go-acme/lego/v5/acme/api"

	"github.com/certfarm/certfarm/internal/budget"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/renew"
	"github.com/certfarm/certfarm/internal/store"
)

// A site that a person asked to renew has this word, with who it was.
const wordRenew = "renew "

// A site whose newest version a person undid has this word, with when it was.
const wordUndone = "undone "

// A standing is what is known of a site's certificate.
type standing struct {
	site    farm.Site
	cert    farm.Certificate
	good    farm.Version // the newest that may be rolled out by itself; may be none
	newest  farm.Version // the newest that was neither withdrawn nor revoked by a person
	asked   string       // the person who wants it renewed now
	issuer  farm.Issuer  // that is asked for the next one; the site's first, until another is chosen
	profile string       // that it is asked for
	unseen  bool         // nobody looked yet what bars its issuers
	undone  time.Time    // when a person undid a version; zero: nobody did
	ahead   string       // of a member: who comes after it and is due
	held    farm.Version // of a member without a version of its own: what its targets hold from before its strategy changed
}

// stand reads what is known of a site's certificate.
func stand(ctx context.Context, tx *store.Tx, farmName, name string) (s standing, err error) {
	if s.site, err = tx.Site(ctx, farmName, name); err != nil {
		return s, err
	}
	if s.cert, err = tx.Certificate(ctx, farmName, name); err != nil {
		return s, err
	}
	if s.asked, err = tx.Word(ctx, farmName, wordRenew+name); err != nil {
		return s, err
	}
	if s.undone, err = undoneAt(ctx, tx, farmName, name); err != nil {
		return s, err
	}
	first, err := tx.Issuer(ctx, farmName, s.site.Issuer)
	if err != nil {
		return s, err
	}
	s.askAt(first)
	versions, err := tx.Versions(ctx, farmName, name)
	if err != nil {
		return s, err
	}
	s.choose(versions)
	return s, s.asMember(ctx, tx)
}

// choose takes the versions that count from all of a site, newest first.
func (s *standing) choose(versions []farm.Version) {
	for _, v := range versions {
		if s.newest.ID == "" && v.State != farm.VersionWithdrawn && v.State != farm.VersionRevoked {
			s.newest = v
		}
		if v.State == farm.VersionCompromised {
			return // what is older is no way out: the only way is on
		}
		if s.good.ID == "" && v.State == farm.VersionGood && v.ID != s.cert.Aborted && v.HasKeys() {
			s.good = v
		}
	}
}

// compromised reports that the site's newest key is known to others.
func (s standing) compromised() bool { return s.newest.State == farm.VersionCompromised }

// lastSafe is the last moment at which nothing is lost yet; zero: there is nothing
// to lose. For a key that others know it is past.
func (s standing) lastSafe() time.Time {
	if s.compromised() {
		return s.cert.Due
	}
	v := s.good
	if v.ID == "" {
		v = s.held
	}
	return renew.LastSafe(v, renew.CourseOf(s.site))
}

func undoneAt(ctx context.Context, tx *store.Tx, farmName, site string) (at time.Time, err error) {
	text, err := tx.Word(ctx, farmName, wordUndone+site)
	if err != nil || text == "" {
		return at, err
	}
	if at, err = time.Parse(time.RFC3339, text); err != nil {
		return at, fmt.Errorf("when a version of %s was undone: %w", site, err)
	}
	return at, nil
}

// want is what farm.yaml asks for.
func (s standing) want() renew.Want {
	w := renew.Want{Names: s.site.Names, KeyTypes: s.site.KeyTypes, Issuer: s.site.Issuer, Others: s.site.Fallbacks, Profile: s.profile}
	if slices.Contains(s.site.Fallbacks, s.newest.Issuer) {
		w.Profile = s.newest.Profile // each issuer has profiles of its own: another is no reason to order
	}
	return w
}

// facts is what renew decides by.
func (s standing) facts() renew.Facts {
	f := renew.Facts{
		Site: s.site.Name, Have: s.newest, Suggest: s.cert.ARI,
		Course: renew.CourseOf(s.site),
		Want:   s.want(),
	}
	if r := s.cert.Replace; r != nil && !r.Held && r.Version == s.newest.ID {
		f.Replace, f.From = r.Why, r.At
	}
	if s.ahead != "" {
		f.Asked = s.ahead + " comes after it and is due"
	}
	if s.asked != "" {
		f.Asked = s.asked + " asked for it"
	}
	return f
}

// allow asks the budget for the orders of one more version. What a person undid is
// not replaced at once by something as new: the version that was brought back is
// often near the end of its life, and due.
func (s *standing) allow(ctx context.Context, tx *store.Tx) (budget.Answer, error) {
	if again := s.undone.Add(budget.Pause); s.asked == "" && !s.compromised() && again.After(tx.Now()) && tx.Now().Before(renew.LastSafe(s.newest, renew.CourseOf(s.site))) {
		return budget.Answer{Again: again, Why: "a version was undone at " + s.undone.UTC().Format(time.RFC3339) +
			"; a new one is ordered a day later, or at once with `certfarm renew " + s.site.Name + "`"}, nil
	}
	answer, err := s.ceiling(ctx, tx)
	if err != nil || !answer.OK {
		s.cert.Turn = nil
		return answer, err
	}
	return s.takeTurn(ctx, tx, s.issuer)
}

// ceiling asks whether the issuer may be sent the orders of one more version for the
// site's names.
func (s standing) ceiling(ctx context.Context, tx *store.Tx) (budget.Answer, error) {
	limits := budget.LimitsOf(s.issuer)
	orders, err := s.before(ctx, tx, spanOf(s.site, limits))
	if err != nil {
		return budget.Answer{}, err
	}
	if answer := s.share(orders, limits, tx.Now()); !answer.OK {
		return answer, nil
	}
	lastSafe := s.lastSafe()
	return budget.Allow(s.past(s.own(orders)), budget.Ask{
		Issuer: s.issuer.Name, Names: s.site.Names, Orders: len(s.site.KeyTypes), Forced: s.asked != "",
		Pause: renew.Between(s.cert.Due, lastSafe, tx.Now()), Late: !lastSafe.IsZero() && !tx.Now().Before(lastSafe), Limit: limits.Names,
	}, tx.Now()), nil
}

// gave reports that a version has the leaf of an order, whose key may be erased since.
func gave(o farm.Order, v farm.Version) bool {
	return len(o.Chain) > 0 && slices.ContainsFunc(v.Leaves, func(l farm.Leaf) bool { return bytes.Equal(l.Chain, o.Chain) })
}

// past is what the budget wants to know of orders. One whose certificate was found to
// be faulty has failed.
func (s *standing) past(orders []farm.Order) (past []budget.Past) {
	for _, o := range orders {
		if o.Outdated && o.URL == "" {
			continue // no CA has heard of it
		}
		p := budget.Past{Issuer: o.Issuer, Names: o.Names, Begun: o.Created, Ours: o.Ours}
		if o.State == farm.OrderFailed && !o.Outdated || s.newest.State == farm.VersionFaulty && gave(o, s.newest) {
			p.Failed = o.Updated
		}
		past = append(past, p)
	}
	return past
}

// before is the orders that count for the site's next ones: those of its slot,
// whichever site had them, and its own, which may have been for another profile.
func (s standing) before(ctx context.Context, tx *store.Tx, span time.Duration) ([]farm.Order, error) {
	slot := store.Slot(farm.Order{Issuer: s.issuer.Name, Names: s.site.Names, Profile: s.profile})
	var all []farm.Order
	for _, q := range []store.OrderQuery{{Slot: slot}, {Site: s.site.Name}} {
		q.Since = tx.Now().Add(-span)
		orders, err := tx.Orders(ctx, s.cert.Farm, q)
		if err != nil {
			return nil, err
		}
		for _, o := range orders {
			tried := o.External != "" // at a staging directory, whose limits are its own
			if !tried && !slices.ContainsFunc(all, func(had farm.Order) bool { return had.ID == o.ID }) {
				all = append(all, o)
			}
		}
	}
	return all, nil
}

// replaces is the ARI id of the leaf that a new one of the same key type takes
// the place of (RFC 9773 §5); empty where there is none, it was imported, or another
// CA issued it, which alone knows it.
func (s standing) replaces(kind farm.KeyType) string {
	old := s.good
	if s.compromised() {
		old = s.newest
	}
	i := slices.IndexFunc(old.Leaves, func(l farm.Leaf) bool { return l.KeyType == kind })
	if i < 0 || old.Issuer != s.issuer.Name {
		return ""
	}
	block, _ := pem.Decode(old.Leaves[i].Chain)
	if block == nil {
		return ""
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return ""
	}
	id, err := api.MakeARICertID(leaf)
	if err != nil {
		return "" // a leaf without an authority key identifier has no ARI id
	}
	return id
}
