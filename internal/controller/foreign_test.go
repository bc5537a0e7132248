package controller_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A stranger is a CA that the farm trusts and that Certfarm has no account at.
type stranger struct {
	t    *testing.T
	root *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newStranger(t *testing.T) *stranger {
	t.Helper()
	s := &stranger{t: t, key: newKey(t)}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a stranger's root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(2, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &s.key.PublicKey, s.key)
	must(t, err)
	s.root, err = x509.ParseCertificate(der)
	must(t, err)
	return s
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

// trusted is farm.yaml with the stranger's root among the issuer's.
func (s *stranger) trusted(_ *bed, text string) string {
	var lines strings.Builder
	for line := range strings.Lines(string(encoded("CERTIFICATE", s.root.Raw))) {
		lines.WriteString("      " + line)
	}
	return strings.Replace(text, "    roots: |\n", "    roots: |\n"+lines.String(), 1)
}

// A pair is a leaf with its key.
type pair struct {
	chain, key  []byte // PEM
	fingerprint string
}

// both is chain and key in one text.
func (p pair) both() []byte { return append(append([]byte(nil), p.chain...), p.key...) }

// issue signs a leaf that is valid until the given time.
func (s *stranger) issue(until time.Time, names ...string) pair {
	s.t.Helper()
	return signed(s.t, until, names, s.root, s.key)
}

// selfSigned is what a machine has before anything is installed.
func selfSigned(t *testing.T, names ...string) pair {
	t.Helper()
	return signed(t, time.Now().AddDate(1, 0, 0), names, nil, nil)
}

func signed(t *testing.T, until time.Time, names []string, by *x509.Certificate, with *ecdsa.PrivateKey) pair {
	t.Helper()
	key := newKey(t)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	must(t, err)
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if by == nil {
		by, with = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, with)
	must(t, err)
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	return pair{encoded("CERTIFICATE", der), encoded("PRIVATE KEY", raw), farm.Fingerprint(der)}
}

func encoded(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
