package controller

import (
	"context"
	"reflect"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/renew"
	"github.com/certfarm/certfarm/internal/store"
)

// An order that cannot go on may wait for weeks, and while it does nothing else is
// ordered for its site. Often what is wrong is in farm.yaml: a name that does not exist,
// or a way to prove it that does not work. So an order that the CA was not told to
// validate yet ends when farm.yaml asks for something else.

// outdated says why an order is not what farm.yaml asks for any more; empty: it is, or it
// is too late to stop.
func outdated(o farm.Order, site farm.Site) string {
	if !slices.Contains([]farm.OrderState{farm.OrderNew, farm.OrderPending, farm.OrderPresented}, o.State) || o.External != "" {
		return ""
	}
	if other := otherThan(o, site); other != "" {
		return other
	}
	if !reflect.DeepEqual(o.Validations, site.Validations) {
		return "farm.yaml proves the names in another way by now"
	}
	return ""
}

// otherThan says what a site asks for that an order will not bring.
func otherThan(o farm.Order, site farm.Site) string {
	switch {
	case !sameSet(o.Names, site.Names):
		return "farm.yaml asks for other names by now: " + strings.Join(site.Names, ", ")
	case !slices.Contains(site.KeyTypes, o.KeyType):
		return "farm.yaml asks for other keys by now"
	case !slices.Contains(site.Issuers(), o.Issuer):
		return "farm.yaml asks for another issuer by now: " + site.Issuer
	}
	return ""
}

// hasten has the orders under way for a site looked at now which are not what farm.yaml
// asks for any more.
func (s standing) hasten(ctx context.Context, tx *store.Tx) error {
	if s.cert.Intent == "" {
		return nil
	}
	orders, err := tx.OrdersOfIntent(ctx, s.cert.Farm, s.cert.Intent)
	if err != nil {
		return err
	}
	for _, o := range orders {
		if outdated(o, s.site) == "" {
			continue
		}
		if err := armOrder(ctx, tx, o); err != nil {
			return err
		}
	}
	return nil
}

// stillWanted has a certificate asked for that is not due, but that a person wanted,
// when the order for it was given up; not one for what nobody asks for any more.
func stillWanted(ctx context.Context, tx *store.Tx, cert farm.Certificate, o farm.Order) error {
	s, err := stand(ctx, tx, cert.Farm, cert.Site)
	if err != nil || otherThan(o, s.site) != "" || renew.Due(s.facts(), tx.Now()).Due {
		return err
	}
	return tx.SetWord(ctx, cert.Farm, wordRenew+cert.Site, "who wanted the order that was given up")
}
