package access

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// Prefix begins every token that a Desk hands out, so that one that went astray is
// recognised.
const Prefix = "cf_"

// How long a token is good for: by itself, and at most. None is good for ever, since
// nobody would miss it.
const (
	TokenLife    = 90 * 24 * time.Hour
	LongestToken = 3650 * 24 * time.Hour
)

// A Desk hands out the tokens of a store, and takes them back.
type Desk struct{ Store *store.Store }

// A Refusal is an order that makes no sense now, and what to do instead.
type Refusal struct{ Problem, Hint string }

// Error is the problem.
func (r *Refusal) Error() string { return r.Problem }

// A TokenAsk is a token that somebody wants.
type TokenAsk struct {
	Name   string
	Grants []store.Grant
	Life   time.Duration // 0: TokenLife
}

// tokenName is what a token may be called: names stand in journals and commands.
var tokenName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$`)

// Create makes a token for somebody, who cannot give away what they may not do
// themselves. The secret is what opens; it is shown once and kept nowhere.
func (d Desk) Create(ctx context.Context, ask TokenAsk, by Caller) (k store.APIToken, secret farm.Secret, err error) {
	if err := ask.check(by); err != nil {
		return k, secret, err
	}
	text := mint(Prefix)
	err = d.Store.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.APITokenNamed(ctx, ask.Name)
		if err == nil {
			return &Refusal{"there is a token " + ask.Name + " already", "choose another name, or `certfarm token revoke " + ask.Name + "` first"}
		}
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		k = ask.token(tx.Now(), text, by.Name)
		return tx.AddAPIToken(ctx, k)
	})
	if err != nil {
		return store.APIToken{}, farm.Secret{}, err
	}
	return k, farm.NewSecret([]byte(text)), nil
}

func (a TokenAsk) check(by Caller) error {
	if !tokenName.MatchString(a.Name) {
		return &Refusal{fmt.Sprintf("a token cannot be named %q", a.Name), "use 1 to 63 letters, digits, dots, dashes, underlines and @"}
	}
	if a.Life < 0 || a.Life > LongestToken {
		return &Refusal{"a token cannot be good for so long", "choose at most 3650 days; a new one can be made at any time"}
	}
	if err := CheckGrants(a.Grants); err != nil {
		return &Refusal{err.Error(), "for example role viewer"}
	}
	for _, g := range a.Grants {
		for _, p := range Role(g.Role).Permissions() {
			if !by.May(p, g.Farm) {
				return &Refusal{by.Name + " may not give away the role " + g.Role, "it holds the permission " + string(p) + ", which " + by.Name + " has not"}
			}
		}
	}
	return nil
}

func (a TokenAsk) token(now time.Time, text, by string) store.APIToken {
	life := a.Life
	if life == 0 {
		life = TokenLife
	}
	return store.APIToken{
		ID: store.NewID("tk"), Name: a.Name, Grants: a.Grants, By: by,
		Created: now, Expires: now.Add(life), Digest: digest(text),
	}
}

// List lists all tokens by name, expired ones too.
func (d Desk) List(ctx context.Context) ([]store.APIToken, error) { return d.ListAfter(ctx, "", 0) }

// ListAfter lists up to limit tokens (0: all) whose names come after the given one.
func (d Desk) ListAfter(ctx context.Context, after string, limit int) (all []store.APIToken, err error) {
	err = d.Store.View(ctx, func(tx *store.Tx) error {
		all, err = tx.APITokensAfter(ctx, after, limit)
		return err
	})
	return all, err
}

// Revoke forgets a token, by its name or id: from then on it opens nothing, and the
// browsers that were logged in with it are logged out.
func (d Desk) Revoke(ctx context.Context, nameOrID string) (k store.APIToken, err error) {
	err = d.Store.Update(ctx, func(tx *store.Tx) error {
		if k, err = tx.APITokenNamed(ctx, nameOrID); errors.Is(err, store.ErrNotFound) {
			k, err = tx.APITokenByID(ctx, nameOrID)
		}
		if errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("token %s: %w", nameOrID, store.ErrNotFound)
		}
		if err != nil {
			return err
		}
		return tx.RemoveAPIToken(ctx, k.ID)
	})
	return k, err
}

// FirstToken is the name of the token that a first start makes.
const FirstToken = "first-admin"

// First makes an admin's token where there is no token at all yet, not even an
// expired or another controller's; made reports whether it did.
func (d Desk) First(ctx context.Context) (k store.APIToken, secret farm.Secret, made bool, err error) {
	text := mint(Prefix)
	err = d.Store.Update(ctx, func(tx *store.Tx) error {
		all, err := tx.APITokens(ctx)
		if made = err == nil && len(all) == 0; !made {
			return err
		}
		k = TokenAsk{Name: FirstToken, Grants: []store.Grant{{Role: string(Admin)}}}.token(tx.Now(), text, "certfarm")
		return tx.AddAPIToken(ctx, k)
	})
	if err != nil || !made {
		return store.APIToken{}, farm.Secret{}, false, err
	}
	return k, farm.NewSecret([]byte(text)), true, nil
}

// Sessions lists the browsers that are logged in, those that were seen last first.
func (d Desk) Sessions(ctx context.Context) (all []store.Session, err error) {
	err = d.Store.View(ctx, func(tx *store.Tx) error {
		all, err = tx.Sessions(ctx)
		return err
	})
	return all, err
}

// SessionID names a session to people and in URLs; its digest stays here.
func SessionID(n store.Session) string { return digest(n.Digest)[:16] }

// End logs a browser out, by its SessionID.
func (d Desk) End(ctx context.Context, id string) error {
	return d.Store.Update(ctx, func(tx *store.Tx) error {
		all, err := tx.Sessions(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(n store.Session) bool { return SessionID(n) == id })
		if i < 0 {
			return fmt.Errorf("session %s: %w", id, store.ErrNotFound)
		}
		return tx.RemoveSession(ctx, all[i].Digest)
	})
}

// mint makes 256 bits of chance in 52 letters that a double click marks as one word.
func mint(prefix string) string {
	var b [32]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return prefix + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}
