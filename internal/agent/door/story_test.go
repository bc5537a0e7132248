package door_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"

	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/agent"
	"github.com/certfarm/certfarm/internal/agent/door"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/deploy/target"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/fence"
	"github.com/certfarm/certfarm/internal/host/local"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// A mint makes certificates of a CA of its own.
type mint struct {
	*testing.T
	root *x509.Certificate
	key  *ecdsa.PrivateKey
	made int64
}

func newMint(t *testing.T) *mint {
	m := &mint{T: t, made: 1}
	m.key = m.newKey()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a root"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, m.key.Public(), m.key)
	if err == nil {
		m.root, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *mint) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		m.Fatal(err)
	}
	return key
}

// pair is a certificate for a name, and its key.
func (m *mint) pair(name string) ([]byte, farm.Secret) {
	m.made++
	key := m.newKey()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(m.made), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(900 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, m.root, key.Public(), m.key)
	if err != nil {
		m.Fatal(err)
	}
	secretKey, err := issue.EncodeKey(key)
	if err != nil {
		m.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), secretKey
}

// A machine is a node: a folder, and a server that reads its certificate there at each
// handshake.
type machine struct {
	name, folder, at string
}

func newMachine(t *testing.T, name string) machine {
	t.Helper()
	m := machine{name: name, folder: filepath.Join(t.TempDir(), name)}
	if err := os.MkdirAll(filepath.Join(m.folder, "tls"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		file := filepath.Join(m.folder, "tls", "shop.pem")
		pair, err := tls.LoadX509KeyPair(file, file)
		return &pair, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	m.at = l.Addr().String()
	s := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: patience, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)}
	go s.Serve(l) // it ends with the listener
	t.Cleanup(func() { s.Close() })
	return m
}

// policy is the node's own.
func (m machine) policy() (fence.Policy, error) {
	return fence.Policy{
		Node: m.name, Farm: "shop", Names: []string{"shop.test"}, Kinds: []string{"files"},
		Folders: []string{m.folder + "/tls", m.folder + "/store"}, Activations: 1000,
	}, nil
}

func (m machine) target() string {
	return fmt.Sprintf(`      - kind: files
        on: %s
        options: {pem: %s/tls/shop.pem, store: %s/store}
        endpoints: [{port: %s}]
`, m.name, m.folder, m.folder, m.at[strings.LastIndex(m.at, ":")+1:])
}

// farmYAML is a farm of machines that have agents.
func farmYAML(m *mint, machines ...machine) []byte {
	var b strings.Builder
	b.WriteString("farm: shop\nissuers:\n  own:\n    acme: https://127.0.0.1:1/directory\n    roots: |\n")
	for line := range strings.Lines(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.root.Raw}))) {
		b.WriteString("      " + line)
	}
	b.WriteString("nodes:\n")
	for _, c := range machines {
		fmt.Fprintf(&b, "  %s: {address: 127.0.0.1, agent: true}\n", c.name)
	}
	b.WriteString("sites:\n  shop:\n    names: [shop.test]\n    validation: {method: http-01, via: gateway}\n    policy: {canary: 1, soak: 0s}\n    targets:\n")
	for _, c := range machines {
		b.WriteString(c.target())
	}
	return []byte(b.String())
}

// served is the fingerprint of what a machine serves; empty: nothing.
func (m machine) served() string {
	c, err := tls.Dial("tcp", m.at, &tls.Config{InsecureSkipVerify: true, ServerName: "shop.test"})
	if err != nil {
		return ""
	}
	defer c.Close()
	return farm.Fingerprint(c.ConnectionState().PeerCertificates[0].Raw)
}

// start joins a machine and runs its agent, with the real answerer.
func (b *bed) start(p *post, m machine) (*agent.Readiness, func()) {
	b.Helper()
	k := agent.Token{Secret: agent.NewTokenSecret()}
	made, err := p.NewAgentToken(b.Context(), "shop", controller.AgentTokenAsk{Digest: k.Digest(), Node: m.name}, "alice")
	if err != nil {
		b.Fatal(err)
	}
	k.Pins = made.Pins
	s := b.setup(k, p)
	s.Now = nil
	i, err := agent.JoinFarm(b.Context(), s)
	if err != nil {
		b.Fatal(err)
	}
	a, err := agent.NewAnswerer(agent.AnswererSetup{Kinds: target.All(), Host: local.New(local.Config{}), Policy: m.policy, State: s.State, Log: b.log})
	if err != nil {
		b.Fatal(err)
	}
	l, err := agent.NewLoop(agent.LoopSetup{Identity: i, State: s.State, Answerer: a, Version: "v1", Log: b.log, Pace: quick})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	stop := func() {
		cancel()
		<-ended
	}
	return agent.NewReadiness(l, probe.TLS{}), stop
}

// serves waits until machines serve a certificate.
func (b *bed) serves(p *post, what string, chain []byte, all ...machine) {
	b.Helper()
	b.until(p, what, func(*store.Tx) (bool, error) {
		for _, m := range all {
			if m.served() != farm.LeafFingerprint(chain) {
				return false, nil
			}
		}
		return true, nil
	})
}

// rolledOut waits until the newest rollout has ended, and holds it to having done all.
func (b *bed) rolledOut(p *post, version string) {
	b.Helper()
	b.until(p, "the rollout of "+version, func(tx *store.Tx) (bool, error) {
		all, err := tx.Rollouts(b.Context(), "shop", "shop", 1)
		if err != nil || len(all) == 0 || all[0].To.ID != version || all[0].Outcome == farm.Running {
			return false, err
		}
		if all[0].Outcome != farm.Done {
			b.Fatalf("it ended as %s: %+v", all[0].Outcome, all[0].Steps)
		}
		return true, nil
	})
}

// Two nodes that nobody reaches get their first certificate and the next one through
// their agents, and a third that joins later gets what the others have; each is ready
// only then.
func TestAFarmOfAgents(t *testing.T) {
	t.Parallel()
	for _, database := range storetest.Databases() {
		t.Run(database, func(t *testing.T) {
			b := makeBed(t, func(o store.Options) *store.Store { return storetest.Open(t, database, o) })
			s := b.open(store.Options{})
			config, lines := controller.Real(s, b.keys, b.log)
			config.Pace = controller.Pace{Late: 200 * time.Millisecond}
			ctl := controller.New(config)
			d, err := door.Listen(t.Context(), door.Config{Controller: ctl, Address: "127.0.0.1:0", Log: b.log})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 2)
			go func() { ended <- d.Serve(ctx) }()
			go func() { ended <- ctl.Run(ctx) }()
			p := &post{Controller: ctl, url: "https://" + d.Addr().String()}

			m := newMint(t)
			one, two, three := newMachine(t, "web1"), newMachine(t, "web2"), newMachine(t, "web3")
			if _, err := ctl.Apply(t.Context(), farmYAML(m, one, two), "farm.yaml", "alice", 0); err != nil {
				t.Fatal(err)
			}
			ready, stopOne := b.start(p, one)
			_, stopTwo := b.start(p, two)
			b.up2(p, "web1", "web2")
			if r := ready.Look(t.Context()); r.Ready {
				t.Error("it is ready with nothing")
			}
			first, key := m.pair("shop.test")
			v, err := ctl.Import(t.Context(), "shop", "shop", first, key, "alice")
			if err != nil {
				t.Fatal(err)
			}
			b.rolledOut(p, v.ID)
			b.serves(p, "the first certificate", first, one, two)
			b.ready(p, ready)

			next, key := m.pair("shop.test")
			if v, err = ctl.Import(t.Context(), "shop", "shop", next, key, "alice"); err != nil {
				t.Fatal(err)
			}
			b.rolledOut(p, v.ID)
			b.serves(p, "the next certificate", next, one, two)
			b.ready(p, ready)

			if _, err := ctl.Apply(t.Context(), farmYAML(m, one, two, three), "farm.yaml", "alice", 1); err != nil {
				t.Fatal(err)
			}
			late, stopThree := b.start(p, three)
			b.serves(p, "what the others have", next, three)
			b.ready(p, late)
			for _, stop := range []func(){stopOne, stopTwo, stopThree} {
				stop()
			}
			cancel()
			for range 2 {
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
			if err := lines.Close(); err != nil {
				t.Error(err)
			}
			if r := ready.Look(t.Context()); !r.Ready {
				t.Errorf("with the controllers gone it is not ready any more: %v", r.Reasons)
			}
		})
	}
}

// up2 waits until agents of the farm shop are heard of.
func (b *bed) up2(p *post, nodes ...string) {
	b.Helper()
	for _, node := range nodes {
		b.until(p, "the agent of "+node+" is heard of", func(tx *store.Tx) (bool, error) {
			a, err := tx.Agent(b.Context(), "shop", node)
			return !a.Seen.IsZero(), err
		})
	}
}

// ready waits until a readiness URL is green.
func (b *bed) ready(p *post, r *agent.Readiness) {
	b.Helper()
	b.until(p, "readiness", func(*store.Tx) (bool, error) {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/ready", nil))
		var said agent.Report
		if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil {
			return false, err
		}
		return w.Code == http.StatusOK && said.Ready, nil
	})
}
