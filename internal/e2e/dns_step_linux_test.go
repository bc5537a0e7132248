package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/snippet"
)

// TestStepCA is a second CA, which others wrote: it asks over DNS and over HTTP for
// the names of one certificate.
func TestStepCA(t *testing.T) {
	program := stepCA(t)
	if !inNames(t, dnsServers[:2]) {
		return
	}
	w := newNames(t, resolverAt)
	w.startStepCA(t, program)
	s := wish{
		issuer: "step", names: []string{"shop.bind.test", "*.shop.bind.test", "www.step.bind.test"},
		validation: `
      - {names: [www.step.bind.test], via: gateway}
      - {dns: bind}`,
	}
	rule, err := snippet.Rule(snippet.Ask{
		Server: snippet.HAProxy, Via: farm.Gateway, Site: siteName, Names: s.names[2:], Controllers: w.ask("", "", "").Controllers,
	})
	must(t, err)
	w.balancer.run(t, rule)
	w.gets(t, w.control(t, "step"), s)
	w.left(t, bindAt, "_acme-challenge.shop.bind.test")
}

// stepCA is where scripts/setup puts it, or where the machine has it.
func stepCA(t *testing.T) string {
	t.Helper()
	built, err := filepath.Abs(filepath.Join("..", "..", "bin", "step-ca"))
	must(t, err)
	for _, name := range []string{built, "step-ca"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("step-ca is missing: scripts/setup builds it")
	return ""
}

// startStepCA starts a CA with a root and an issuing certificate of its own.
func (w *nameWorld) startStepCA(t *testing.T, program string) {
	t.Helper()
	root, err := newCA()
	must(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "certfarm e2e issuing"}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}, root.root, key.Public(), root.key)
	must(t, err)
	raw, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	address := net.JoinHostPort(stepAt, "9000")
	dir := filepath.Join(w.dir, "step")
	conf, err := json.Marshal(map[string]any{
		"root": filepath.Join(dir, "root.pem"), "crt": filepath.Join(dir, "issuing.pem"), "key": filepath.Join(dir, "issuing.key"),
		"address": address, "dnsNames": []string{stepAt},
		"db":        map[string]any{"type": "badgerv2", "dataSource": filepath.Join(dir, "db")},
		"authority": map[string]any{"provisioners": []any{map[string]any{"type": "ACME", "name": "acme"}}},
	})
	must(t, err)
	w.folder(t, "step", map[string]string{
		"ca.json": string(conf), "root.pem": string(root.pem()),
		"issuing.pem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		"issuing.key": string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})),
	})
	must(t, os.Chmod(filepath.Join(dir, "issuing.key"), 0o600))
	w.process(t, program, filepath.Join(dir, "ca.json"), "--resolver", net.JoinHostPort(resolverAt, "53"))
	within(t, 20*time.Second, "step-ca takes connections", func() bool { return answers(address) })
	w.issuers["step"] = issuer{directory: "https://" + address + "/acme/acme/directory", roots: string(root.pem())}
}
