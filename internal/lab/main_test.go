package lab

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/certfarm/certfarm/internal/farm"
)

// Pebble has no way to end its validation authority: one idle goroutine a CA.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks"))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// soon bounds what a test waits for.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// testCA is a root and an intermediate that signs leaves.
type testCA struct {
	roots        *x509.CertPool
	intermediate *x509.Certificate
	key          *ecdsa.PrivateKey
}

func newCA(t *testing.T) *testCA {
	t.Helper()
	sign := func(name string, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		c := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
		}
		if parent == nil {
			parent, signer = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
		must(t, err)
		c, err = x509.ParseCertificate(der)
		must(t, err)
		return c, key
	}
	root, rootKey := sign("root", nil, nil)
	inter, key := sign("intermediate", root, rootKey)
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return &testCA{pool, inter, key}
}

// issue returns a combined PEM, leaf, intermediate, key, and the leaf's fingerprint.
func (ca *testCA) issue(t *testing.T, name string) (text []byte, fingerprint string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, ca.intermediate, &key.PublicKey, ca.key)
	must(t, err)
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	for _, b := range []*pem.Block{
		{Type: "CERTIFICATE", Bytes: der}, {Type: "CERTIFICATE", Bytes: ca.intermediate.Raw}, {Type: "PRIVATE KEY", Bytes: raw},
	} {
		text = append(text, pem.EncodeToMemory(b)...)
	}
	return text, farm.Fingerprint(der)
}

// trusted makes a handshake that verifies, and returns the leaf.
func (ca *testCA) trusted(t *testing.T, addr, name string) (string, error) {
	t.Helper()
	d := tls.Dialer{Config: &tls.Config{ServerName: name, RootCAs: ca.roots}}
	c, err := d.DialContext(soon(t), "tcp", addr)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	return farm.Fingerprint(c.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw), nil
}

// bench is one node with its client key.
type bench struct {
	*Node
	t   *testing.T
	key ssh.Signer
}

func newBench(t *testing.T, c NodeConfig) *bench {
	t.Helper()
	file := t.TempDir() + "/controller/id_ed25519"
	public, err := newLogin(file)
	must(t, err)
	text, err := os.ReadFile(file)
	must(t, err)
	key, err := ssh.ParsePrivateKey(text)
	must(t, err)
	c.Name, c.Dir, c.Authorized = "web1", t.TempDir(), public
	n, err := StartNode(c)
	must(t, err)
	t.Cleanup(func() { must(t, n.Close()) })
	return &bench{n, t, key}
}

// login opens an SSH connection that checks the host key.
func (b *bench) login() (*ssh.Client, error) {
	pinned, _, _, _, err := ssh.ParseAuthorizedKey([]byte(b.HostKey()))
	if err != nil {
		return nil, err
	}
	c, err := ssh.Dial("tcp", b.SSHAddr(), &ssh.ClientConfig{
		User: LoginUser, Auth: []ssh.AuthMethod{ssh.PublicKeys(b.key)},
		HostKeyCallback: ssh.FixedHostKey(pinned), Timeout: 5 * time.Second,
	})
	if err == nil {
		b.t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

// run runs one command line on a connection of its own.
func (b *bench) run(line string) (output string, status int) {
	b.t.Helper()
	c, err := b.login()
	must(b.t, err)
	defer func() { _ = c.Close() }()
	s, err := c.NewSession()
	must(b.t, err)
	out, err := s.CombinedOutput(line)
	if e, ok := err.(*ssh.ExitError); ok {
		return string(out), e.ExitStatus()
	}
	must(b.t, err)
	return string(out), 0
}

// ok runs a line that must end with status 0.
func (b *bench) ok(line string) {
	b.t.Helper()
	if out, status := b.run(line); status != 0 {
		b.t.Fatalf("%s: exit status %d: %s", line, status, out)
	}
}

// refused runs a line that must end with another status, and returns its output.
func (b *bench) refused(line string) string {
	b.t.Helper()
	out, status := b.run(line)
	if status == 0 {
		b.t.Fatalf("%s: exit status 0: %s", line, out)
	}
	return out
}

// upload writes a file over SFTP.
func (b *bench) upload(name string, text []byte) error {
	b.t.Helper()
	c, err := b.login()
	must(b.t, err)
	defer func() { _ = c.Close() }()
	files, err := sftp.NewClient(c)
	must(b.t, err)
	defer func() { _ = files.Close() }()
	f, err := files.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	_ = f.Close()
	return err
}

// serving must be the leaf that webd serves.
func (b *bench) serving(want string) {
	b.t.Helper()
	got, err := Serving(soon(b.t), b.HTTPSAddr(), "shop.test")
	if err != nil || got != want {
		b.t.Fatalf("serves %q (%v), want %s", got, err, want)
	}
}

func canConnect(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !holds(); {
		if time.Now().After(end) {
			t.Fatal("never happened: " + what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
