package boulder

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	mrand "math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/certfarm/certfarm/internal/issue/issuetest"
)

// A problem is a refusal (RFC 8555 §6.7).
type problem struct {
	Type   string        `json:"type"`
	Detail string        `json:"detail"`
	Status int           `json:"status"`
	retry  time.Duration // 0: no Retry-After
}

// Error is the problem's text.
func (p *problem) Error() string { return p.Detail }

func refuse(status int, kind, format string, args ...any) *problem {
	return &problem{Type: "urn:ietf:params:acme:error:" + kind, Status: status, Detail: fmt.Sprintf(format, args...)}
}

// A call is one request, verified.
type call struct {
	w       http.ResponseWriter
	r       *http.Request
	id      string // what the path says after the endpoint
	now     time.Time
	by      *account         // who signed, if by account (RFC 8555 §6.2: kid)
	key     *jose.JSONWebKey // who signed, if by key (jwk)
	payload []byte           // empty: POST-as-GET
}

// read decodes the payload.
func (q *call) read(into any) error {
	if err := json.Unmarshal(q.payload, into); err != nil {
		return refuse(http.StatusBadRequest, "malformed", "Unable to unmarshal the request: %s", err)
	}
	return nil
}

// answer sends a resource.
func (q *call) answer(status int, body any) error {
	q.w.Header().Set("Content-Type", "application/json")
	q.w.WriteHeader(status)
	_ = json.NewEncoder(q.w).Encode(body) // whoever asked has gone: nobody to tell
	return nil
}

func (c *CA) counted(inner http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.stats.Requests[issuetest.EndpointOf(r)]++
		c.mu.Unlock()
		inner.ServeHTTP(w, r)
	})
}

// serve does one request under the lock.
func (c *CA) serve(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.Header().Set("Cache-Control", "public, max-age=0, no-cache")
	w.Header().Add("Link", "<"+c.Directory+`>;rel="index"`)
	if r.Method == http.MethodPost || issuetest.EndpointOf(r) == issuetest.NewNonce {
		nonce := random(24)
		c.nonces[nonce] = true
		w.Header().Set("Replay-Nonce", nonce)
	}
	_, id, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	q := &call{w: w, r: r, id: id, now: c.o.Now()}
	err := c.route(q)
	if err == nil {
		return
	}
	p, ok := errors.AsType[*problem](err)
	if !ok {
		p = refuse(http.StatusInternalServerError, "serverInternal", "%s", err)
	}
	if p.retry > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(int(math.Ceil(p.retry.Seconds()))))
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // whoever asked has gone: nobody to tell
}

func (c *CA) route(q *call) error {
	e := issuetest.EndpointOf(q.r)
	if q.r.Method != http.MethodPost {
		return c.get(q, e)
	}
	if err := c.verify(q); err != nil {
		return err
	}
	if q.by == nil && e != issuetest.NewAccount && e != issuetest.Revoke {
		return refuse(http.StatusBadRequest, "malformed", "No Key ID in JWS header")
	}
	answer, known := map[issuetest.Endpoint]func(*call) error{
		issuetest.NewAccount: c.newAccount, issuetest.Account: c.account, issuetest.Other: c.keyChange,
		issuetest.NewOrder: c.newOrder, issuetest.Order: c.order, issuetest.Finalize: c.finalize,
		issuetest.Authz: c.authz, issuetest.Challenge: c.challenge,
		issuetest.Certificate: c.certificate, issuetest.Revoke: c.revoke,
	}[e]
	if !known || (e == issuetest.Other && q.r.URL.Path != keyChangePath) {
		return refuse(http.StatusNotFound, "malformed", "Page not found")
	}
	return answer(q)
}

// get answers what needs no signature.
func (c *CA) get(q *call, e issuetest.Endpoint) error {
	read := q.r.Method == http.MethodGet || q.r.Method == http.MethodHead
	switch {
	case read && e == issuetest.Directory:
		return c.directory(q)
	case read && e == issuetest.RenewalInfo:
		return c.renewalInfo(q)
	case read && e == issuetest.NewNonce:
		if q.r.Method == http.MethodGet {
			q.w.WriteHeader(http.StatusNoContent)
		}
		return nil
	}
	return refuse(http.StatusMethodNotAllowed, "malformed", "Method not allowed")
}

const keyChangePath = "/rollover-account-key"

// directory has an entry with a random name, as Boulder's does, for clients that
// take every entry for one that they know.
func (c *CA) directory(q *call) error {
	profiles := map[string]string{}
	for name, p := range c.o.Profiles {
		profiles[name] = "certificates of " + p.Life.String()
	}
	meta := map[string]any{
		"termsOfService": c.base + "/terms", "caaIdentities": []string{c.o.Identity}, "profiles": profiles,
	}
	if len(c.o.EAB) > 0 {
		meta["externalAccountRequired"] = true
	}
	return q.answer(http.StatusOK, map[string]any{
		"newNonce": c.base + "/nonce-plz", "newAccount": c.base + "/sign-me-up", "newOrder": c.base + "/order-plz",
		"revokeCert": c.base + "/revoke-cert", "keyChange": c.base + keyChangePath,
		"renewalInfo": c.base + "/draft-ietf-acme-ari-03", "meta": meta,
		random(8): "https://community.letsencrypt.org/t/adding-random-entries-to-the-directory/33417",
	})
}

// What a request may be signed with.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.ES512}
}

// verify checks the signature, the URL and the nonce of a request (RFC 8555 §6).
func (c *CA) verify(q *call) error {
	if kind := q.r.Header.Get("Content-Type"); kind != "application/jose+json" {
		return refuse(http.StatusUnsupportedMediaType, "malformed", "Invalid Content-Type header on POST: %q", kind)
	}
	body, err := io.ReadAll(io.LimitReader(q.r.Body, 128<<10))
	if err != nil {
		return refuse(http.StatusBadRequest, "malformed", "Unable to read the request: %s", err)
	}
	signed, err := jose.ParseSigned(string(body), algorithms())
	if err != nil || len(signed.Signatures) != 1 {
		return refuse(http.StatusBadRequest, "malformed", "Parse error reading JWS")
	}
	h := signed.Signatures[0].Protected
	key, err := c.keyOf(q, h)
	if err != nil {
		return err
	}
	if q.payload, err = signed.Verify(key); err != nil {
		return refuse(http.StatusBadRequest, "malformed", "JWS verification error")
	}
	if u, _ := h.ExtraHeaders["url"].(string); u != c.base+q.r.URL.Path {
		return refuse(http.StatusBadRequest, "malformed", "JWS header parameter 'url' incorrect. Expected %q got %q", c.base+q.r.URL.Path, u)
	}
	good := c.nonces[h.Nonce]
	delete(c.nonces, h.Nonce)
	if !good || mrand.IntN(100) < c.o.BadNonce {
		return refuse(http.StatusBadRequest, "badNonce", "JWS has an invalid anti-replay nonce: %q", h.Nonce)
	}
	if q.by != nil && q.by.status != "valid" {
		return refuse(http.StatusForbidden, "unauthorized", "Account is not valid, has status %q", q.by.status)
	}
	return nil
}

// keyOf finds who says that he has signed: an account, or a key.
func (c *CA) keyOf(q *call, h jose.Header) (*jose.JSONWebKey, error) {
	if (h.KeyID == "") == (h.JSONWebKey == nil) {
		return nil, refuse(http.StatusBadRequest, "malformed", "jwk and kid header fields are mutually exclusive, and one is needed")
	}
	if q.key = h.JSONWebKey; q.key != nil {
		return q.key, nil
	}
	if q.by = c.accounts[h.KeyID]; q.by == nil {
		return nil, refuse(http.StatusBadRequest, "accountDoesNotExist", "Account %q not found", h.KeyID)
	}
	return &q.by.key, nil
}

// random is n random bytes in base64url.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it never fails
	return base64.RawURLEncoding.EncodeToString(b)
}
