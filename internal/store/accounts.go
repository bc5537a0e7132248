package store

import (
	"context"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// An Account is ours at a CA. Directory is part of its name: an issuer that is
// pointed to another CA needs another account.
type Account struct {
	Farm, Issuer, Directory string
	URL                     string // at the CA; empty until it is registered
	Status                  string // valid, deactivated or revoked (RFC 8555 §7.1.2)
	Key                     farm.KeyRef
	HoldUntil               time.Time // the CA told us to send nothing until then
	HoldWhy                 string
	Silent                  time.Time `json:",omitzero"` // since when the CA does nothing of what it is asked; zero: it does
	Failed                  time.Time `json:",omitzero"` // when it last did not
	Thumbprint              string    // of the key's JWK (RFC 7638)

	// Exposed is the journey away from a key that others know; nil: there was none.
	Exposed *Exposure `json:",omitzero"`

	// The key that it is to have (RFC 8555 §7.3.5); empty: no change is under way.
	Next           farm.KeyRef `json:",omitzero"`
	NextThumbprint string      `json:",omitzero"`
}

// An Exposure is how far the journey away from an account's key is that others know.
type Exposure struct {
	By, Reason string
	Asked      time.Time
	Ended      time.Time // when it was over; zero: it is under way
	Replaced   string    // URL of the account that was given up, where the CA would not change its key
}

// Open reports that the journey is under way.
func (e *Exposure) Open() bool { return e != nil && e.Ended.IsZero() }

// Account returns an account, or ErrNotFound.
func (t *Tx) Account(ctx context.Context, farmName, issuer, directory string) (Account, error) {
	return one[Account](ctx, t, "account at "+issuer, `SELECT doc FROM accounts WHERE farm = ? AND issuer = ? AND directory = ?`, farmName, issuer, directory)
}

// PutAccount keeps an account.
func (t *Tx) PutAccount(ctx context.Context, a Account) error {
	doc, _, err := document(a)
	if err != nil {
		return err
	}
	return t.put(ctx, "save account at "+a.Issuer, `INSERT INTO accounts (farm, issuer, directory, doc) VALUES (?, ?, ?, ?)
		ON CONFLICT (farm, issuer, directory) DO UPDATE SET doc = excluded.doc`, a.Farm, a.Issuer, a.Directory, doc)
}
