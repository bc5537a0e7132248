package controller

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

const (
	agentLife   = 24 * time.Hour     // of an agent's certificate
	doorLife    = 7 * 24 * time.Hour // of a door's, which is made anew at each start
	clocksApart = 10 * time.Minute   // a certificate is valid from that long ago
)

// A Turned is why an agent is turned away. What an agent may do about it is said by
// its kind.
type Turned struct {
	Kind TurnedKind
	Why  string
}

// A TurnedKind says what an agent may do about being turned away.
type TurnedKind string

// The kinds.
const (
	TurnedUnknown TurnedKind = "unknown" // it must join
	TurnedExpired TurnedKind = "expired" // it must renew its certificate first
	TurnedAway    TurnedKind = "away"    // banned or quarantined: a person must say otherwise
	TurnedToken   TurnedKind = "token"   // the token is not good
)

// Error says why.
func (t *Turned) Error() string { return t.Why }

// AgentOf knows an agent by the certificate that it showed in its handshake, which
// proves that it has the key. The certificate says that the CA once took it; whose
// agent it is, is said by its key alone.
func (c *Controller) AgentOf(ctx context.Context, leaf *x509.Certificate) (store.Agent, error) {
	cas, err := c.authorities(ctx)
	if err != nil {
		return store.Agent{}, err
	}
	pin := farm.Fingerprint(leaf.RawSubjectPublicKeyInfo)
	if !c.agents.vouched(pin, cas, leaf) {
		return store.Agent{}, &Turned{TurnedUnknown, "the certificate is not one of this farm's agents"}
	}
	a, err := c.agents.find(ctx, c.Store, pin, c.Now())
	switch {
	case errors.Is(err, store.ErrNotFound):
		return a, &Turned{TurnedUnknown, "no node is known to have this key: another agent joined in its place, or the node is gone"}
	case err != nil:
		return a, err
	case a.Banned != "":
		return a, &Turned{TurnedAway, "node " + a.Node + " is banned by " + a.Banned}
	case a.Quarantined != "":
		return a, &Turned{TurnedAway, "node " + a.Node + " is in quarantine: " + a.Quarantined}
	case c.Now().After(leaf.NotAfter):
		return a, &Turned{TurnedExpired, "the certificate ended at " + leaf.NotAfter.UTC().Format(time.RFC3339)}
	}
	return a, nil
}

// An AgentCertificate is what an agent gets for its key.
type AgentCertificate struct {
	Farm, Node string
	Chain      []byte // PEM, the CA at its end
	Until      time.Time
	Pins       []string // what the controllers are known by from now on; see AgentsPins
}

// readRequest reads a signing request (PKCS #10 DER) of an agent, of which only the
// key matters. A key that is not one of today's is refused.
func readRequest(csr []byte) (crypto.PublicKey, string, error) {
	r, err := x509.ParseCertificateRequest(csr)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		return nil, "", &Turned{TurnedUnknown, "the signing request is not one: " + err.Error()}
	}
	switch key := r.PublicKey.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
			return nil, "", &Turned{TurnedUnknown, "an agent's key is Ed25519, or ECDSA on P-256 or P-384"}
		}
	default:
		return nil, "", &Turned{TurnedUnknown, "an agent's key is Ed25519, or ECDSA on P-256 or P-384"}
	}
	return r.PublicKey, farm.Fingerprint(r.RawSubjectPublicKeyInfo), nil
}

// certify signs an agent's key.
func (cas *authorities) certify(a store.Agent, key crypto.PublicKey, now time.Time) (AgentCertificate, error) {
	until := now.Add(agentLife)
	_, chain, err := cas.signs.sign(key, a.Node, x509.ExtKeyUsageClientAuth, now.Add(-clocksApart), until)
	return AgentCertificate{a.Farm, a.Node, bytes.Clone(chain), until.Truncate(time.Second), cas.pins()}, err
}

// RenewAgent gives an agent that is known a new certificate for the key that it has,
// however long it was silent. learns says that it keeps the pins that come with it.
func (c *Controller) RenewAgent(ctx context.Context, a store.Agent, csr []byte, learns bool) (AgentCertificate, error) {
	key, pin, err := readRequest(csr)
	if err != nil {
		return AgentCertificate{}, err
	}
	if pin != a.Pin {
		return AgentCertificate{}, &Turned{TurnedUnknown, "an agent keeps its key: another one is for another token"}
	}
	cas, err := c.authorities(ctx)
	if err != nil {
		return AgentCertificate{}, err
	}
	cert, err := cas.certify(a, key, c.Now())
	if err != nil {
		return cert, err
	}
	return cert, c.agents.change(ctx, c.Store, a.Farm, a.Node, func(_ context.Context, _ *store.Tx, is *store.Agent) error {
		if is.Pin != pin || is.Banned != "" || is.Quarantined != "" {
			return &Turned{TurnedAway, "node " + a.Node + " was turned away meanwhile"}
		}
		is.Until = cert.Until
		is.Roots = rootsOf(cert.Pins, learns)
		return nil
	})
}

// rootsOf are the pins that an agent knows when it was sent some: one of an earlier
// Certfarm keeps the one that came with its token.
func rootsOf(pins []string, learns bool) []string {
	if !learns {
		return nil
	}
	return pins
}
