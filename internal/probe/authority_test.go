package probe

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// An authority is a CA of two storeys.
type authority struct {
	root, between       *x509.Certificate
	rootKey, betweenKey crypto.Signer
	roots               string // PEM
}

var rsaKey = sync.OnceValue(func() crypto.Signer {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func ecKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sign(t testing.TB, c, parent *x509.Certificate, key crypto.Signer, by crypto.Signer) *x509.Certificate {
	t.Helper()
	c.SerialNumber = new(big.Int).SetInt64(time.Now().UnixNano())
	if c.NotBefore.IsZero() {
		c.NotBefore = noon.Add(-24 * time.Hour)
	}
	if c.NotAfter.IsZero() {
		c.NotAfter = noon.Add(90 * 24 * time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	ca := func(cn string) *x509.Certificate {
		return &x509.Certificate{
			Subject: pkix.Name{CommonName: cn}, IsCA: true,
			BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
	}
	a := &authority{rootKey: ecKey(t), betweenKey: ecKey(t)}
	top := ca(name + " root")
	a.root = sign(t, top, top, a.rootKey, a.rootKey)
	a.between = sign(t, ca(name+" intermediate"), a.root, a.betweenKey, a.rootKey)
	a.roots = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw}))
	return a
}

// leaf issues a certificate, served with its intermediate.
func (a *authority) leaf(t testing.TB, key crypto.Signer, change ...func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	c := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "shop.test"},
		DNSNames:    []string{"shop.test", "www.shop.test"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, f := range change {
		f(c)
	}
	made := sign(t, c, a.between, key, a.betweenKey)
	return tls.Certificate{Certificate: [][]byte{made.Raw, a.between.Raw}, PrivateKey: key, Leaf: made}
}

func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key := ecKey(t)
	c := &x509.Certificate{Subject: pkix.Name{CommonName: "placeholder"}, DNSNames: []string{"shop.test"}}
	made := sign(t, c, c, key, key)
	return tls.Certificate{Certificate: [][]byte{made.Raw}, PrivateKey: key, Leaf: made}
}

func fingerprint(c tls.Certificate) string { return farm.Fingerprint(c.Certificate[0]) }

// leafOf is the certificate as a version holds it.
func leafOf(c tls.Certificate) farm.Leaf {
	return farm.Leaf{
		Fingerprint: fingerprint(c), KeyType: keyTypeOf(c.Leaf),
		NotBefore: c.Leaf.NotBefore, NotAfter: c.Leaf.NotAfter,
	}
}

// listen serves every connection with handle, the n-th with number n, and
// returns the address.
func listen(t testing.TB, handle func(n int, c net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var open sync.Map
	wg.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Store(c, nil)
			wg.Go(func() {
				defer func() { open.Delete(c); _ = c.Close() }()
				handle(n, c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		open.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
		wg.Wait()
	})
	return l.Addr().String()
}

// shake answers a handshake and waits for the client to go.
func shake(c net.Conn, config *tls.Config) {
	s := tls.Server(c, config)
	if s.Handshake() == nil {
		_, _ = s.Read(make([]byte, 1))
	}
}

func serve(t testing.TB, config *tls.Config) string {
	return listen(t, func(_ int, c net.Conn) { shake(c, config) })
}

func serveCerts(t testing.TB, certs ...tls.Certificate) string {
	return serve(t, &tls.Config{Certificates: certs})
}

// serveWorkers gives connections to the workers in turn.
func serveWorkers(t testing.TB, workers ...*tls.Config) (address string, connections *atomic.Int32) {
	connections = new(atomic.Int32)
	return listen(t, func(n int, c net.Conn) {
		connections.Add(1)
		shake(c, workers[n%len(workers)])
	}), connections
}

func ask(a *authority, address string) Question {
	return Question{Endpoint: farm.Endpoint{Address: address, SNI: "shop.test"}, Target: "shop@web-1", Roots: a.roots}
}

func see(t *testing.T, q Question) farm.Sight {
	t.Helper()
	p := TLS{Timeout: 5 * time.Second, Now: func() time.Time { return noon }}
	s, err := p.Probe(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
