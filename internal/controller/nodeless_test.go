package controller_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lab"
)

// A reader is a server that takes its certificate from a store of PFX files at
// each handshake, as IIS does from a Centralized Certificate Store.
func startReader(t *testing.T, file string, password farm.Secret) (address string) {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		b, err := encode.OpenPFX(data, password)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(b.Chain, b.Key.Reveal())
		return &pair, err
	}})
	must(t, err)
	t.Cleanup(func() { must(t, listener.Close()) })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = conn.(*tls.Conn).Handshake()
				_ = conn.Close()
			}()
		}
	}()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	must(t, err)
	return net.JoinHostPort("127.0.0.1", port)
}

// A store that belongs to no node goes with the farm: staged, made live, seen at
// its reader, and put back with the others.
func TestATargetThatIsNoPlaceOnANode(t *testing.T) {
	t.Parallel()
	root, password := t.TempDir(), farm.NewSecret([]byte("correct horse battery"))
	secret := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(secret, password.Reveal(), 0o600))
	file := filepath.Join(root, "shop.test.pfx")
	reader := startReader(t, file, password)
	options, err := json.Marshal(map[string]any{"path": root, "polling_interval": "1s"})
	must(t, err)
	target := fmt.Sprintf("      - {kind: ccs, options: %s, secrets: {store_password: {file: %q}}, endpoints: [{address: %q}]}\n    balancers:", options, secret, reader)
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 2}, edit: func(_ *bed, text string) string {
		return strings.Replace(text, "    balancers:", target, 1)
	}})
	stored := func() string {
		t.Helper()
		data, err := os.ReadFile(file)
		must(t, err)
		bundle, err := encode.OpenPFX(data, password)
		must(t, err)
		facts, err := encode.Facts(bundle.Chain)
		must(t, err)
		return facts.Fingerprint
	}
	if got := stored(); got != v1 {
		t.Fatalf("the store has %s, the nodes serve %s", got, v1)
	}
	b.set("web2", lab.BadReload)
	b.renew()
	b.ended(farm.RolledBack, 2)
	if got := stored(); got != v1 {
		t.Errorf("after the way back the store has %s, not %s", got, v1)
	}
	b.mustServe(v1, "web1", "web2")
}
