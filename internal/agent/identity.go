package agent

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/fence"
	"github.com/certfarm/certfarm/internal/issue"
)

// An Identity is who an agent is: a key that was made on this machine, what the
// controllers gave for it, and what it knows them by.
type Identity struct {
	Farm    string
	Node    string
	Servers []string // https://host:port of the controllers' doors for agents
	Pins    []string // SHA-256 of the public keys of the agents' CAs, hex: each may stand behind a controller
	Until   time.Time
	Half    time.Time // when it is renewed

	key   crypto.Signer
	chain []byte
	tls   tls.Certificate
}

// identityFile holds all of an identity: it is replaced in one step.
const identityFile = "agent.json"

// onDisk is an identity as it is kept, readable by the agent's user alone.
type onDisk struct {
	Farm    string   `json:"farm"`
	Node    string   `json:"node"`
	Servers []string `json:"servers"`
	Pin     string   `json:"pin,omitempty"` // as an earlier Certfarm wrote it: the only one
	Pins    []string `json:"pins"`
	Key     string   `json:"key"`   // PEM, PKCS#8
	Chain   string   `json:"chain"` // PEM
}

// ErrNotJoined says that there is no identity in the state folder.
var ErrNotJoined = errors.New("this machine has not joined yet")

// LoadIdentity reads the identity in a state folder.
func LoadIdentity(state string) (*Identity, error) {
	text, err := os.ReadFile(filepath.Join(state, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", state, ErrNotJoined)
	}
	if err != nil {
		return nil, fmt.Errorf("the agent's identity: %w", err)
	}
	var d onDisk
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("the agent's identity in %s cannot be read: %w", state, err)
	}
	key, err := issue.DecodeKey(farm.NewSecret([]byte(d.Key)))
	if err != nil {
		return nil, fmt.Errorf("the agent's identity in %s: %w", state, err)
	}
	if len(d.Pins) == 0 {
		d.Pins = []string{d.Pin}
	}
	i := &Identity{Farm: d.Farm, Node: d.Node, Servers: d.Servers, Pins: d.Pins, key: key}
	return i, i.take([]byte(d.Chain))
}

// Save keeps the identity in a state folder, which is made if there is none.
func (i *Identity) Save(state string) error {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return fmt.Errorf("the agent's state folder: %w", err)
	}
	key, err := issue.EncodeKey(i.key)
	if err != nil {
		return err
	}
	text, err := json.Marshal(onDisk{Farm: i.Farm, Node: i.Node, Servers: i.Servers, Pins: i.Pins, Key: string(key.Reveal()), Chain: string(i.chain)})
	if err != nil {
		return fmt.Errorf("the agent's identity: %w", err)
	}
	if err := fence.Write(filepath.Join(state, identityFile), text); err != nil {
		return fmt.Errorf("the agent's identity: %w", err)
	}
	return nil
}

// take puts a chain that the controllers gave in place of the one before.
func (i *Identity) take(chain []byte) error {
	block, rest := pem.Decode(chain)
	if block == nil {
		return errors.New("the agent's certificate is not PEM")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("the agent's certificate: %w", err)
	}
	own, ok := i.key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !own.Equal(leaf.PublicKey) {
		return errors.New("the agent's certificate is for another key")
	}
	i.tls = tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: i.key, Leaf: leaf}
	for b, more := pem.Decode(rest); b != nil; b, more = pem.Decode(more) {
		i.tls.Certificate = append(i.tls.Certificate, b.Bytes)
	}
	i.chain, i.Until = chain, leaf.NotAfter
	i.Half = leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
	return nil
}

// learn takes the pins that the controllers sent. Those of an earlier Certfarm send
// none: then they stay.
func (i *Identity) learn(pins []string) {
	if len(pins) > 0 {
		i.Pins = pins
	}
}

// newAgentKey makes the key by which a machine is known.
func newAgentKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the agent's key: %w", err)
	}
	return key, nil
}

// requestFor is a signing request with nothing in it but the key.
func requestFor(key crypto.Signer) ([]byte, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("sign the agent's request: %w", err)
	}
	return csr, nil
}
