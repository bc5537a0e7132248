package encode

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// issue makes a chain of an intermediate and a leaf with the key.
func issue(t testing.TB, key crypto.Signer, names ...string) farm.Bundle {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	must(t, err)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(0xabc), DNSNames: names, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	must(t, err)
	secret, err := marshalKey(key)
	must(t, err)
	return farm.Bundle{Leaf: farm.Fingerprint(der), Names: names, Chain: slices.Concat(block("CERTIFICATE", der), block("CERTIFICATE", caDER)), Key: secret}
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCheck(t *testing.T) {
	good := issue(t, ecKey(t), "www.example.org", "example.org")
	must(t, Check(good, now))
	other := issue(t, ecKey(t), "www.example.org")
	blocks := strings.SplitAfter(string(good.Chain), "-----END CERTIFICATE-----\n")
	for name, c := range map[string]struct {
		change func(b *farm.Bundle)
		at     time.Time
		is     error
	}{
		"another key":        {change: func(b *farm.Bundle) { b.Key = other.Key }, is: ErrMismatch},
		"no key":             {change: func(b *farm.Bundle) { b.Key = farm.Secret{} }},
		"chain upside down":  {change: func(b *farm.Bundle) { b.Chain = []byte(blocks[1] + blocks[0]) }, is: ErrMismatch},
		"another issuer":     {change: func(b *farm.Bundle) { b.Chain = []byte(blocks[0] + string(other.Chain)) }},
		"a name too many":    {change: func(b *farm.Bundle) { b.Names = []string{"shop.example.org"} }},
		"another leaf named": {change: func(b *farm.Bundle) { b.Leaf = other.Leaf }},
		"too late":           {at: now.Add(2 * time.Hour), is: ErrExpired},
		"too early":          {at: now.Add(-2 * time.Hour), is: ErrNotYet},
		"cut off":            {change: func(b *farm.Bundle) { b.Chain = b.Chain[:100] }},
	} {
		b, at := good, c.at
		if c.change != nil {
			c.change(&b)
		}
		if at.IsZero() {
			at = now
		}
		if err := Check(b, at); err == nil || (c.is != nil && !errors.Is(err, c.is)) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestFormats(t *testing.T) {
	b := issue(t, ecKey(t), "www.example.org")
	plain := b.Chain
	b.Chain = slices.Concat([]byte("text before\n"), b.Key.Reveal(), []byte("\n\n"), b.Chain)
	chain, err := ChainPEM(b)
	must(t, err)
	if !bytes.Equal(chain, plain) {
		t.Fatalf("the chain came out as %s", chain)
	}
	both, err := Combined(b)
	must(t, err)
	if !bytes.Equal(both.Reveal(), slices.Concat(plain, b.Key.Reveal())) {
		t.Fatalf("the combined PEM has another order")
	}
	if _, err := Pair(both.Reveal(), both.Reveal()); err != nil {
		t.Fatal(err)
	}
}

func TestKeyForms(t *testing.T) {
	ec := ecKey(t)
	ecDER, err := x509.MarshalECPrivateKey(ec)
	must(t, err)
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	for _, c := range []struct {
		key  crypto.Signer
		text []byte
		kind farm.KeyType
	}{
		{ec, slices.Concat(block("EC PARAMETERS", []byte{6, 8}), block("EC PRIVATE KEY", ecDER)), farm.EC256},
		{r, block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(r)), farm.RSA2048},
	} {
		b := issue(t, c.key, "a.example")
		b.Key = farm.NewSecret(c.text)
		must(t, Check(b, now))
		key, err := KeyPEM(b)
		must(t, err)
		if !strings.HasPrefix(string(key.Reveal()), "-----BEGIN PRIVATE KEY") {
			t.Error("not PKCS#8")
		}
		facts, err := Facts(b.Chain)
		must(t, err)
		if facts.KeyType != c.kind || facts.Serial != "abc" || facts.Fingerprint != b.Leaf || facts.Shape != (farm.Shape{Root: "CN=root", EKU: "serverAuth", Names: "a.example"}) {
			t.Errorf("got %+v", facts)
		}
	}
	if _, err := Key(block("ENCRYPTED PRIVATE KEY", []byte("x"))); err == nil {
		t.Error("an encrypted key passed")
	}
}

func TestBounds(t *testing.T) {
	one := issue(t, ecKey(t), "a.example").Chain
	if _, err := Chain(bytes.Repeat(one, MaxChain/2)); err != nil {
		t.Error(err)
	}
	if _, err := Chain(bytes.Repeat(one, MaxChain/2+1)); err == nil {
		t.Error("a chain of too many passed")
	}
	if _, err := Chain(append(one, make([]byte, MaxPEM)...)); err == nil {
		t.Error("a text too long passed")
	}
}

func TestPlaceholder(t *testing.T) {
	p, err := Placeholder([]string{"www.example.org"}, now)
	must(t, err)
	must(t, Check(p, now))
	leaf, err := Leaf(p.Chain)
	must(t, err)
	if !IsPlaceholder(leaf) {
		t.Error("it does not know itself")
	}
	if leaf, err = Leaf(issue(t, ecKey(t), "a.example").Chain); err != nil || IsPlaceholder(leaf) {
		t.Error("a real one counts as placeholder")
	}
}

func FuzzPEM(f *testing.F) {
	b := issue(f, ecKey(f), "www.example.org")
	f.Add(b.Chain, b.Key.Reveal())
	f.Add(b.Key.Reveal(), b.Chain)
	f.Add(bytes.Replace(b.Chain, []byte("M"), []byte("N"), 9), []byte("-----BEGIN PRIVATE KEY-----\n\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, chain, key []byte) {
		b := farm.Bundle{Chain: chain, Key: farm.NewSecret(key)}
		both, err := Combined(b)
		if _, pair := Pair(chain, key); pair == nil && err != nil {
			t.Fatalf("a good pair cannot be combined: %v", err)
		}
		if err == nil && len(both.Reveal()) <= MaxPEM { // what is written can be read
			if _, err := ChainPEM(farm.Bundle{Chain: both.Reveal()}); err != nil {
				t.Fatal(err)
			}
			if _, err := Key(both.Reveal()); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = Facts(chain)
		_ = Check(b, now)
	})
}
