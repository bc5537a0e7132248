// Package idp logs people in through an identity provider: OpenID Connect with the
// authorization code, PKCE, state and nonce.
//
// Its invariant: a Person comes only out of an ID token that the provider signed
// with an asymmetric key, for this client, for this very login, and that has not
// expired. It keeps nothing between Begin and Redeem: what ties the two together is
// the Trip, which the browser brings back.
package idp

import (
	"cmp"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/certfarm/certfarm/internal/farm"
)

// Config says who the provider is and how we are known there.
type Config struct {
	Issuer   string // URL, as its ID tokens name it
	ClientID string
	Secret   farm.Secret // zero: a public client, for which PKCE alone vouches
	Redirect string      // URL of ours that browsers come back to
	Scopes   []string    // beside openid; nil: profile and email
	Name     string      // the claim that names people in journals; empty: preferred_username, then email
	Groups   string      // the claim with their groups; empty: groups
	Roots    *x509.CertPool
	Now      func() time.Time // nil: the system's
}

// A Provider is an identity provider. It is asked for its endpoints and keys when it
// is first needed, so that a controller starts without it.
type Provider struct {
	Config
	http *http.Client

	mu     sync.Mutex
	found  *discovered
	failed error
	at     time.Time // of the failure
}

type discovered struct {
	provider *oidc.Provider
	mustSay  bool // authorization responses name their issuer (RFC 9207)
}

// within bounds one question to the provider.
const within = 10 * time.Second

// askAgain is how long a provider that did not answer is left alone.
const askAgain = 5 * time.Second

// New makes a provider. It asks it nothing yet.
func New(c Config) (*Provider, error) {
	for what, text := range map[string]string{"issuer": c.Issuer, "redirect_url": c.Redirect} {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" {
			return nil, fmt.Errorf("%s %q is no URL", what, text)
		}
		ip := net.ParseIP(u.Hostname())
		if u.Scheme != "https" && (u.Scheme != "http" || u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())) {
			return nil, fmt.Errorf("%s %s: it must be https, or people could be made out to be others on the way", what, text)
		}
	}
	if c.ClientID == "" {
		return nil, errors.New("client_id is needed: how we are known at the identity provider")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12}
	return &Provider{Config: c, http: &http.Client{Transport: transport, Timeout: within}}, nil
}

// A Trip ties a browser that comes back from the provider to the one that left:
// three words that nobody else can know.
type Trip struct {
	State    string // comes back in the URL
	Nonce    string // comes back in the ID token
	Verifier string // shown when the code is redeemed (RFC 7636), at least 43 characters
}

// A Person is who the provider says that somebody is.
type Person struct {
	Key    string // issuer and subject: it never changes, and is nobody else's
	Name   string // for the journal
	Groups []string
	Proved time.Time // when they last showed who they are, which single sign-on may have been long ago; zero: it does not say
}

// ErrUnreachable says that the provider does not answer as one.
var ErrUnreachable = errors.New("the identity provider does not answer")

// Refused is a login that is not good. Why is for the log: a browser is told no more
// than that.
type Refused struct{ Why string }

// Error says why.
func (r *Refused) Error() string { return "login refused: " + r.Why }

// Begin is where a browser goes to log in. With fresh it must show anew who it is,
// however long ago that was.
func (p *Provider) Begin(ctx context.Context, t Trip, fresh bool) (string, error) {
	d, err := p.discover(ctx)
	if err != nil {
		return "", err
	}
	// With max_age the provider has to say when they last showed who they are (OpenID
	// Connect Core 1.0 §3.1.2.1).
	options := []oauth2.AuthCodeOption{
		oidc.Nonce(t.Nonce), oauth2.S256ChallengeOption(t.Verifier),
		oauth2.SetAuthURLParam("max_age", strconv.Itoa(int((24 * time.Hour).Seconds()))),
	}
	if fresh {
		options = append(options, oauth2.SetAuthURLParam("prompt", "login"), oauth2.SetAuthURLParam("max_age", "0"))
	}
	return p.client(d).AuthCodeURL(t.State, options...), nil
}

func (p *Provider) client(d *discovered) *oauth2.Config {
	scopes := p.Scopes
	if scopes == nil {
		scopes = []string{"profile", "email"}
	}
	return &oauth2.Config{
		ClientID: p.ClientID, ClientSecret: string(p.Secret.Reveal()), Endpoint: d.provider.Endpoint(),
		RedirectURL: p.Redirect, Scopes: append([]string{oidc.ScopeOpenID}, scopes...),
	}
}

// errorWord is what providers may say in the parameter error (RFC 6749 §4.1.2.1);
// anything else is somebody's own text and not repeated.
var errorWord = regexp.MustCompile(`^[a-z_]{1,40}$`)

// Redeem makes a person of what the browser brought back. The errors are *Refused
// and those that wrap ErrUnreachable.
func (p *Provider) Redeem(ctx context.Context, back url.Values, t Trip) (Person, error) {
	if t.State == "" || subtle.ConstantTimeCompare([]byte(back.Get("state")), []byte(t.State)) != 1 {
		return Person{}, &Refused{"the browser did not begin this login"}
	}
	d, err := p.discover(ctx)
	if err != nil {
		return Person{}, err
	}
	if iss := back.Get("iss"); iss != p.Issuer && (iss != "" || d.mustSay) {
		return Person{}, &Refused{"the answer is from another identity provider"}
	}
	if word := back.Get("error"); word != "" {
		if !errorWord.MatchString(word) {
			word = "an error"
		}
		return Person{}, &Refused{"the identity provider says " + word}
	}
	ctx = oidc.ClientContext(ctx, p.http)
	token, err := p.client(d).Exchange(ctx, back.Get("code"), oauth2.VerifierOption(t.Verifier))
	if err != nil {
		if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
			return Person{}, &Refused{"the code was not taken: " + cmp.Or(e.ErrorCode, e.Response.Status)}
		}
		return Person{}, fmt.Errorf("%w: redeem the code: %w", ErrUnreachable, err)
	}
	return p.person(ctx, d, token, t)
}

// person reads the ID token, and where it has no groups, the user info.
func (p *Provider) person(ctx context.Context, d *discovered, token *oauth2.Token, t Trip) (Person, error) {
	raw, _ := token.Extra("id_token").(string)
	// The library takes signatures by asymmetric keys only, of those algorithms that the
	// provider announces: neither none nor an HMAC under a public key (RFC 8725 §2.1).
	id, err := d.provider.VerifierContext(ctx, &oidc.Config{ClientID: p.ClientID, Now: p.Now}).Verify(ctx, raw)
	if err != nil {
		return Person{}, &Refused{err.Error()}
	}
	if t.Nonce == "" || subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(t.Nonce)) != 1 {
		return Person{}, &Refused{"the ID token is from another login"}
	}
	var all map[string]any
	if err := id.Claims(&all); err != nil {
		return Person{}, &Refused{"the ID token's claims cannot be read"}
	}
	// OpenID Connect Core 1.0 §3.1.3.7, 4 and 5; the library leaves it to us.
	if azp, has := all["azp"]; has && azp != p.ClientID || !has && len(id.Audience) > 1 {
		return Person{}, &Refused{"the ID token was made for another client"}
	}
	if claim(all, p.groupsClaim()) == nil {
		if err := p.userInfo(ctx, d, token, id.Subject, all); err != nil {
			return Person{}, err
		}
	}
	person := Person{Key: id.Issuer + " " + id.Subject, Name: p.nameOf(all, id.Subject), Groups: texts(claim(all, p.groupsClaim()))}
	if at, ok := all["auth_time"].(float64); ok {
		person.Proved = earlier(time.Unix(int64(at), 0).UTC(), p.Now())
	}
	return person, nil
}

// userInfo adds claims that are not in the ID token. A provider without that endpoint
// has no more to say.
func (p *Provider) userInfo(ctx context.Context, d *discovered, token *oauth2.Token, subject string, all map[string]any) error {
	if d.provider.UserInfoEndpoint() == "" {
		return nil
	}
	info, err := d.provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return fmt.Errorf("%w: user info: %w", ErrUnreachable, err)
	}
	if info.Subject != subject { // §5.3.2
		return &Refused{"the user info is about another person"}
	}
	var more map[string]any
	if err := info.Claims(&more); err != nil {
		return &Refused{"the user info cannot be read"}
	}
	for name, v := range more {
		if _, has := all[name]; !has { // what is signed counts more
			all[name] = v
		}
	}
	return nil
}

func (p *Provider) groupsClaim() string { return cmp.Or(p.Groups, "groups") }

// nameOf names a person for people. Only letters that show are taken: names stand in
// journals and on terminals.
func (p *Provider) nameOf(all map[string]any, subject string) string {
	names := []string{"preferred_username", "email"}
	if p.Name != "" {
		names = []string{p.Name}
	}
	for _, claimed := range names {
		name, _ := claim(all, claimed).(string)
		name = strings.Map(func(r rune) rune {
			if strconv.IsPrint(r) {
				return r
			}
			return -1
		}, name)
		if name = strings.TrimSpace(name); name != "" && len(name) <= 100 {
			return name
		}
	}
	return subject
}

// claim finds a claim by its name, or by the names on the way to it: realm_access.roles.
func claim(all map[string]any, name string) any {
	if v, has := all[name]; has {
		return v
	}
	first, rest, more := strings.Cut(name, ".")
	inner, ok := all[first].(map[string]any)
	if !more || !ok {
		return nil
	}
	return claim(inner, rest)
}

// texts are the texts of a claim that is one or a list.
func texts(v any) (all []string) {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		for _, one := range v {
			if s, ok := one.(string); ok {
				all = append(all, s)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// discover asks the provider where its endpoints and keys are, once.
func (p *Provider) discover(ctx context.Context) (*discovered, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found != nil {
		return p.found, nil
	}
	if p.failed != nil && p.Now().Sub(p.at) < askAgain {
		return nil, p.failed
	}
	// Who waits behind this one must not lose it because the first browser went away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
	defer cancel()
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, p.http), p.Issuer)
	if err != nil {
		p.failed, p.at = fmt.Errorf("%w: %w", ErrUnreachable, err), p.Now()
		return nil, p.failed
	}
	var says struct {
		Iss bool `json:"authorization_response_iss_parameter_supported"`
	}
	if err := provider.Claims(&says); err != nil {
		return nil, fmt.Errorf("%w: its metadata: %w", ErrUnreachable, err)
	}
	p.found, p.failed = &discovered{provider, says.Iss}, nil
	return p.found, nil
}
