// Package acme is an account at an ACME CA (RFC 8555), with profiles and
// renewal information (RFC 9773), over lego's low level.
//
// Its invariant: it remembers nothing that a later step needs. What it keeps
// (the CA's directory, nonces, connections) may be thrown away between any two
// steps of an order, and the next step, made by another Issuer in another
// process, goes on from the stored order alone. Every step bears that the
// request before it took effect and its answer was lost.
package acme

import (
	"cmp"
	"context"
	"crypto"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-acme/lego/v5/acme"
	"github.com/go-acme/lego/v5/acme/api"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
)

// Config is an account at a CA and how to reach it.
type Config struct {
	Issuer     farm.Issuer
	AccountKey farm.Secret // PEM, PKCS#8; EC P-256, P-384 or RSA
	AccountURL string      // empty: there is none yet, or it is not known
	EABHMAC    farm.Secret // the MAC key of Issuer.EAB, base64url
	// Save stores the URL of a new account, before any order depends on it.
	Save      func(ctx context.Context, accountURL string) error
	Proxy     string            // URL of the proxy for outbound HTTP; empty: none
	Transport http.RoundTripper // instead of one made from Issuer.Roots and Proxy
	UserAgent string            // our name and version, put before lego's
	Tell      func(Request)     // hears of every request; nil: nobody does. It must not wait
}

// timeout bounds one request, whatever the context allows.
const timeout = 60 * time.Second

// coreLife is how long a directory and its nonces are kept.
const coreLife = 12 * time.Hour

// An Issuer gets certificates for one account. It may be used by many
// goroutines at once.
type Issuer struct {
	c      Config
	key    crypto.Signer
	client http.Client // the pattern for each Core's own

	turn chan struct{} // held while the directory is fetched or the account made

	mu      sync.Mutex
	account string // URL
	core    *api.Core
	fetched time.Time
}

var _ issue.Issuer = (*Issuer)(nil)

// New makes an issuer. It sends nothing.
func New(c Config) (*Issuer, error) {
	key, err := issue.DecodeKey(c.AccountKey)
	if err != nil {
		return nil, fmt.Errorf("account key for %s: %w", c.Issuer.Name, err)
	}
	if !strings.HasPrefix(c.Issuer.Directory, "https://") {
		return nil, fmt.Errorf("issuer %s: the directory %q is not an https:// URL, which ACME demands (RFC 8555 §6.1)", c.Issuer.Name, c.Issuer.Directory)
	}
	base := c.Transport
	if base == nil {
		if base, err = newTransport(c.Issuer.Roots, c.Proxy); err != nil {
			return nil, fmt.Errorf("issuer %s: %w", c.Issuer.Name, err)
		}
	}
	return &Issuer{
		c: c, key: key, account: c.AccountURL,
		client: http.Client{Transport: base, Timeout: timeout, CheckRedirect: noRedirect},
		turn:   make(chan struct{}, 1),
	}, nil
}

// EnsureAccount returns the account's URL. Where none is known it registers the
// key (a CA answers with the account that the key has already, RFC 8555
// §7.3.1) and saves the URL; where one is known it asks the CA whether it still
// is, and never makes another: an error then wraps issue.AccountLost.
func (a *Issuer) EnsureAccount(ctx context.Context) (string, error) {
	if err := a.lock(ctx); err != nil {
		return "", err
	}
	defer a.unlock()
	if known := a.accountURL(); known != "" {
		return known, a.confirm(ctx, known)
	}
	return a.register(ctx)
}

// ensured is EnsureAccount without asking the CA about an account that is known.
func (a *Issuer) ensured(ctx context.Context) (string, error) {
	if known := a.accountURL(); known != "" {
		return known, nil
	}
	if err := a.lock(ctx); err != nil {
		return "", err
	}
	defer a.unlock()
	if known := a.accountURL(); known != "" { // another step was quicker
		return known, nil
	}
	return a.register(ctx)
}

func (a *Issuer) register(ctx context.Context) (string, error) {
	core, err := a.open(ctx, "")
	if err != nil {
		return "", err
	}
	request := acme.Account{TermsOfServiceAgreed: true, Contact: contacts(a.c.Issuer.Contact)}
	ctx, x := watch(ctx, "new-account")
	var got acme.ExtendedAccount
	switch {
	case a.c.Issuer.EAB != nil:
		got, err = core.Accounts.NewEAB(ctx, request, a.c.Issuer.EAB.KeyID, string(a.c.EABHMAC.Reveal()))
	case core.GetDirectory().Meta.ExternalAccountRequired:
		return "", fmt.Errorf("register an account at %s: %w: it binds accounts to its customers (RFC 8555 §7.3.4); get a key id and a MAC key from it and give them as the issuer's eab", a.c.Issuer.Name, issue.Refused)
	default:
		got, err = core.Accounts.New(ctx, request)
	}
	if err != nil {
		return "", a.fault(doing{what: "register an account"}, err, x, time.Now())
	}
	if got.Location == "" {
		return "", fmt.Errorf("register an account at %s: the CA named no account URL", a.c.Issuer.Name)
	}
	if a.c.Save != nil {
		if err := a.c.Save(ctx, got.Location); err != nil {
			return "", fmt.Errorf("store the account %s: %w", got.Location, err)
		}
	}
	a.mu.Lock()
	a.account = got.Location
	a.mu.Unlock()
	a.keep(core, got.Location)
	return got.Location, nil
}

// confirm asks for the account of our key without making one (RFC 8555 §7.3.1).
func (a *Issuer) confirm(ctx context.Context, known string) error {
	core, err := a.open(ctx, "")
	if err != nil {
		return err
	}
	ctx, x := watch(ctx, "new-account")
	got, err := core.Accounts.New(ctx, acme.Account{OnlyReturnExisting: true})
	if err != nil {
		return a.fault(doing{what: "look for our account"}, err, x, time.Now())
	}
	if got.Location != known {
		return fmt.Errorf("look for our account at %s: %w: the key belongs to %s, but %s is stored; restore the key that goes with the stored account", a.c.Issuer.Name, issue.AccountLost, got.Location, known)
	}
	if got.Status != "" && got.Status != acme.StatusValid {
		return fmt.Errorf("look for our account at %s: %w: it is %s", a.c.Issuer.Name, issue.AccountLost, clean(got.Status, 40))
	}
	return nil
}

// ready returns a Core that signs for the account, whose URL may be empty where
// nothing needs to be signed.
func (a *Issuer) ready(ctx context.Context, account string) (*api.Core, error) {
	if core := a.cached(account); core != nil {
		return core, nil
	}
	if err := a.lock(ctx); err != nil {
		return nil, err
	}
	defer a.unlock()
	if core := a.cached(account); core != nil {
		return core, nil
	}
	core, err := a.open(ctx, account)
	if err != nil {
		return nil, err
	}
	a.keep(core, account)
	return core, nil
}

// open fetches the directory. lego changes the client that it is given, so each
// Core gets its own; and it fetches without a context, so the guard lends it ours.
func (a *Issuer) open(ctx context.Context, account string) (*api.Core, error) {
	ctx, x := watch(ctx, "directory")
	client := a.client
	guard := &guard{base: a.client.Transport, tell: a.c.Tell}
	guard.lent.Store(&ctx)
	defer guard.lent.Store(nil)
	client.Transport = guard
	core, err := api.New(&client, a.c.UserAgent, a.c.Issuer.Directory, account, a.key)
	if err != nil {
		return nil, a.fault(doing{what: "read the directory"}, err, x, time.Now())
	}
	return core, nil
}

func (a *Issuer) cached(account string) *api.Core {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.core == nil || a.account != account || time.Since(a.fetched) > coreLife {
		return nil
	}
	return a.core
}

// keep caches a Core, unless the account has become known since it was asked for.
func (a *Issuer) keep(core *api.Core, account string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.account == account {
		a.core, a.fetched = core, time.Now()
	}
}

func (a *Issuer) accountURL() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.account
}

func (a *Issuer) lock(ctx context.Context) error {
	select {
	case a.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the account at %s: %w", a.c.Issuer.Name, context.Cause(ctx))
	}
}

func (a *Issuer) unlock() { <-a.turn }

// contacts makes URLs of mail addresses (RFC 8555 §7.3).
func contacts(from []string) []string {
	var urls []string
	for _, c := range from {
		if !strings.Contains(c, ":") {
			c = "mailto:" + c
		}
		urls = append(urls, c)
	}
	return urls
}

// profile is the one that an order asks for: its own, or else the issuer's.
func (a *Issuer) profile(o farm.Order) string { return cmp.Or(o.Profile, a.c.Issuer.Profile) }
