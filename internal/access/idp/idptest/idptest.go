// Package idptest is a small identity provider, real on the wire: discovery, keys,
// authorization with PKCE, tokens, user info. It misbehaves when it is told to.
package idptest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// ClientID is the client that the provider knows.
const ClientID = "certfarm"

// A Provider is an identity provider at which one person logs in without a question.
type Provider struct {
	URL string // its issuer

	// Claims are put into each ID token over those that are right.
	Claims map[string]any
	// UserInfo is what the user info says, without the subject; nil: there is no such
	// endpoint.
	UserInfo map[string]any
	// Sign makes the ID token; nil: as it should be.
	Sign func(p *Provider, claims []byte) string
	// Back changes what the browser brings back; nil: nothing.
	Back func(url.Values)

	Key *ecdsa.PrivateKey

	now   func() time.Time
	mu    sync.Mutex
	codes map[string]url.Values // what the browser came with, by code
	t     testing.TB
}

// New starts a provider on loopback for the time of a test.
func New(t testing.TB, now func() time.Time) *Provider {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &Provider{Key: key, now: now, codes: map[string]url.Values{}, t: t}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("GET /keys", p.keys)
	mux.HandleFunc("GET /auth", p.auth)
	mux.HandleFunc("POST /token", p.token)
	mux.HandleFunc("GET /userinfo", p.userInfo)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	p.URL = s.URL
	return p
}

func (p *Provider) discovery(w http.ResponseWriter, _ *http.Request) {
	m := map[string]any{
		"issuer": p.URL, "authorization_endpoint": p.URL + "/auth", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
		// It announces HMAC, too, which a client must not take from anybody.
		"id_token_signing_alg_values_supported":          []string{"ES256", "HS256", "none"},
		"authorization_response_iss_parameter_supported": true,
	}
	if p.UserInfo != nil {
		m["userinfo_endpoint"] = p.URL + "/userinfo"
	}
	answer(w, m)
}

func (p *Provider) keys(w http.ResponseWriter, _ *http.Request) {
	answer(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: p.Key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
}

// auth is where the browser comes, and goes back from with a code.
func (p *Provider) auth(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("client_id") != ClientID || q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "" || q.Get("nonce") == "" {
		http.Error(w, "not as it should be: "+r.URL.RawQuery, http.StatusBadRequest)
		return
	}
	code := rand.Text()
	p.mu.Lock()
	p.codes[code] = q
	p.mu.Unlock()
	back := url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {p.URL}}
	if p.Back != nil {
		p.Back(back)
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
}

// token redeems a code, once, from whoever knows the verifier (RFC 7636 §4.6).
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	q, known := p.codes[r.PostFormValue("code")]
	delete(p.codes, r.PostFormValue("code"))
	p.mu.Unlock()
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if !known || base64.RawURLEncoding.EncodeToString(sum[:]) != q.Get("code_challenge") || r.PostFormValue("redirect_uri") != q.Get("redirect_uri") {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error":"invalid_grant"}`))
		return
	}
	now := p.now()
	claims := map[string]any{
		"iss": p.URL, "sub": "u1", "aud": ClientID, "exp": now.Add(time.Minute).Unix(), "iat": now.Unix(), "nonce": q.Get("nonce"),
		"auth_time": now.Unix(), "preferred_username": "ann", "groups": []string{"ops"},
	}
	maps.Copy(claims, p.Claims)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	text, err := json.Marshal(claims)
	if err != nil {
		p.t.Error(err)
	}
	sign := p.Sign
	if sign == nil {
		sign = (*Provider).Signed
	}
	answer(w, map[string]any{"access_token": "at", "token_type": "Bearer", "expires_in": 60, "id_token": sign(p, text)})
}

// Signed is an ID token as it should be.
func (p *Provider) Signed(claims []byte) string { return p.By(jose.ES256, p.Key, claims) }

// By is an ID token signed with any algorithm and key, under the id of the right one.
func (p *Provider) By(alg jose.SignatureAlgorithm, key any, claims []byte) string {
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil)
	if err != nil {
		p.t.Error(err)
		return ""
	}
	j, err := s.Sign(claims)
	if err != nil {
		p.t.Error(err)
		return ""
	}
	text, err := j.CompactSerialize()
	if err != nil {
		p.t.Error(err)
	}
	return text
}

// PublicPEM is the public key as text, which an attacker has, too.
func (p *Provider) PublicPEM() []byte {
	der, err := x509.MarshalPKIXPublicKey(p.Key.Public())
	if err != nil {
		p.t.Error(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func (p *Provider) userInfo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer at" {
		http.Error(w, "who?", http.StatusUnauthorized)
		return
	}
	m := map[string]any{"sub": "u1"}
	maps.Copy(m, p.UserInfo)
	answer(w, m)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client is gone
}
