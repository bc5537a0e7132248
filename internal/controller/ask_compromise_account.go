package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// An AccountFlight is an account on its way to another key.
type AccountFlight struct {
	Issuer     string   `json:"issuer"`
	Account    string   `json:"account" doc:"its URL at the CA"`
	Thumbprint string   `json:"thumbprint" doc:"of the new key (RFC 7638)"`
	Static     []string `json:"static,omitempty" doc:"sites whose nodes answer by a static rule, which must have the new thumbprint: renewals of them fail until it has"`
	Pinned     []string `json:"pinned,omitempty" doc:"sites proven by dns-persist-01: their records name the account, and must be changed if the CA makes us open another"`
	Joined     bool     `json:"joined" doc:"it is under way already"`
}

// CompromiseAccount begins the journey away from the key of the account at an issuer,
// which others know: they could order certificates for every name that the CA trusts a
// proof of, and revoke ours. The account gets a new key at once, also where static rules
// have the old one; where the CA will not have that, it is ended and another opened.
// Then the proofs that the CA trusts are withdrawn. No certificate is replaced: their
// keys are others.
func (c *Controller) CompromiseAccount(ctx context.Context, farmName, issuer string, ask CompromiseAsk, by string) (r AccountFlight, err error) {
	if _, _, err := c.nextKey(ctx, farmName, issuer, by); err != nil {
		return r, err
	}
	err = c.Store.Update(ctx, func(tx *store.Tx) error {
		i, err := tx.Issuer(ctx, farmName, issuer)
		if err != nil {
			return err
		}
		row, err := tx.Account(ctx, farmName, i.Name, i.Directory)
		if err != nil {
			return err
		}
		r = AccountFlight{Issuer: issuer, Account: row.URL, Thumbprint: row.NextThumbprint, Joined: row.Exposed.Open()}
		if err := r.relying(ctx, tx, farmName); err != nil {
			return err
		}
		if err := arm(ctx, tx, farmName, "rollover", issuer, tx.Now()); err != nil || r.Joined {
			return err
		}
		row.Exposed = &store.Exposure{By: by, Reason: ask.Reason, Asked: tx.Now()}
		return errors.Join(tx.PutAccount(ctx, row), tell(ctx, tx, r.event(farmName, ask, by)))
	})
	return r, err
}

// event tells that the journey begins, and what follows from it.
func (r AccountFlight) event(farmName string, ask CompromiseAsk, by string) farm.Event {
	text := fmt.Sprintf("%s: others know the key of the account at %s; it gets another", by, r.Issuer)
	if ask.Reason != "" {
		text += " (" + ask.Reason + ")"
	}
	e := farm.Event{Farm: farmName, Kind: "account.exposed", Level: farm.Alarm, Actor: by, Text: text}
	if len(r.Static) > 0 {
		e.Hint = "static rules need the new thumbprint, else renewals fail: `certfarm snippet SITE --server …` for " + list(r.Static)
	}
	return e
}

// relying fills in the sites that rely on the account's key or on its name.
func (r *AccountFlight) relying(ctx context.Context, tx *store.Tx, farmName string) error {
	f, err := tx.Farm(ctx, farmName)
	if err != nil {
		return err
	}
	for _, s := range f.Sites {
		if !slices.Contains(s.Issuers(), r.Issuer) {
			continue
		}
		if slices.ContainsFunc(s.Validations, func(v farm.Validation) bool { return v.Via == farm.Stateless }) {
			r.Static = append(r.Static, s.Name)
		}
		if slices.ContainsFunc(s.Validations, func(v farm.Validation) bool { return v.Method == farm.DNSPersist01 }) {
			r.Pinned = append(r.Pinned, s.Name)
		}
	}
	return nil
}
