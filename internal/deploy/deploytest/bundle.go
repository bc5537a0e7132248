package deploytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// Names are what NewBundle's certificates are for.
var Names = []string{"www.example.org", "example.org"}

// NewBundle makes a leaf for Names with an issuer above it, and its key.
func NewBundle(t testing.TB, kind farm.KeyType) farm.Bundle {
	t.Helper()
	caKey := newKey(t, farm.EC256)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "deploytest"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	must(t, err)
	key := newKey(t, kind)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	must(t, err)
	leaf := &x509.Certificate{
		SerialNumber: serial, DNSNames: Names, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	must(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	return farm.Bundle{
		Version: "v-" + farm.Fingerprint(der),
		Leaf:    farm.Fingerprint(der),
		KeyType: kind,
		Names:   Names,
		Chain:   slices.Concat(block("CERTIFICATE", der), block("CERTIFICATE", caDER)),
		Key:     farm.NewSecret(block("PRIVATE KEY", pkcs8)),
	}
}

func newKey(t testing.TB, kind farm.KeyType) (key crypto.Signer) {
	t.Helper()
	var err error
	if kind == farm.RSA2048 {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	must(t, err)
	return key
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
