package boulder

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// A signer is a certificate that signs others.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// An authority is intermediates that two roots have signed. Which of them signs
// a leaf cannot be foretold: nobody can pin one.
type authority []intermediate

type intermediate struct {
	key   *ecdsa.PrivateKey
	certs []*x509.Certificate // the same name and key, from each root
}

// sign makes a certificate; by nil: it signs itself.
func sign(template *x509.Certificate, key *ecdsa.PrivateKey, by *signer) (*x509.Certificate, error) {
	if by == nil {
		by = &signer{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func caTemplate(name string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name, Organization: []string{"Boulder's double"}},
		NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func newRoot(name string, now time.Time) (*signer, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	cert, err := sign(caTemplate(name, now), key, nil)
	return &signer{cert, key}, err
}

// serial is a random one, positive, of 18 bytes.
func serial() *big.Int {
	b := make([]byte, 18)
	_, _ = rand.Read(b) // it never fails
	b[0] = 4
	return new(big.Int).SetBytes(b)
}

// makeKeys makes the roots and intermediates, valid around Now, and the server's
// own certificate, valid around the wall clock, by which clients verify it.
func (c *CA) makeKeys() (tls.Certificate, error) {
	var roots []*signer
	for _, name := range []string{"Root X", "Root Y"} {
		root, err := newRoot(name, c.o.Now())
		if err != nil {
			return tls.Certificate{}, err
		}
		roots = append(roots, root)
		c.Roots += encode(root.cert)
	}
	for i := range 3 {
		key, err := newKey()
		if err != nil {
			return tls.Certificate{}, err
		}
		one := intermediate{key: key}
		for _, root := range roots {
			template := caTemplate(fmt.Sprintf("E%d", i+1), c.o.Now())
			template.NotBefore, template.NotAfter = root.cert.NotBefore, root.cert.NotAfter
			cert, err := sign(template, key, root)
			if err != nil {
				return tls.Certificate{}, err
			}
			one.certs = append(one.certs, cert)
		}
		c.keys = append(c.keys, one)
	}
	return c.front()
}

func (c *CA) front() (tls.Certificate, error) {
	root, err := newRoot("ACME endpoint root", time.Now())
	if err != nil {
		return tls.Certificate{}, err
	}
	c.ListenRoots = encode(root.cert)
	key, err := newKey()
	if err != nil {
		return tls.Certificate{}, err
	}
	cert, err := sign(&x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "ACME endpoint"}, NotBefore: root.cert.NotBefore, NotAfter: root.cert.NotAfter,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, key, root)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}, nil
}

// encode is the PEM of certificates.
func encode(certs ...*x509.Certificate) (text string) {
	for _, cert := range certs {
		text += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	return text
}
