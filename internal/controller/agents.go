package controller

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// The CA of the agents is one for the whole store. It signs what agents and the
// controllers' doors for them show each other, and nothing else: neither side takes
// a certificate of another CA, and no web server ever serves one of it.
const (
	sealedAgents = "agents" // kind and name of its record: certificate and key in PEM
	agentsCALife = 10 * 365 * 24 * time.Hour
	agentLife    = 24 * time.Hour     // of an agent's certificate
	doorLife     = 7 * 24 * time.Hour // of a door's, which is made anew at each start
	clocksApart  = 10 * time.Minute   // a certificate is valid from that long ago
)

// An agentsCA signs for agents and doors.
type agentsCA struct {
	cert *x509.Certificate
	key  crypto.Signer
	text []byte // the certificate in PEM
}

// agentsCA opens the CA of the agents, and makes it where there is none yet.
func (c *Controller) agentsCA(ctx context.Context) (*agentsCA, error) {
	if known := c.agents.ca.Load(); known != nil {
		return known, nil
	}
	text, err := c.unseal(ctx, "", sealedAgents, sealedAgents)
	if errors.Is(err, store.ErrNotFound) {
		text, err = c.newAgentsCA(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("CA of the agents: %w", err)
	}
	ca, err := openAgentsCA(text)
	if err != nil {
		return nil, fmt.Errorf("CA of the agents: %w", err)
	}
	c.agents.ca.Store(ca)
	return ca, nil
}

func openAgentsCA(text farm.Secret) (*agentsCA, error) {
	block, rest := pem.Decode(text.Reveal())
	if block == nil {
		return nil, errors.New("its record is not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, err := issue.DecodeKey(farm.NewSecret(rest))
	return &agentsCA{cert, key, pem.EncodeToMemory(block)}, err
}

// newAgentsCA makes the CA, unless another controller was quicker.
func (c *Controller) newAgentsCA(ctx context.Context) (text farm.Secret, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return text, err
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "certfarm agents"},
		NotBefore: c.Now().Add(-clocksApart), NotAfter: c.Now().Add(agentsCALife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return text, err
	}
	secretKey, err := issue.EncodeKey(key)
	if err != nil {
		return text, err
	}
	text = farm.NewSecret(append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), secretKey.Reveal()...))
	sealed, err := c.seal("", sealedAgents, sealedAgents, text)
	if err != nil {
		return text, err
	}
	var there []byte
	err = c.Store.Update(ctx, func(tx *store.Tx) error {
		there, err = tx.Sealed(ctx, "", sealedAgents, sealedAgents)
		if errors.Is(err, store.ErrNotFound) {
			return tx.PutSealed(ctx, "", sealedAgents, sealedAgents, sealed)
		}
		return err
	})
	if err == nil && there != nil {
		text, err = c.keyring().Open(secret.RecordID("", sealedAgents, sealedAgents), there)
	}
	return text, err
}

func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return new(big.Int).SetBytes(b[:])
}

// sign makes a certificate of the CA for a key. The chain has the CA at its end.
func (ca *agentsCA) sign(key crypto.PublicKey, name string, use x509.ExtKeyUsage, from, until time.Time) (leaf []byte, chain []byte, err error) {
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use}, BasicConstraintsValid: true,
	}
	leaf, err = x509.CreateCertificate(rand.Reader, t, ca.cert, key, ca.key)
	if err != nil {
		return nil, nil, fmt.Errorf("sign for %s: %w", name, err)
	}
	return leaf, append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf}), ca.text...), nil
}

// AgentsPin is what agents know the controllers by: the SHA-256 of the public key
// (SPKI DER) of the agents' CA, hex.
func (c *Controller) AgentsPin(ctx context.Context) (string, error) {
	ca, err := c.agentsCA(ctx)
	if err != nil {
		return "", err
	}
	return farm.Fingerprint(ca.cert.RawSubjectPublicKeyInfo), nil
}

// AgentsDoor makes a certificate for the listener that agents connect to. Its key is
// nowhere else; it is to be made anew before it ends (Leaf.NotAfter).
func (c *Controller) AgentsDoor(ctx context.Context) (*tls.Certificate, error) {
	ca, err := c.agentsCA(ctx)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the door's key: %w", err)
	}
	now := c.Now()
	der, _, err := ca.sign(key.Public(), c.Owner, x509.ExtKeyUsageServerAuth, now.Add(-clocksApart), now.Add(doorLife))
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der, ca.cert.Raw}, PrivateKey: key, Leaf: leaf}, err
}

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
	ca, err := c.agentsCA(ctx)
	if err != nil {
		return store.Agent{}, err
	}
	pin := farm.Fingerprint(leaf.RawSubjectPublicKeyInfo)
	if !c.agents.vouched(pin, ca, leaf) {
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
func (ca *agentsCA) certify(a store.Agent, key crypto.PublicKey, now time.Time) (AgentCertificate, error) {
	until := now.Add(agentLife)
	_, chain, err := ca.sign(key, a.Node, x509.ExtKeyUsageClientAuth, now.Add(-clocksApart), until)
	return AgentCertificate{a.Farm, a.Node, bytes.Clone(chain), until.Truncate(time.Second)}, err
}

// RenewAgent gives an agent that is known a new certificate for the key that it has,
// however long it was silent.
func (c *Controller) RenewAgent(ctx context.Context, a store.Agent, csr []byte) (AgentCertificate, error) {
	key, pin, err := readRequest(csr)
	if err != nil {
		return AgentCertificate{}, err
	}
	if pin != a.Pin {
		return AgentCertificate{}, &Turned{TurnedUnknown, "an agent keeps its key: another one is for another token"}
	}
	ca, err := c.agentsCA(ctx)
	if err != nil {
		return AgentCertificate{}, err
	}
	cert, err := ca.certify(a, key, c.Now())
	if err != nil {
		return cert, err
	}
	return cert, c.agents.change(ctx, c.Store, a.Farm, a.Node, func(_ context.Context, _ *store.Tx, is *store.Agent) error {
		if is.Pin != pin || is.Banned != "" || is.Quarantined != "" {
			return &Turned{TurnedAway, "node " + a.Node + " was turned away meanwhile"}
		}
		is.Until = cert.Until
		return nil
	})
}
