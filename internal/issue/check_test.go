package issue_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// A signer is a certificate with its key.
type signer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (s signer) sign(t *testing.T, template *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	t.Helper()
	parent := s.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, s.key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert
}

func authority(t *testing.T, name string, by *signer) signer {
	t.Helper()
	key, err := issue.NewKey(farm.EC256)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if by == nil {
		by = &signer{key: key}
	}
	return signer{cert: by.sign(t, template, key.Public()), key: key}
}

func text(certs ...*x509.Certificate) (all []byte) {
	for _, c := range certs {
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return all
}

func TestCheck(t *testing.T) {
	t.Parallel()
	root := authority(t, "root", nil)
	middle := authority(t, "middle", &root)
	stranger := authority(t, "stranger", nil)
	names := []string{"www.farm.test", "farm.test", "192.0.2.1"}
	r, err := issue.NewRequest(names, farm.EC256)
	must(t, err)
	csr, err := x509.ParseCertificateRequest(r.CSR)
	must(t, err)
	other, err := issue.NewKey(farm.EC256)
	must(t, err)

	leaf := func(change func(*x509.Certificate)) *x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(2), DNSNames: []string{"farm.test", "www.farm.test"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)},
			NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 3, 0),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		if change != nil {
			change(template)
		}
		return middle.sign(t, template, csr.PublicKey)
	}
	good := leaf(nil)
	for name, c := range map[string]struct {
		pem  []byte
		says string // "": good
	}{
		"good":               {text(good, middle.cert), ""},
		"blank lines":        {append([]byte("\n\n"), bytes.ReplaceAll(text(good, middle.cert), []byte("-----END CERTIFICATE-----\n"), []byte("-----END CERTIFICATE-----\n\n"))...), ""},
		"with the root":      {text(good, middle.cert, root.cert), ""},
		"client too":         {text(leaf(func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) }), middle.cert), ""},
		"clock ahead":        {text(leaf(func(c *x509.Certificate) { c.NotBefore = now.Add(5 * time.Minute) }), middle.cert), ""},
		"empty":              {nil, "empty"},
		"garbage":            {[]byte("<html>"), "something else"},
		"text between":       {append(append(text(good), []byte("subject=middle\n")...), text(middle.cert)...), "something else"},
		"a key":              {append(text(good), r.Key.Reveal()...), "something else"},
		"cut off":            {text(good, middle.cert)[:len(text(good))+100], "cut off"},
		"not DER":            {[]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "cannot be read"},
		"huge":               {bytes.Repeat([]byte("A"), 1<<20), "more than"},
		"many":               {bytes.Repeat(text(good), 20), "more than"},
		"other key":          {text(middle.sign(t, good, other.Public()), middle.cert), "another key"},
		"fewer names":        {text(leaf(func(c *x509.Certificate) { c.DNSNames = c.DNSNames[:1] }), middle.cert), "we asked for"},
		"more names":         {text(leaf(func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "evil.test") }), middle.cert), "evil.test"},
		"expired":            {text(leaf(func(c *x509.Certificate) { c.NotAfter = now }), middle.cert), "expired"},
		"not yet valid":      {text(leaf(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) }), middle.cert), "only valid from"},
		"not for servers":    {text(leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), middle.cert), "not for servers"},
		"for anything":       {text(leaf(func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageAny) }), middle.cert), "more than servers"},
		"for unknown use":    {text(leaf(func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3}} }), middle.cert), "unknown extended key usage"},
		"a CA":               {text(leaf(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), middle.cert), "one of a CA"},
		"no chain":           {text(good), "no trusted root"},
		"shuffled":           {text(good, root.cert, middle.cert), "did not sign"},
		"looping":            {text(good, middle.cert, middle.cert), "stands twice"},
		"another's chain":    {text(good, stranger.cert), "did not sign"},
		"self-made":          {text(stranger.sign(t, good, csr.PublicKey), stranger.cert), "no trusted root"},
		"shuffled leaf last": {text(middle.cert, good), "another key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := issue.Chain{PEM: c.pem, CSR: r.CSR, Names: names, Roots: string(text(root.cert)), Now: now}.Check()
			if (err == nil) != (c.says == "") {
				t.Fatalf("error is %v, want %q", err, c.says)
			}
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("error is %q, want %q", err, c.says)
			}
		})
	}
}

func FuzzCheck(f *testing.F) {
	r, err := issue.NewRequest([]string{"www.farm.test"}, farm.EC256)
	must(f, err)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, chain []byte) {
		c := issue.Chain{PEM: chain, CSR: r.CSR, Names: []string{"www.farm.test"}, Now: now}
		if err := c.Check(); err == nil {
			t.Error("a chain that nobody signed passes")
		}
	})
}

func TestNewRequest(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 60) + ".farm.test"
	for _, c := range []struct {
		names []string
		cn    string
	}{
		{[]string{"WWW.farm.test", "farm.test"}, "www.farm.test"},
		{[]string{long, "farm.test"}, "farm.test"},
		{[]string{long}, ""},
		{[]string{"192.0.2.1"}, ""},
	} {
		for _, kind := range []farm.KeyType{farm.EC256, farm.EC384, farm.RSA2048} {
			r, err := issue.NewRequest(c.names, kind)
			must(t, err)
			csr, err := x509.ParseCertificateRequest(r.CSR)
			must(t, err)
			if csr.Subject.CommonName != c.cn {
				t.Errorf("%v: the common name is %q, want %q", c.names, csr.Subject.CommonName, c.cn)
			}
			must(t, issue.CheckRequest(r.CSR, c.names))
			key, err := issue.DecodeKey(r.Key)
			must(t, err)
			if !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(csr.PublicKey) {
				t.Error("the key is not the request's")
			}
			if s := fmt.Sprintf("%v %+v %s", r, r, r.Key); strings.Contains(s, "PRIVATE") {
				t.Error("a request prints its key")
			}
		}
	}
	for _, bad := range [][]string{nil, {""}, {"a.test", "A.test"}} {
		if _, err := issue.NewRequest(bad, farm.EC256); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if _, err := issue.NewRequest([]string{"a.test"}, "dsa"); err == nil {
		t.Error("an unknown key type is accepted")
	}
}

func TestCheckRequest(t *testing.T) {
	t.Parallel()
	r, err := issue.NewRequest([]string{"a.test", "192.0.2.1"}, farm.EC256)
	must(t, err)
	must(t, issue.CheckRequest(r.CSR, []string{"192.0.2.1", "A.test"}))
	if err := issue.CheckRequest(r.CSR, []string{"a.test"}); err == nil {
		t.Error("a request for other names passes")
	}
	broken := bytes.Clone(r.CSR)
	broken[len(broken)-1] ^= 1
	if err := issue.CheckRequest(broken, []string{"a.test", "192.0.2.1"}); err == nil {
		t.Error("a request with a broken signature passes")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
