// Package encode puts a bundle into the formats that targets want, and takes
// PEM apart with care: every PEM text that it reads is bounded in size and
// number, and every key that it writes belongs to the leaf beside it.
package encode

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// The bounds on PEM texts. A chain of the Web PKI has two to four certificates.
const (
	MaxPEM   = 256 << 10 // bytes
	MaxChain = 64        // certificates
)

// The errors of Check and Pair that callers tell apart.
var (
	ErrMismatch = errors.New("the key does not belong to the certificate")
	ErrExpired  = errors.New("the certificate has expired")
	ErrNotYet   = errors.New("the certificate is not valid yet")
)

// Chain takes a PEM chain apart, in the order it has. Keys and other blocks in
// the text are left out.
func Chain(text []byte) ([]*x509.Certificate, error) {
	if len(text) > MaxPEM {
		return nil, fmt.Errorf("reading certificates: %d bytes of PEM, at most %d are taken", len(text), MaxPEM)
	}
	var chain []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if len(chain) == MaxChain {
			return nil, fmt.Errorf("reading certificates: more than %d of them", MaxChain)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading certificate %d: %w", len(chain)+1, err)
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, errors.New("reading certificates: no CERTIFICATE block in the PEM")
	}
	return chain, nil
}

// Leaf is the first certificate of a PEM chain.
func Leaf(chain []byte) (*x509.Certificate, error) {
	all, err := Chain(chain)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// Key takes the first private key out of a PEM text: PKCS#8, PKCS#1 or SEC 1.
// Encrypted keys are refused.
func Key(text []byte) (crypto.Signer, error) {
	if len(text) > MaxPEM {
		return nil, fmt.Errorf("reading a private key: %d bytes of PEM, at most %d are taken", len(text), MaxPEM)
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("reading a private key: %w", err)
			}
			signer, ok := key.(crypto.Signer)
			if !ok {
				return nil, fmt.Errorf("reading a private key: a %T cannot sign", key)
			}
			return signer, nil
		case "RSA PRIVATE KEY":
			return signer(x509.ParsePKCS1PrivateKey(block.Bytes))
		case "EC PRIVATE KEY":
			return signer(x509.ParseECPrivateKey(block.Bytes))
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("reading a private key: it is encrypted")
		}
	}
	return nil, errors.New("reading a private key: no PRIVATE KEY block in the PEM")
}

func signer[K crypto.Signer](key K, err error) (crypto.Signer, error) {
	if err != nil {
		return nil, fmt.Errorf("reading a private key: %w", err)
	}
	return key, nil
}

// Pair checks that a key, PEM, belongs to the leaf of a chain, PEM, and returns
// the leaf. A key that belongs to another is ErrMismatch.
func Pair(chain, key []byte) (*x509.Certificate, error) {
	all, err := pair(chain, key)
	if len(all) == 0 {
		return nil, err
	}
	return all[0], err
}

// pair is Pair with the whole chain.
func pair(chain, key []byte) ([]*x509.Certificate, error) {
	all, err := Chain(chain)
	if err != nil {
		return nil, err
	}
	k, err := Key(key)
	if err != nil {
		return nil, err
	}
	public, ok := k.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(all[0].PublicKey) {
		return all, ErrMismatch
	}
	return all, nil
}

// Check says whether a bundle may be installed at now: it fits, and no
// certificate of the chain is outside its dates.
func Check(b farm.Bundle, now time.Time) error {
	if err := Fits(b); err != nil {
		return err
	}
	chain, err := Chain(b.Chain)
	if err != nil {
		return err
	}
	for i, c := range chain {
		switch {
		case now.Before(c.NotBefore):
			return fmt.Errorf("checking %s: certificate %d of the chain: %w (from %s)", b, i+1, ErrNotYet, c.NotBefore.UTC().Format(time.RFC3339))
		case now.After(c.NotAfter):
			return fmt.Errorf("checking %s: certificate %d of the chain: %w (on %s)", b, i+1, ErrExpired, c.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// Fits says whether the parts of a bundle belong together, whatever the time:
// the key to the leaf, the chain leaf first and each signed by the next, and
// every name covered.
func Fits(b farm.Bundle) error {
	leaf, err := chained(b.Chain, b.Key.Reveal())
	return fits(b, leaf, err)
}

// chained is Pair of a chain whose every certificate is signed by the next.
func chained(chain, key []byte) (*x509.Certificate, error) {
	all, err := pair(chain, key)
	if err != nil {
		return nil, err
	}
	for i, c := range all[1:] {
		if err := all[i].CheckSignatureFrom(c); err != nil {
			return nil, fmt.Errorf("certificate %d of the chain is not signed by the next: %w", i+1, err)
		}
	}
	return all[0], nil
}

// fits says whether a bundle is what chained found, and covers its names.
func fits(b farm.Bundle, leaf *x509.Certificate, err error) error {
	if err != nil {
		return fmt.Errorf("checking %s: %w", b, err)
	}
	if b.Leaf != "" && b.Leaf != farm.Fingerprint(leaf.Raw) {
		return fmt.Errorf("checking %s: the chain begins with another leaf, %s", b, farm.Short(farm.Fingerprint(leaf.Raw)))
	}
	for _, name := range b.Names {
		if err := leaf.VerifyHostname(name); err != nil {
			return fmt.Errorf("checking %s: it does not cover %s: %w", b, name, err)
		}
	}
	return nil
}

// ChainPEM is the chain of a bundle as servers read it: leaf first, nothing but
// certificates, no blank lines.
func ChainPEM(b farm.Bundle) ([]byte, error) {
	chain, err := Chain(b.Chain)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, c := range chain {
		if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// KeyPEM is the private key of a bundle in PKCS#8.
func KeyPEM(b farm.Bundle) (farm.Secret, error) {
	key, err := Key(b.Key.Reveal())
	if err != nil {
		return farm.Secret{}, err
	}
	return marshalKey(key)
}

func marshalKey(key crypto.Signer) (farm.Secret, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return farm.Secret{}, fmt.Errorf("writing a private key: %w", err)
	}
	return farm.NewSecret(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

// Combined is leaf, chain and key in one PEM, in this order: what HAProxy reads,
// and nginx and Apache, too, when both their directives name one file. One
// rename of it is a switch that nobody can see half of.
func Combined(b farm.Bundle) (farm.Secret, error) {
	chain, err := ChainPEM(b)
	if err != nil {
		return farm.Secret{}, err
	}
	key, err := KeyPEM(b)
	if err != nil {
		return farm.Secret{}, err
	}
	return farm.NewSecret(slices.Concat(chain, key.Reveal())), nil
}

// names are the names of a leaf, sorted.
func names(leaf *x509.Certificate) []string {
	all := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		all = append(all, ip.String())
	}
	for i, n := range all {
		all[i] = strings.ToLower(n)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
