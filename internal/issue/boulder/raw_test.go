package boulder_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-acme/lego/v5/acme"
	"github.com/go-jose/go-jose/v4"

	"github.com/certfarm/certfarm/internal/issue/boulder"
)

// A raw request is made by hand, so that it can be wrong.
type raw struct {
	url     string
	payload string
	nonce   string // "": a good one
	signed  string // the URL in the header; "": url
	byKey   bool   // jwk instead of kid
	kind    string // content type
}

func (w *world) nonce(t *testing.T, client *http.Client) string {
	t.Helper()
	resp, err := client.Head(strings.Replace(w.ca.Directory, "/dir", "/nonce-plz", 1))
	must(t, err)
	must(t, resp.Body.Close())
	return resp.Header.Get("Replay-Nonce")
}

// An answer is what came back, read to its end.
type answer struct {
	header http.Header
	body   string
}

// send signs and sends, and returns the answer, and the problem if it is one.
func (u *user) send(t *testing.T, r raw) (answer, error) {
	t.Helper()
	if r.nonce == "" {
		r.nonce = u.w.nonce(t, u.http)
	}
	if r.signed == "" {
		r.signed = r.url
	}
	if r.kind == "" {
		r.kind = "application/jose+json"
	}
	options := &jose.SignerOptions{ExtraHeaders: map[jose.HeaderKey]any{"url": r.signed, "nonce": r.nonce}, EmbedJWK: r.byKey}
	key := jose.JSONWebKey{Key: u.key}
	if !r.byKey {
		key.KeyID = u.url
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, options)
	must(t, err)
	signed, err := signer.Sign([]byte(r.payload))
	must(t, err)
	resp, err := u.http.Post(r.url, r.kind, strings.NewReader(signed.FullSerialize()))
	must(t, err)
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	must(t, resp.Body.Close())
	if resp.StatusCode < 400 {
		return answer{resp.Header, string(body)}, nil
	}
	p := &acme.ProblemDetails{}
	must(t, json.Unmarshal(body, p))
	if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("a problem is sent as %s", got)
	}
	return answer{resp.Header, string(body)}, p
}

func (u *user) newOrder(t *testing.T, fields map[string]any, names ...string) (answer, error) {
	t.Helper()
	var ids []map[string]string
	for _, n := range names {
		ids = append(ids, map[string]string{"type": "dns", "value": n})
	}
	all := map[string]any{"identifiers": ids}
	maps.Copy(all, fields)
	body, err := json.Marshal(all)
	must(t, err)
	return u.send(t, raw{url: u.GetDirectory().NewOrderURL, payload: string(body)})
}

// What RFC 8555 §6 demands of a request.
func TestRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{})
	u := w.user(t)
	order := u.GetDirectory().NewOrderURL
	used := w.nonce(t, u.http)
	if _, err := u.send(t, raw{url: u.url, nonce: used}); err != nil {
		t.Fatal(err)
	}
	other := w.user(t)
	for name, c := range map[string]struct {
		raw    raw
		status int
		kind   string
	}{
		"used nonce":      {raw{url: order, nonce: used}, 400, "badNonce"},
		"made-up nonce":   {raw{url: order, nonce: "AAAA"}, 400, "badNonce"},
		"another URL":     {raw{url: u.url, signed: order}, 400, "malformed"},
		"content type":    {raw{url: order, kind: "application/json"}, 415, "malformed"},
		"order by key":    {raw{url: order, byKey: true}, 400, "malformed"},
		"account by kid":  {raw{url: u.GetDirectory().NewAccountURL}, 400, "malformed"},
		"no JSON":         {raw{url: order, payload: "{"}, 400, "malformed"},
		"no names":        {raw{url: order, payload: "{}"}, 400, "malformed"},
		"unknown page":    {raw{url: strings.Replace(order, "order", "pizza", 1)}, 404, "malformed"},
		"foreign account": {raw{url: other.url}, 403, "unauthorized"},
		"odd identifier":  {raw{url: order, payload: `{"identifiers":[{"type":"email","value":"a@b.test"}]}`}, 400, "unsupportedIdentifier"},
		"bad name":        {raw{url: order, payload: `{"identifiers":[{"type":"dns","value":"a b.test"}]}`}, 400, "malformed"},
		"own dates":       {raw{url: order, payload: `{"notBefore":"2026-01-01T00:00:00Z"}`}, 400, "malformed"},
		"unknown profile": {raw{url: order, payload: `{"profile":"tiny","identifiers":[{"type":"dns","value":"a.farm.test"}]}`}, 400, "invalidProfile"},
		"unknown replaced": {raw{url: order, payload: `{"replaces":"aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE","identifiers":[{"type":"dns","value":"a.farm.test"}]}`},
			404, "malformed"},
		"bad replaced": {raw{url: order, payload: `{"replaces":"x","identifiers":[{"type":"dns","value":"a.farm.test"}]}`}, 400, "malformed"},
	} {
		_, err := u.send(t, c.raw)
		t.Run(name, func(t *testing.T) { refused(t, err, c.status, c.kind, "") })
	}
	forged := *u
	forged.key = other.key
	_, err := forged.send(t, raw{url: u.url})
	refused(t, err, 400, "malformed", "JWS verification")
	forged.url += "0"
	_, err = forged.send(t, raw{url: order})
	refused(t, err, 400, "accountDoesNotExist", "")
	resp, err := u.http.Get(u.url)
	must(t, err)
	must(t, resp.Body.Close())
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET of an account: %s", resp.Status)
	}
}

// lego tries again after a bad nonce.
func TestBadNonce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{BadNonce: 50})
	u := w.stranger(t)
	got, err := u.Accounts.New(t.Context(), acme.Account{TermsOfServiceAgreed: true})
	must(t, err)
	for range 5 {
		_, err := u.Accounts.Get(t.Context(), got.Location)
		must(t, err)
	}
	w = newWorld(t, boulder.Options{BadNonce: 100})
	u = w.stranger(t)
	_, err = u.send(t, raw{url: u.GetDirectory().NewAccountURL, byKey: true, payload: "{}"})
	refused(t, err, 400, "badNonce", "")
}

func TestAccounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{})
	u := w.stranger(t)
	_, err := u.Accounts.New(t.Context(), acme.Account{OnlyReturnExisting: true})
	refused(t, err, 400, "accountDoesNotExist", "")
	_, err = u.Accounts.New(t.Context(), acme.Account{})
	refused(t, err, 400, "malformed", "terms")
	first, err := u.Accounts.New(t.Context(), acme.Account{TermsOfServiceAgreed: true})
	must(t, err)
	u.url = first.Location
	again, err := u.again(t).Accounts.New(t.Context(), acme.Account{OnlyReturnExisting: true})
	must(t, err)
	if again.Location != first.Location || again.Status != "valid" {
		t.Errorf("the key has %q and %q", first.Location, again.Location)
	}
	second, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	must(t, u.Accounts.KeyChange(t.Context(), second))
	_, err = u.Orders.New(t.Context(), []string{"www.farm.test"}, nil)
	must(t, err)
	_, err = u.send(t, raw{url: u.url}) // by the old key
	refused(t, err, 400, "malformed", "verification")
	must(t, u.Accounts.KeyChange(t.Context(), u.key))
	other := w.user(t)
	err = u.Accounts.KeyChange(t.Context(), other.key)
	refused(t, err, 409, "malformed", "in use")
	must(t, u.Accounts.Deactivate(t.Context(), u.url))
	_, err = u.Orders.New(t.Context(), []string{"www.farm.test"}, nil)
	refused(t, err, 403, "unauthorized", `has status "deactivated"`)
	_, err = u.again(t).Accounts.New(t.Context(), acme.Account{OnlyReturnExisting: true})
	refused(t, err, 403, "unauthorized", "deactivated")
}

func TestBinding(t *testing.T) {
	t.Parallel()
	mac := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte("k"), 32))
	w := newWorld(t, boulder.Options{EAB: map[string]string{"customer-1": mac}})
	agreed := acme.Account{TermsOfServiceAgreed: true}
	u := w.stranger(t)
	if !u.GetDirectory().Meta.ExternalAccountRequired {
		t.Error("the directory does not say it")
	}
	_, err := u.Accounts.New(t.Context(), agreed)
	refused(t, err, 403, "externalAccountRequired", "")
	_, err = u.Accounts.NewEAB(t.Context(), agreed, "customer-1", mac[1:]+"A")
	refused(t, err, 403, "unauthorized", "")
	_, err = u.Accounts.NewEAB(t.Context(), agreed, "customer-2", mac)
	refused(t, err, 403, "unauthorized", "")
	_, err = u.send(t, raw{url: u.GetDirectory().NewAccountURL, byKey: true,
		payload: `{"termsOfServiceAgreed":true,"externalAccountBinding":` + bind(t, mac, w.stranger(t)) + `}`})
	refused(t, err, 403, "unauthorized", "") // another one's key is bound
	_, err = u.send(t, raw{url: u.GetDirectory().NewAccountURL, byKey: true,
		payload: `{"termsOfServiceAgreed":true,"externalAccountBinding":` + bind(t, mac, u) + `}`})
	must(t, err)
	_, err = w.stranger(t).Accounts.NewEAB(t.Context(), agreed, "customer-1", mac)
	must(t, err)
}

// bind makes the binding of a key (RFC 8555 §7.3.4).
func bind(t *testing.T, mac string, u *user) string {
	t.Helper()
	secret, err := base64.RawURLEncoding.DecodeString(mac)
	must(t, err)
	options := &jose.SignerOptions{ExtraHeaders: map[jose.HeaderKey]any{"url": u.GetDirectory().NewAccountURL, "kid": "customer-1"}}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: secret}, options)
	must(t, err)
	key, err := json.Marshal(jose.JSONWebKey{Key: u.key.Public()})
	must(t, err)
	signed, err := signer.Sign(key)
	must(t, err)
	return signed.FullSerialize()
}

func TestDirectory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, boulder.Options{Identity: "ca.example"})
	client := w.client(t)
	resp, err := client.Get(w.ca.Directory)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	var all map[string]any
	must(t, json.NewDecoder(resp.Body).Decode(&all))
	meta, _ := all["meta"].(map[string]any)
	profiles, _ := meta["profiles"].(map[string]any)
	if len(profiles) != 3 || profiles["shortlived"] == nil {
		t.Errorf("profiles are %v", profiles)
	}
	odd := 0
	for name, of := range all {
		if _, err := url.Parse(name); err == nil && strings.Contains(stringOf(of), "random-entries") {
			odd++
		}
	}
	if odd != 1 {
		t.Errorf("%d random entries", odd)
	}
	if life := boulder.LetsEncrypt()["shortlived"].Life; life != 160*time.Hour {
		t.Errorf("short-lived is %s", life)
	}
}

func stringOf(v any) string {
	s, _ := v.(string)
	return s
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
