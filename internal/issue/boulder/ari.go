package boulder

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	mrand "math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/certfarm/certfarm/internal/issue/issuetest"
)

type window = issuetest.Window

// suggested is the window in which a certificate is to be renewed: a hundredth of
// its life on both sides of two thirds of it, or of half of it when it lives less
// than ten days; and for a revoked one a window that is over (RFC 9773 §4.2).
func (t *cert) suggested(now time.Time) window {
	switch {
	case t.window != nil:
		return *t.window
	case !t.revoked.IsZero():
		return window{Start: now.Add(-time.Hour), End: now.Add(-30 * time.Minute)}
	}
	life := t.leaf.NotAfter.Add(time.Second).Sub(t.issued)
	left := life / 3
	if life < 10*24*time.Hour {
		left = life / 2
	}
	ideal := t.leaf.NotAfter.Add(-left)
	return window{Start: ideal.Add(-life / 100), End: ideal.Add(life / 100)}
}

// SetARI makes the CA suggest the window for a leaf that it issued (PEM).
func (c *CA) SetARI(leaf []byte, w issuetest.Window) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	block, _ := pem.Decode(leaf)
	if block == nil {
		return errors.New("set renewal information: the leaf is not PEM")
	}
	t := c.certOfDER(block.Bytes)
	if t == nil {
		return errors.New("set renewal information: the leaf is not ours")
	}
	t.window = &w
	return nil
}

func (c *CA) certOfDER(der []byte) *cert {
	for _, t := range c.certs {
		if bytes.Equal(t.leaf.Raw, der) {
			return t
		}
	}
	return nil
}

// certOf finds a certificate by its ARI id (RFC 9773 §4.1).
func (c *CA) certOf(id string) (*cert, error) {
	authority, number, ok := strings.Cut(id, ".")
	keyID, err := base64.RawURLEncoding.DecodeString(authority)
	bytesOf, err2 := base64.RawURLEncoding.DecodeString(number)
	if !ok || errors.Join(err, err2) != nil {
		return nil, refuse(http.StatusBadRequest, "malformed", "While parsing ARI CertID an error occurred :: Invalid path")
	}
	t := c.certs[new(big.Int).SetBytes(bytesOf).Text(16)]
	if t == nil || !bytes.Equal(t.leaf.AuthorityKeyId, keyID) {
		return nil, refuse(http.StatusNotFound, "malformed", "no current certificate with this identifier exists")
	}
	return t, nil
}

// renewalInfo answers RFC 9773 §4.1.
func (c *CA) renewalInfo(q *call) error {
	t, err := c.certOf(q.id)
	if err != nil {
		return err
	}
	w := t.suggested(q.now)
	wait := time.Duration(float64(c.o.ARIRetry) * (0.8 + 0.4*mrand.Float64()))
	q.w.Header().Set("Retry-After", fmt.Sprint(int(wait.Seconds())))
	all := map[string]any{"suggestedWindow": w}
	if w.Explanation != "" {
		all["explanationURL"] = w.Explanation
	}
	return q.answer(http.StatusOK, all)
}

// revoke ends a certificate (RFC 8555 §7.6): for the account that got it, for one
// that has proven all its names, or for whoever has its key.
func (c *CA) revoke(q *call) error {
	var ask struct {
		Certificate string
		Reason      int
	}
	if err := q.read(&ask); err != nil {
		return err
	}
	der, err := base64.RawURLEncoding.DecodeString(ask.Certificate)
	t := c.certOfDER(der)
	switch {
	case err != nil || t == nil:
		return refuse(http.StatusNotFound, "malformed", "Certificate from unrecognized issuer")
	case q.key != nil && thumbprint(q.key) != thumbprint(&jose.JSONWebKey{Key: t.leaf.PublicKey}):
		return refuse(http.StatusForbidden, "unauthorized", "JWK embedded in revocation request must be the same public key as the cert to be revoked")
	case q.by != nil && t.by != q.by && !c.provenAll(q.by, t, q.now):
		return refuse(http.StatusForbidden, "unauthorized", "requester does not control all identifiers in cert with serial %q", t.serial)
	case !slices.Contains([]int{0, 1, 3, 4, 5}, ask.Reason):
		return refuse(http.StatusBadRequest, "badRevocationReason", "disallowed revocation reason: %d", ask.Reason)
	case !t.revoked.IsZero():
		return refuse(http.StatusBadRequest, "alreadyRevoked", "Certificate with serial %q already revoked", t.serial)
	}
	t.revoked, t.reason = q.now, ask.Reason
	if q.key != nil {
		t.reason = 1 // who has the key to show has shown that others may
	}
	q.w.WriteHeader(http.StatusOK)
	return nil
}

// Revoked reports whether a leaf that the CA issued (PEM) is revoked, and for
// which reason (RFC 5280 §5.3.1). One that its own key asked for is a compromised
// key's, whatever was asked.
func (c *CA) Revoked(leaf []byte) (reason int, revoked bool) {
	block, _ := pem.Decode(leaf)
	if block == nil {
		return 0, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.certOfDER(block.Bytes)
	if t == nil || t.revoked.IsZero() {
		return 0, false
	}
	return t.reason, true
}

func (c *CA) provenAll(by *account, t *cert, now time.Time) bool {
	for _, n := range t.names {
		proven := false
		for _, z := range c.authzs {
			proven = proven || (z.by == by && z.name == n && z.state(now) == "valid")
		}
		if !proven {
			return false
		}
	}
	return true
}
