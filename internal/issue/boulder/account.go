package boulder

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"

	"github.com/go-jose/go-jose/v4"
)

// An account is a key and its URL (RFC 8555 §7.1.2).
type account struct {
	url    string
	key    jose.JSONWebKey
	print  string // RFC 7638
	status string
}

func (a *account) json() map[string]any {
	return map[string]any{"status": a.status, "key": a.key}
}

// newAccount registers a key, or finds its account (RFC 8555 §7.3). Contacts are
// ignored, as Boulder has done since 2025.
func (c *CA) newAccount(q *call) error {
	var ask struct {
		TermsOfServiceAgreed   bool
		OnlyReturnExisting     bool
		ExternalAccountBinding json.RawMessage
	}
	if q.key == nil {
		return refuse(http.StatusBadRequest, "malformed", "No embedded JWK in JWS header")
	}
	if err := q.read(&ask); err != nil {
		return err
	}
	if known := c.accountOf(q.key); known != nil {
		if known.status != "valid" {
			return refuse(http.StatusForbidden, "unauthorized", "An account with the provided public key exists but is deactivated")
		}
		q.w.Header().Set("Location", known.url)
		return q.answer(http.StatusOK, known.json())
	}
	switch {
	case ask.OnlyReturnExisting:
		return refuse(http.StatusBadRequest, "accountDoesNotExist", "No account exists with the provided key")
	case !ask.TermsOfServiceAgreed:
		return refuse(http.StatusBadRequest, "malformed", "must agree to terms of service")
	}
	if err := c.bound(q, ask.ExternalAccountBinding); err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(q.r.RemoteAddr)
	if err != nil {
		return err
	}
	limit := fee{"accounts", "accounts " + host, c.o.Limits.Accounts, "too many new registrations (%d) from this IP address in the last %s", "new-registrations-per-ip-address"}
	if err := c.check([]fee{limit}, q.now); err != nil {
		return err
	}
	c.buckets.take(limit.limit, limit.key, q.now)
	a := &account{url: c.base + "/my-account/" + c.id(), key: *q.key, print: thumbprint(q.key), status: "valid"}
	c.accounts[a.url] = a
	q.w.Header().Set("Location", a.url)
	return q.answer(http.StatusCreated, a.json())
}

func (c *CA) accountOf(key *jose.JSONWebKey) *account {
	for _, a := range c.accounts {
		if a.print == thumbprint(key) {
			return a
		}
	}
	return nil
}

// thumbprint is empty for a key that has none.
func thumbprint(key *jose.JSONWebKey) string {
	sum, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(sum)
}

// bound checks an external account binding (RFC 8555 §7.3.4), where one is needed.
func (c *CA) bound(q *call, binding json.RawMessage) error {
	if len(c.o.EAB) == 0 {
		return nil
	}
	if len(binding) == 0 {
		return refuse(http.StatusForbidden, "externalAccountRequired", "an external account binding is needed")
	}
	no := refuse(http.StatusForbidden, "unauthorized", "the external account binding does not verify")
	signed, err := jose.ParseSigned(string(binding), []jose.SignatureAlgorithm{jose.HS256})
	if err != nil || len(signed.Signatures) != 1 {
		return no
	}
	mac, err := base64.RawURLEncoding.DecodeString(c.o.EAB[signed.Signatures[0].Protected.KeyID])
	if err != nil || len(mac) == 0 {
		return no
	}
	payload, err := signed.Verify(mac)
	if err != nil {
		return no
	}
	var key jose.JSONWebKey
	if json.Unmarshal(payload, &key) != nil || thumbprint(&key) != thumbprint(q.key) {
		return no
	}
	return nil
}

// account shows or ends an account (RFC 8555 §7.3.2, §7.3.6).
func (c *CA) account(q *call) error {
	if q.by.url != c.base+q.r.URL.Path {
		return refuse(http.StatusForbidden, "unauthorized", "Request signing key did not match account key")
	}
	if len(q.payload) > 0 {
		var ask struct{ Status string }
		if err := q.read(&ask); err != nil {
			return err
		}
		if ask.Status == "deactivated" {
			q.by.status = ask.Status
		}
	}
	return q.answer(http.StatusOK, q.by.json())
}

// keyChange gives an account another key (RFC 8555 §7.3.5).
func (c *CA) keyChange(q *call) error {
	inner, err := jose.ParseSigned(string(q.payload), algorithms())
	if err != nil || len(inner.Signatures) != 1 || inner.Signatures[0].Protected.JSONWebKey == nil {
		return refuse(http.StatusBadRequest, "malformed", "the inner JWS is none, or without the new key")
	}
	h := inner.Signatures[0].Protected
	payload, err := inner.Verify(h.JSONWebKey)
	if err != nil {
		return refuse(http.StatusBadRequest, "malformed", "the inner JWS is not signed by the new key")
	}
	var ask struct {
		Account string
		OldKey  json.RawMessage
	}
	var old jose.JSONWebKey
	u, _ := h.ExtraHeaders["url"].(string)
	if json.Unmarshal(payload, &ask) != nil || json.Unmarshal(bytes.TrimSpace(ask.OldKey), &old) != nil ||
		ask.Account != q.by.url || thumbprint(&old) != q.by.print || u != c.base+keyChangePath {
		return refuse(http.StatusBadRequest, "malformed", "the inner JWS is for another account, key or URL")
	}
	if other := c.accountOf(h.JSONWebKey); other != nil {
		q.w.Header().Set("Location", other.url)
		return refuse(http.StatusConflict, "malformed", "New key is already in use for a different account")
	}
	q.by.key, q.by.print = *h.JSONWebKey, thumbprint(h.JSONWebKey)
	return q.answer(http.StatusOK, q.by.json())
}
