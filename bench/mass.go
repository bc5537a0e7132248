package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// What many certificates at once are measured with.
const (
	massSites  = 1000
	massNodes  = 8
	massRounds = 1
	massWaves  = 1 // no canary, no waves
)

// measureMass compares the rollouts of 1,000 certificates to 8 nodes each, which
// become due at one moment, with the least that could be done: one archive with all
// of them a node, one reload a node, and the same handshakes. The first round of
// ours is the first installation.
func measureMass(ctx context.Context, dir string) ([]figure, error) {
	m, err := newMassTest(ctx, filepath.Join(dir, "mass"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = m.close() }() // the figures are there
	var ours, bare, reloads []float64
	var notes []string
	for round := range massRounds + 1 {
		bundles, err := m.signAll()
		if err != nil {
			return nil, err
		}
		was := m.nodes[0].reloads.Load()
		took, err := m.ours(ctx, bundles)
		if err != nil {
			return nil, err
		}
		moved, seen, err := m.bare(ctx, bundles)
		if err != nil {
			return nil, err
		}
		times := m.nodes[0].reloads.Load() - was
		notes = append(notes, fmt.Sprintf("round %d: ours %.2fs with %d reloads a node; bare %.2fs to move and reload, %.2fs for its handshakes",
			round, took.Seconds(), times, moved.Seconds(), seen.Seconds()))
		if round > 0 {
			ours, bare, reloads = append(ours, took.Seconds()), append(bare, (moved+seen).Seconds()), append(reloads, float64(times))
		}
	}
	return []figure{
		{name: "mass", unit: "s", value: median(ours), floor: median(bare), goal: atMost(1.5), notes: notes},
		{name: "mass-reloads", value: median(reloads), floor: massWaves, goal: atMost(1)},
	}, nil
}

// A massTest is a controller, its nodes, and as many nodes for the bare deployment.
type massTest struct {
	signer
	dir         string
	key         string // file of the login key
	disks       string // of all nodes
	nodes, peer []*massNode
	config      controller.Config
	controller  *controller.Controller
	done        ended
	stop        context.CancelFunc
	work        errgroup.Group
	lines       io.Closer
}

func newMassTest(ctx context.Context, dir string) (m *massTest, err error) {
	m = &massTest{dir: dir, key: filepath.Join(dir, "login")}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	if m.signer, err = newSigner(); err != nil {
		return m, err
	}
	login, err := m.login()
	if err != nil {
		return m, err
	}
	if m.disks, err = othersDir(dir); err != nil {
		return m, err
	}
	for i := range 2 * massNodes {
		name := fmt.Sprintf("node%d", i+1)
		n, err := newMassNode(name, filepath.Join(m.disks, name), login)
		if err != nil {
			return m, err
		}
		if i < massNodes {
			m.nodes = append(m.nodes, n)
		} else {
			m.peer = append(m.peer, n)
		}
	}
	s, err := store.Open(ctx, filepath.Join(dir, databaseName), store.Options{})
	if err != nil {
		return m, err
	}
	keys, err := secret.Load(secret.Source{File: filepath.Join(dir, "master.key")})
	if err != nil {
		return m, errors.Join(err, s.Close())
	}
	m.config, m.lines = controller.Real(s, keys, nil)
	m.config.InPlace = true
	m.config.Pace = controller.Pace{Look: time.Hour, Late: time.Hour} // looks are no part of it
	m.done = make(ended, massSites)
	m.config.Notifier = m.done
	m.controller = controller.New(m.config)
	if _, err = m.controller.Apply(ctx, []byte(m.farmYAML()), "farm.yaml", "bench", 0); err != nil {
		return m, err
	}
	return m, nil
}

// login makes the key that opens all nodes.
func (m *massTest) login() (ssh.PublicKey, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return nil, err
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, err
	}
	return key.PublicKey(), os.WriteFile(m.key, pem.EncodeToMemory(block), 0o600)
}

func massName(i int) string { return fmt.Sprintf("n%04d.bench.test", i) }

// farmYAML is a farm of 1,000 sites, each on all nodes.
func (m *massTest) farmYAML() string {
	var b strings.Builder
	fmt.Fprintf(&b, "farm: mass\nissuers:\n  none:\n    acme: https://127.0.0.1:1/directory\n    roots: |\n")
	for line := range strings.Lines(string(certificate(m.issuer.Raw))) {
		b.WriteString("      " + line)
	}
	b.WriteString("policy: {canary: 0, soak: 0s, max_parallel: 100%, deadline: 1m, healthy_deadline: 1m, drift: report}\nnodes:\n")
	for _, n := range m.nodes {
		_, port, _ := net.SplitHostPort(n.line.Addr())
		fmt.Fprintf(&b, "  %s: {address: 127.0.0.1, ssh: {port: %s, user: bench, key: {file: %q}, host_key: [%q]}}\n", n.name, port, m.key, n.line.HostKey())
	}
	b.WriteString("sites:\n")
	for i := range massSites {
		fmt.Fprintf(&b, "  s%04d:\n    names: [%s]\n    targets:\n", i, massName(i))
		for _, n := range m.nodes {
			_, port, _ := net.SplitHostPort(n.web.Addr().String())
			fmt.Fprintf(&b, "      - {kind: nginx, on: %s, endpoints: [{port: %s}], options: {pem: %s/%s.pem, store: /store, test: [webd, test], reload: [webd, reload], start: [webd, reload]}}\n",
				n.name, port, tlsFolder, massName(i))
		}
	}
	return b.String()
}

func (m *massTest) signAll() ([]farm.Bundle, error) {
	var all []farm.Bundle
	for i := range massSites {
		b, err := m.sign([]string{massName(i)})
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}

// ours hands the controller a new certificate for each site, and tells how long it
// takes from the first one until every rollout has ended.
func (m *massTest) ours(ctx context.Context, bundles []farm.Bundle) (time.Duration, error) {
	begin := time.Now()
	var g errgroup.Group
	g.SetLimit(16)
	for i, b := range bundles {
		g.Go(func() error {
			_, err := m.controller.Import(ctx, "mass", fmt.Sprintf("s%04d", i), b.Chain, b.Key, "bench")
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	if m.stop == nil { // before the first certificate there is nothing to do but to order one
		ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
		m.stop = stop
		m.work.Go(func() error { return m.controller.Run(ctx) })
	}
	for range massSites {
		select {
		case <-m.done:
		case <-ctx.Done():
		}
	}
	return time.Since(begin), m.allDone(ctx)
}

// allDone holds the newest rollout of each site to have succeeded.
func (m *massTest) allDone(ctx context.Context) error {
	return m.config.Store.View(ctx, func(tx *store.Tx) error {
		for i := range massSites {
			newest, err := tx.Rollouts(ctx, "mass", fmt.Sprintf("s%04d", i), 1)
			if err != nil || len(newest) == 0 {
				return fmt.Errorf("no rollout of s%04d: %w", i, err)
			}
			if newest[0].Outcome != farm.Done {
				return fmt.Errorf("the rollout of s%04d is %q: %s", i, newest[0].Outcome, newest[0].Why)
			}
		}
		return nil
	})
}

// bare moves one archive to each node, reloads, and makes the handshakes.
func (m *massTest) bare(ctx context.Context, bundles []farm.Bundle) (moved, seen time.Duration, err error) {
	begin := time.Now()
	archive, err := archiveOf(bundles)
	if err != nil {
		return 0, 0, err
	}
	key, err := os.ReadFile(m.key)
	if err != nil {
		return 0, 0, err
	}
	login, err := ssh.ParsePrivateKey(key)
	if err != nil {
		return 0, 0, err
	}
	var g errgroup.Group
	for _, n := range m.peer {
		g.Go(func() error { return n.unpack(login, archive) })
	}
	if err := g.Wait(); err != nil {
		return 0, 0, err
	}
	moved = time.Since(begin)
	roots := x509.NewCertPool()
	roots.AddCert(m.issuer)
	g.SetLimit(64)
	for _, n := range m.peer {
		for i, b := range bundles {
			g.Go(func() error { return m.served(ctx, roots, n, massName(i), b) })
		}
	}
	err = g.Wait()
	return moved, time.Since(begin) - moved, err
}

func archiveOf(bundles []farm.Bundle) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, bundle := range bundles {
		text := append(bytes.Clone(bundle.Chain), bundle.Key.Reveal()...)
		if err := w.WriteHeader(&tar.Header{Name: massName(i) + ".pem", Mode: 0o600, Size: int64(len(text))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(text); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

// unpack sends a node the archive, and reloads.
func (n *massNode) unpack(login ssh.Signer, archive []byte) error {
	known, _, _, _, err := ssh.ParseAuthorizedKey([]byte(n.line.HostKey()))
	if err != nil {
		return err
	}
	client, err := ssh.Dial("tcp", n.line.Addr(), &ssh.ClientConfig{
		User: "bench", Auth: []ssh.AuthMethod{ssh.PublicKeys(login)}, HostKeyCallback: ssh.FixedHostKey(known),
	})
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // what was asked for is done
	run := func(line string, stdin []byte) error {
		s, err := client.NewSession()
		if err != nil {
			return err
		}
		s.Stdin = bytes.NewReader(stdin)
		return s.Run(line)
	}
	if err := run("webd untar", archive); err != nil {
		return err
	}
	return run("webd reload", nil)
}

// served makes as many handshakes as the controller does, each as crypto/tls makes one
// for any client, and holds the leaf to what was sent.
func (m *massTest) served(ctx context.Context, roots *x509.CertPool, n *massNode, name string, b farm.Bundle) error {
	d := tls.Dialer{Config: &tls.Config{ServerName: name, RootCAs: roots}}
	for range samples {
		c, err := d.DialContext(ctx, "tcp", n.web.Addr().String())
		if err != nil {
			return err
		}
		leaf := farm.Fingerprint(c.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw)
		if err := c.Close(); err != nil {
			return err
		}
		if leaf != b.Leaf {
			return fmt.Errorf("%s serves %s for %s", n.name, leaf, name)
		}
	}
	return nil
}

func (m *massTest) close() error {
	var errs []error
	if m.stop != nil {
		m.stop()
		errs = append(errs, m.work.Wait())
	}
	if m.lines != nil {
		errs = append(errs, m.lines.Close(), m.config.Store.Close())
	}
	for _, n := range append(m.nodes, m.peer...) {
		errs = append(errs, n.close())
	}
	if m.disks != "" {
		errs = append(errs, os.RemoveAll(m.disks))
	}
	return errors.Join(errs...)
}
