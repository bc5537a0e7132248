package deploy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// throwawayFor is how long a throw-away certificate is valid, before and after now.
const throwawayFor = time.Hour

// Throwaway makes a certificate that nobody trusts, to try targets with: a leaf for
// the names under an issuer of its own, and its key. It is valid for an hour.
func Throwaway(names []string, keys farm.KeyType, now time.Time) (farm.Bundle, error) {
	b, err := throwaway(names, keys, now)
	if err != nil {
		return b, fmt.Errorf("making a throw-away certificate: %w", err)
	}
	return b, nil
}

func throwaway(names []string, keys farm.KeyType, now time.Time) (b farm.Bundle, err error) {
	issuerKey, err := newKey(farm.EC256)
	if err != nil {
		return b, err
	}
	issuer := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "certfarm throw-away issuer"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.Add(-throwawayFor), NotAfter: now.Add(throwawayFor),
	}
	above, err := x509.CreateCertificate(rand.Reader, issuer, issuer, issuerKey.Public(), issuerKey)
	if err != nil {
		return b, err
	}
	key, err := newKey(keys)
	if err != nil {
		return b, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return b, err
	}
	leaf := &x509.Certificate{
		SerialNumber: serial, DNSNames: names, NotBefore: issuer.NotBefore, NotAfter: issuer.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, issuer, key.Public(), issuerKey)
	if err != nil {
		return b, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return b, err
	}
	return farm.Bundle{
		Version: "v-" + farm.Fingerprint(der), Leaf: farm.Fingerprint(der), KeyType: keys, Names: names,
		Chain: slices.Concat(block("CERTIFICATE", der), block("CERTIFICATE", above)),
		Key:   farm.NewSecret(block("PRIVATE KEY", pkcs8)),
	}, nil
}

func newKey(kind farm.KeyType) (crypto.Signer, error) {
	switch kind {
	case farm.RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case farm.RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case farm.RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	case farm.EC384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
