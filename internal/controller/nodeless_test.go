package controller_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
)

// serveTLS is a server that looks for its certificate at each handshake.
func serveTLS(t *testing.T, find func(*tls.ClientHelloInfo) (*tls.Certificate, error)) (address string) {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: find})
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

// A reader is a server that takes its certificate from a store of PFX files at
// each handshake, as IIS does from a Centralized Certificate Store.
func startReader(t *testing.T, file string, password farm.Secret) (address string) {
	t.Helper()
	return serveTLS(t, func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		return pairOf(data, password)
	})
}

// pairOf is a PFX as a server serves it.
func pairOf(pfx []byte, password farm.Secret) (*tls.Certificate, error) {
	b, err := encode.OpenPFX(pfx, password)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(b.Chain, b.Key.Reveal())
	return &pair, err
}

// closedPort is an address at which nobody takes a connection.
func closedPort(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	return l.Addr().String()
}

// A store that belongs to no node goes with the farm: staged, made live, seen at
// its reader, and put back with the others. A reader that is switched off holds
// nothing where farm.yaml says so, and is named.
func TestATargetThatIsNoPlaceOnANode(t *testing.T) {
	t.Parallel()
	root, password := t.TempDir(), farm.NewSecret([]byte("correct horse battery"))
	secret := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(secret, password.Reveal(), 0o600))
	file := filepath.Join(root, "shop.test.pfx")
	reader, off := startReader(t, file, password), closedPort(t)
	options, err := json.Marshal(map[string]any{"path": root, "polling_interval": "1s"})
	must(t, err)
	target := fmt.Sprintf("      - {kind: ccs, on: web1, options: %s, secrets: {store_password: {file: %q}}, absent_max: 1, endpoints: [{address: %q}, {address: %q}]}\n    balancers:", options, secret, off, reader)
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
	told, err := b.Controller.Events(b.ctx, b.Farm, store.EventQuery{Kind: "step.verified"})
	must(t, err)
	if !slices.ContainsFunc(told, func(e farm.Event) bool {
		return e.Target == "shop/ccs" && e.Level == farm.Warn && strings.HasSuffix(e.Text, "switched off, and not waited for: "+off)
	}) {
		t.Errorf("nobody is told that %s is switched off\n%s", off, b.story())
	}
	b.look()
	if d := b.describe(); d.Health != "healthy" {
		t.Errorf("%s: %v", d.Health, d.Attention)
	}
	b.set("web2", lab.BadReload)
	b.renew()
	b.ended(farm.RolledBack, 2)
	if got := stored(); got != v1 {
		t.Errorf("after the way back the store has %s, not %s", got, v1)
	}
	b.mustServe(v1, "web1", "web2")

	// With a mode that tells the servers to read it, the store works on the nodes that do,
	// unless a person holds them. This one is no Windows.
	b.rewrite(func(text string) string {
		return strings.Replace(text, `"polling_interval":"1s"`, `"polling_interval":"1s","mode":"store-only","location":"\\\\files\\certs","account":"reader"`, 1)
	})
	b.apply()
	bench, err := b.Controller.BenchOf(b.ctx, b.Farm, "shop/ccs")
	must(t, err)
	if s := bench.Setup; s.Target != "shop/ccs" || !slices.Equal(s.Readers, []string{"web1"}) || s.Host != nil {
		t.Errorf("it is set up for %q with the readers %q", s.Target, s.Readers)
	}
	d, err := b.Controller.Kinds.Open("ccs", bench.Target.Options, bench.Setup)
	must(t, err)
	if _, err := d.Inspect(b.ctx); err == nil || !strings.Contains(err.Error(), "node web1: looking at IIS") {
		t.Errorf("got %v", err)
	}
	look, err := bench.Setup.Looks(b.ctx, "shop/ccs")
	must(t, err)
	must(t, look(b.ctx, "", []string{v1}))
	must(t, b.Controller.Hold(b.ctx, b.Farm, "web1", "somebody", true))
	if _, err := bench.Setup.Node(b.ctx, "web1"); !errors.Is(err, host.ErrUnreachable) || !strings.Contains(err.Error(), "somebody") {
		t.Errorf("a node that is held: %v", err)
	}
	if in, err := d.Inspect(b.ctx); err != nil || !slices.Equal(in.Leaves, []string{v1}) {
		t.Errorf("what is held is asked: %+v (%v)", in, err)
	}
}
