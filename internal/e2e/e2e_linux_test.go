package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/store/storetest"
)

// login is the account that the controller deploys with: no password, no rights
// but those of its sudo rule. It has the number of the test's process, so that
// two runs on one machine are not in each other's way.
var login = loginPrefix + strconv.Itoa(os.Getpid())

const loginPrefix = "certfarmtest"

// authority signs what is not got from Pebble. Go takes its root for one of the
// system's: SSL_CERT_FILE names it before anything reads them.
var authority *testCA

// stranger has signed nothing.
var stranger *testCA

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if told := os.Getenv(controllerVariable); told != "" {
		return controllerMain(told)
	}
	dir, err := os.MkdirTemp("", "certfarm-e2e-roots-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer os.RemoveAll(dir) // nothing can be done about what is left of it
	authority, err = newCA()
	if err == nil {
		stranger, err = newCA()
	}
	if err == nil {
		err = authority.trust(filepath.Join(dir, "roots.pem"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: make a root:", err)
		return 1
	}
	if os.Geteuid() == 0 {
		sweep()
		defer dropLogin(login)
	}
	if os.Getenv(worldVariable) != "" {
		if err := command("ip", "link", "set", "lo", "up"); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
	}
	return storetest.Main(m)
}

// needs skips a test where the servers are not, or cannot be started as they are
// in production: their masters run as root, and the login needs sudo.
func needs(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("real servers are started by root, and so is the test: run it as root")
	}
	for _, p := range []string{nginxPath, apachePath, haproxyPath, sshdPath, "useradd", "usermod", "userdel", "sudo", "visudo", "timeout"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is missing: apt-get install nginx apache2 haproxy openssh-server sudo", p)
		}
	}
	if _, err := os.Stat(apacheModules); err != nil {
		t.Skipf("Apache has no modules in %s, as on Debian", apacheModules)
	}
	if err := haveLogin(); err != nil {
		t.Fatal(err)
	}
}

// haveLogin makes the account, unless it is there. useradd locks it, for which
// sshd refuses keys too; a password of "*" is none, but no lock.
func haveLogin() error {
	if exec.Command("id", login).Run() != nil {
		if err := command("useradd", "--system", "--no-create-home", "--home-dir", "/", "--shell", "/bin/sh", login); err != nil {
			return err
		}
	}
	return errors.Join(command("usermod", "-p", "*", login), os.MkdirAll("/run/sshd", 0o755))
}

func dropLogin(name string) {
	if exec.Command("id", name).Run() == nil {
		if err := command("userdel", name); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
		}
	}
}

// command runs a program to its end.
func command(argv ...string) error {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
	}
	return nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within waits until a condition holds.
func within(t testing.TB, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// testCA is a root that signs leaves.
type testCA struct {
	root *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA() (*testCA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "certfarm e2e root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	return &testCA{root, key}, err
}

// pem is the root as text.
func (ca *testCA) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.root.Raw})
}

func (ca *testCA) trust(file string) error {
	return errors.Join(os.WriteFile(file, ca.pem(), 0o644), os.Setenv("SSL_CERT_FILE", file), os.Setenv("SSL_CERT_DIR", filepath.Dir(file)))
}

// issue makes a leaf: chain and key, PEM.
func (ca *testCA) issue(t testing.TB, names ...string) (chain, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 3, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca.root, k.Public(), ca.key)
	must(t, err)
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// otherKey is a key that belongs to no certificate.
func otherKey(t testing.TB) []byte {
	_, key := authority.issue(t, "nobody.test")
	return key
}

// leafAt makes a handshake of the test's own, which verifies chain and name
// against the roots, and returns the leaf's fingerprint.
func leafAt(t testing.TB, addr, name string, roots *x509.CertPool) (string, error) {
	t.Helper()
	d := tls.Dialer{Config: &tls.Config{ServerName: name, RootCAs: roots}}
	ctx, cancel := timeout(t, 10*time.Second)
	defer cancel()
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close() // it was only to look
	return fingerprint(c.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw), nil
}
