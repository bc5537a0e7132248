package controller

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
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
	sealedAgents = "agents" // kind and name of its record: see authorities.encode
	agentsCALife = 10 * 365 * 24 * time.Hour
)

// An agentsCA signs for agents and doors.
type agentsCA struct {
	cert *x509.Certificate
	key  crypto.Signer
	text []byte // the certificate in PEM
}

// authorities are the CAs of the agents: the one that signs, the one that will, of
// which the agents are being told, and those that did, whose certificates still say
// that an agent was known.
type authorities struct {
	signs *agentsCA
	next  *agentsCA // nil: none is to come
	past  []*x509.Certificate
}

// certBlock is a certificate in PEM.
const certBlock = "CERTIFICATE"

// encode writes them as they are kept, sealed: certificate and key of the one that
// signs, of the one to come, and the certificates of the past.
func (cas *authorities) encode() (farm.Secret, error) {
	var text []byte
	for _, ca := range []*agentsCA{cas.signs, cas.next} {
		if ca == nil {
			continue
		}
		key, err := issue.EncodeKey(ca.key)
		if err != nil {
			return farm.Secret{}, err
		}
		text = slices.Concat(text, ca.text, key.Reveal())
	}
	for _, c := range cas.past {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: c.Raw})...)
	}
	return farm.NewSecret(text), nil
}

// openAuthorities reads what encode wrote.
func openAuthorities(text farm.Secret) (*authorities, error) {
	cas, rest := &authorities{}, text.Reveal()
	for block, more := pem.Decode(rest); block != nil; block, more = pem.Decode(more) {
		if block.Type != certBlock {
			ca, err := cas.withKey(pem.EncodeToMemory(block))
			if err != nil {
				return nil, err
			}
			if cas.signs == nil {
				cas.signs = ca
			} else {
				cas.next = ca
			}
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		cas.past = append(cas.past, cert)
	}
	if cas.signs == nil {
		return nil, errors.New("its record is not PEM")
	}
	return cas, nil
}

// withKey makes a CA of the certificate that was read last and its key.
func (cas *authorities) withKey(key []byte) (*agentsCA, error) {
	last := len(cas.past) - 1
	if last < 0 {
		return nil, errors.New("its record begins with a key")
	}
	cert := cas.past[last]
	cas.past = cas.past[:last]
	k, err := issue.DecodeKey(farm.NewSecret(key))
	return &agentsCA{cert, k, pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: cert.Raw})}, err
}

// pins are what agents know the controllers by: that of the CA that signs, and of the
// one to come.
func (cas *authorities) pins() []string {
	pins := []string{cas.signs.pin()}
	if cas.next != nil {
		pins = append(pins, cas.next.pin())
	}
	return pins
}

// signed reports that one of the CAs signed a certificate for an agent; the one to come
// may have done so by what another controller knows already.
func (cas *authorities) signed(leaf *x509.Certificate) bool {
	if len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		return false
	}
	all := append([]*x509.Certificate{cas.signs.cert}, cas.past...)
	if cas.next != nil {
		all = append(all, cas.next.cert)
	}
	return slices.ContainsFunc(all, func(ca *x509.Certificate) bool {
		return leaf.CheckSignatureFrom(ca) == nil
	})
}

// authorities reads the CAs of the agents, and makes the first where there is none.
// What another controller made of them is known here within rowsFresh.
func (c *Controller) authorities(ctx context.Context) (*authorities, error) {
	c.agents.reading.Lock()
	defer c.agents.reading.Unlock()
	k := &c.agents.known
	now := c.Now()
	if k.cas != nil && now.Sub(k.read).Abs() < rowsFresh {
		return k.cas, nil
	}
	if k.cas == nil || now.Sub(k.turned).Abs() >= turnEvery {
		if err := c.turnAgentsCA(ctx); err != nil {
			return nil, fmt.Errorf("CA of the agents: %w", err)
		}
		k.turned = now
	}
	var sealed []byte
	err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
		sealed, err = tx.Sealed(ctx, "", sealedAgents, sealedAgents)
		return err
	})
	if err == nil && !bytes.Equal(sealed, k.sealed) {
		k.cas, err = c.openAgents(sealed)
		k.sealed = sealed
	}
	if err != nil {
		k.cas = nil
		return nil, fmt.Errorf("CA of the agents: %w", err)
	}
	k.read = now
	return k.cas, nil
}

func (c *Controller) openAgents(sealed []byte) (*authorities, error) {
	text, err := c.keyring().Open(secret.RecordID("", sealedAgents, sealedAgents), sealed)
	if err != nil {
		return nil, err
	}
	return openAuthorities(text)
}

// agentsCAs are the CAs as a transaction sees them; nil: there are none yet.
func (c *Controller) agentsCAs(ctx context.Context, tx *store.Tx) (*authorities, error) {
	sealed, err := tx.Sealed(ctx, "", sealedAgents, sealedAgents)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil //nolint:nilnil // none is an answer here
	}
	if err != nil {
		return nil, err
	}
	return c.openAgents(sealed)
}

// putAgentsCAs keeps the CAs.
func (c *Controller) putAgentsCAs(ctx context.Context, tx *store.Tx, cas *authorities) error {
	text, err := cas.encode()
	if err != nil {
		return err
	}
	sealed, err := c.seal("", sealedAgents, sealedAgents, text)
	if err != nil {
		return err
	}
	return tx.PutSealed(ctx, "", sealedAgents, sealedAgents, sealed)
}

// newAgentsCA makes a CA; nothing keeps it.
func newAgentsCA(now time.Time) (*agentsCA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "certfarm agents"},
		NotBefore: now.Add(-clocksApart), NotAfter: now.Add(agentsCALife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &agentsCA{cert, key, pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: der})}, err
}

func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return new(big.Int).SetBytes(b[:])
}

// made is when the CA was made.
func (ca *agentsCA) made() time.Time { return ca.cert.NotBefore.Add(clocksApart) }

// pin is the SHA-256 of the CA's public key (SPKI DER), hex.
func (ca *agentsCA) pin() string { return farm.Fingerprint(ca.cert.RawSubjectPublicKeyInfo) }

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
	return leaf, append(pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: leaf}), ca.text...), nil
}

// AgentsPins are what agents know the controllers by: the SHA-256 of the public key
// (SPKI DER) of the agents' CA, hex, and of the one that is to follow it, if there is
// one.
func (c *Controller) AgentsPins(ctx context.Context) ([]string, error) {
	cas, err := c.authorities(ctx)
	if err != nil {
		return nil, err
	}
	return cas.pins(), nil
}

// AgentsDoor makes a certificate for the listener that agents connect to, by the CA
// that each of them trusts: the first of AgentsPins. Its key is nowhere else; it is to
// be made anew before it ends (Leaf.NotAfter), and when the CA is another.
func (c *Controller) AgentsDoor(ctx context.Context) (*tls.Certificate, error) {
	cas, err := c.authorities(ctx)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the door's key: %w", err)
	}
	now := c.Now()
	der, _, err := cas.signs.sign(key.Public(), c.Owner, x509.ExtKeyUsageServerAuth, now.Add(-clocksApart), now.Add(doorLife))
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der, cas.signs.cert.Raw}, PrivateKey: key, Leaf: leaf}, err
}
